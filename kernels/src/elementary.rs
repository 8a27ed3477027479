//! Logarithm, sine and cosine as the generator's normals need them: those of the GNU C library since 2.28 (Arm's Optimized
//! Routines) to the bit, on every machine alike and many at a time. Single precision in, double precision within, fused.
//!
//! Weights and inputs follow from them, so they are a contract: the tests try every number the generator can ask about.

/// Sixteen points between 0.7 and 1.4: the inverse of each, and its logarithm.
const INVERSES: [f64; 16] = [
    1.398_907_162_146_528,
    1.340_314_189_663_799_8,
    1.286_432_210_124_115,
    1.236_715_021_426_989_5,
    1.190_697_716_671_175_2,
    1.147_982_102_055_642_9,
    1.108_225_144_827_215_8,
    1.071_129_741_305_738_1,
    1.036_437_278_977_283,
    1.0,
    0.949_285_979_573_905_7,
    0.895_104_942_860_900_4,
    0.847_682_162_035_110_3,
    0.805_031_485_169_200_1,
    0.766_467_100_884_310_8,
    0.731_428_603_316_328,
];
const LOGARITHMS: [f64; 16] = [
    -0.335_691_333_328_822_84,
    -0.292_904_056_377_407_4,
    -0.251_872_658_093_736_9,
    -0.212_458_688_071_172_55,
    -0.174_539_451_837_456_34,
    -0.138_005_707_231_975_8,
    -0.102_759_766_985_451_39,
    -0.068_713_924_470_205_25,
    -0.035_789_138_739_822_8,
    0.0,
    0.052_045_177_429_294_96,
    0.110_814_312_987_879_42,
    0.165_249_522_369_514_3,
    0.216_873_890_316_999_77,
    0.265_963_502_812_139_7,
    0.312_755_666_407_355_7,
];

/// Natural logarithm of a normal number above zero.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    // x = 2^power * mantissa, the mantissa beginning at the first point.
    const FIRST: u32 = 0x3f33_0000;
    const A: [f64; 3] = [
        -0.250_893_422_142_371_54,
        0.333_456_765_744_066,
        -0.499_999_748_580_210_3,
    ];
    let offset = x.to_bits().wrapping_sub(FIRST);
    let mantissa = f64::from(f32::from_bits(x.to_bits().wrapping_sub(offset & 0xff80_0000)));
    let power = f64::from(offset.cast_signed() >> 23);
    let point = (offset >> 19) as usize & 15;
    let rest = mantissa.mul_add(INVERSES[point], -1.0);
    let nearest = power.mul_add(std::f64::consts::LN_2, LOGARITHMS[point]);
    let square = rest * rest;
    let polynomial = square.mul_add(A[0], rest.mul_add(A[1], A[2]));
    square.mul_add(polynomial, nearest + rest) as f32
}

/// Sine and cosine of an angle between 0 and a whole turn.
#[inline(always)]
pub(crate) fn sin_cos(angle: f32) -> (f32, f32) {
    // Two over pi, times 2^24: quarters are counted as a whole number of that many parts.
    const QUARTERS: f64 = 10_680_707.430_881_744;
    const PARTS: f64 = 16_777_216.0;
    // Adding it leaves a whole number in the lowest bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    const S: [f64; 3] = [
        -0.166_666_549_437_010_84,
        0.008_332_178_146_138_854,
        -0.000_195_172_989_813_857_25,
    ];
    const C: [f64; 4] = [
        -0.499_999_997_251_082_24,
        0.041_666_623_324_344_516,
        -0.001_388_676_379_437_604,
        2.439_045_070_356_454e-5,
    ];
    let x = f64::from(angle);
    let quarter = ((x * QUARTERS + PARTS / 2.0) / PARTS).floor();
    let rest = (-quarter).mul_add(std::f64::consts::FRAC_PI_2, x);
    let square = rest * rest;
    let cube = square * rest;
    let sine = (square * cube).mul_add(square.mul_add(S[2], S[1]), cube.mul_add(S[0], rest));
    let fourth = square * square;
    let cosine = (square * fourth).mul_add(
        square.mul_add(C[3], C[2]),
        fourth.mul_add(C[1], square.mul_add(C[0], 1.0)),
    );
    // Each quarter further swaps the two and turns one sign; signs change no rounding.
    let turns = (quarter + WHOLE).to_bits();
    let swapped = turns & 1 == 1;
    let (sin, cos) = if swapped { (cosine, sine) } else { (sine, cosine) };
    let sin = f64::from_bits(sin.to_bits() ^ (turns & 2) << 62);
    let cos = f64::from_bits(cos.to_bits() ^ (turns.wrapping_add(1) & 2) << 62);
    (sin as f32, cos as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector;

    /// Logarithm of a uniform, sine and cosine of its share of a turn, as the generator asks for them.
    #[expect(clippy::inline_always, reason = "only what is inlined is compiled for vector units")]
    #[inline(always)]
    fn all_of(uniform: f32) -> [f32; 3] {
        let (sin, cos) = sin_cos(std::f32::consts::TAU * uniform);
        [ln(uniform.max(1e-10)), sin, cos]
    }

    /// Every value of [`crate::rng::uniform`], with what this module makes of it on the machine's vector units.
    fn every_uniform(mut visit: impl FnMut(f32, [f32; 3])) {
        let mut uniforms = (0..=1_u32 << 24)
            .map(|hash| hash as f32)
            .chain((0x4b80_0001..=0x4f80_0000).map(f32::from_bits))
            .map(|hash| hash / 4_294_967_296.0)
            .fuse();
        let mut results = vec![[0.0; 3]; 4096];
        loop {
            let some: Vec<f32> = uniforms.by_ref().take(results.len()).collect();
            if some.is_empty() {
                break;
            }
            vector::widest(
                #[inline(always)]
                || {
                    for (result, &uniform) in results.iter_mut().zip(&some) {
                        *result = all_of(uniform);
                    }
                },
            );
            for (uniform, result) in some.iter().zip(&results) {
                visit(*uniform, *result);
            }
        }
    }

    /// The digest was taken where [`every_uniform_gives_what_the_c_library_gives`] passed.
    #[test]
    fn every_uniform_gives_the_same_bits_on_every_machine() {
        let (mut count, mut digest) = (0_u32, 0_u64);
        every_uniform(|_, [ln, sin, cos]| {
            let pair = u64::from(sin.to_bits()) << 32 | u64::from(cos.to_bits());
            for word in [pair, u64::from(ln.to_bits())] {
                digest = (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
            count += 1;
        });
        assert_eq!((count, digest), (83_886_081, 0xe442_90dd_c636_6b90));
    }

    #[test]
    fn a_sample_is_the_nearest_number_or_its_neighbour_with_and_without_vector_units() {
        let mut sampled = 0_u32;
        every_uniform(|uniform, found| {
            sampled += 1;
            if !sampled.is_multiple_of(997) {
                return;
            }
            let angle = f64::from(std::f32::consts::TAU * uniform);
            let exact = [f64::from(uniform.max(1e-10)).ln(), angle.sin(), angle.cos()];
            for (found, exact) in found.into_iter().zip(exact) {
                let unit = f64::from((exact as f32).abs().next_up() - (exact as f32).abs());
                assert!(
                    (f64::from(found) - exact).abs() <= unit,
                    "{uniform:e}: {found:e} {exact:e}"
                );
            }
            assert_eq!(all_of(uniform).map(f32::to_bits), found.map(f32::to_bits));
        });
    }

    #[test]
    #[ignore = "compares with the machine's libm, which need not be the GNU C library of 2.28 to 2.40 on a machine with FMA"]
    fn every_uniform_gives_what_the_c_library_gives() {
        every_uniform(|uniform, [ln, sin, cos]| {
            let radicand = uniform.max(1e-10);
            assert_eq!(ln.to_bits(), radicand.ln().to_bits(), "ln {radicand:e}");
            let angle = std::f32::consts::TAU * uniform;
            assert_eq!(sin.to_bits(), angle.sin().to_bits(), "sin {angle:e}");
            assert_eq!(cos.to_bits(), angle.cos().to_bits(), "cos {angle:e}");
        });
    }
}
