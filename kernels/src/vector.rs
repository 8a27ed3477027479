//! Arithmetic on a machine's vector units: loops compiled for the widest ones present, and the elementary operations that
//! libm and sequential sums would keep off them. Within two units of the last place of the exact result.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the vector units of `vector::widest`"
)]

use pulp::Arch;

/// Numbers of the widest unit's registers; rows padded to a multiple of it have no remainders.
pub(crate) const LANES: usize = 16;

/// Runs a loop as compiled for the widest vector units the machine has. Only what is inlined into `body` profits, and `body`
/// itself must be marked `#[inline(always)]`: left to the compiler, a long one is compiled once, for no unit in particular.
#[inline(always)]
pub(crate) fn widest<R>(body: impl FnOnce() -> R) -> R {
    match Arch::new() {
        Arch::V4(unit) => unit.vectorize(body),
        Arch::V3(unit) => unit.vectorize(body),
        _ => body(),
    }
}

/// The sum of numbers, in sixteen interleaved parts.
#[inline(always)]
pub(crate) fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (parts, rest) = values.as_chunks::<LANES>();
    for part in parts {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane += term(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += term(x);
    }
    fold(lanes, |a, b| a + b)
}

/// As [`sum`], over pairs of two lists of equal length.
#[inline(always)]
pub(crate) fn sum_of_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((parts_a, rest_a), (parts_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in parts_a.iter().zip(parts_b) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(rest_a).zip(rest_b) {
        *lane += term(a, b);
    }
    fold(lanes, |a, b| a + b)
}

/// Joins sixteen parts to one: the second half with the first, and so on.
#[inline(always)]
fn fold(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut eight = [0.0; LANES / 2];
    for lane in 0..LANES / 2 {
        eight[lane] = join(lanes[lane], lanes[lane + LANES / 2]);
    }
    let mut four = [0.0; LANES / 4];
    for lane in 0..LANES / 4 {
        four[lane] = join(eight[lane], eight[lane + LANES / 4]);
    }
    join(join(four[0], four[2]), join(four[1], four[3]))
}

/// The exponential function, without branches: two to the nearest whole power, times a polynomial of what is left.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding it leaves the nearest whole number in the lowest bits.
    const WHOLE: f32 = 12_582_912.0;
    // The logarithm of two: a part with few digits, whose multiples are exact, and the rest.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let bounded = x.clamp(-87.0, 88.0);
    let shifted = bounded * std::f32::consts::LOG2_E + WHOLE;
    let power = shifted - WHOLE;
    let rest = bounded - power * HIGH - power * LOW;
    let mut polynomial = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = polynomial * rest + coefficient;
    }
    let fraction = polynomial * rest * rest + rest + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let result = fraction * scale;
    // Beyond the bounds: nothing, or more than there is; a NaN stays one.
    let result = if x < -87.0 { 0.0 } else { result };
    let result = if x > 88.0 { f32::INFINITY } else { result };
    if x.is_nan() { x } else { result }
}

/// Softmax of each row of `width` scores, in place. One step of all rows after the other: what a row waits for, others fill.
#[inline(always)]
pub(crate) fn softmax(scores: &mut [f32], width: usize) {
    for row in scores.chunks_exact_mut(width) {
        let largest = largest(row);
        for score in row {
            *score -= largest;
        }
    }
    for score in &mut *scores {
        *score = exp(*score);
    }
    for row in scores.chunks_exact_mut(width) {
        let total = sum(row, |x| x);
        for score in row {
            *score /= total;
        }
    }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (parts, rest) = row.as_chunks::<LANES>();
    for part in parts {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], part[lane]);
        }
    }
    rest.iter().copied().fold(fold(lanes, larger), larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_two_units_of_the_exact_one() {
        let mut worst = 0.0_f64;
        for step in -1_740_000_i32..=1_760_000 {
            let x = step as f32 / 20_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
    }

    #[test]
    fn the_exponentials_ends_are_those_of_the_function() {
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
        assert_eq!(exp(-1000.0).to_bits(), 0);
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert!(exp(1000.0).is_infinite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_softmax_sums_to_one_and_shows_a_nan() {
        for len in 1..40_usize {
            let mut scores: Vec<f32> = (0..len).map(|x| (x as f32).sin() * 9.0).collect();
            let exact: f64 = scores.iter().map(|x| f64::from(*x).exp()).sum();
            let expected: Vec<f64> = scores.iter().map(|x| f64::from(*x).exp() / exact).collect();
            softmax(&mut scores, len);
            for (found, expected) in scores.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-6);
            }
            scores[len / 2] = f32::NAN;
            softmax(&mut scores, len);
            assert!(scores.iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn sums_of_every_length_hold_every_number() {
        for len in 0..50_usize {
            let values: Vec<f32> = (1..=len).map(|x| x as f32).collect();
            assert_eq!(sum(&values, |x| x).to_bits(), ((len * (len + 1) / 2) as f32).to_bits());
            assert_eq!(
                widest(
                    #[inline(always)]
                    || sum(&values, |x| x)
                )
                .to_bits(),
                sum(&values, |x| x).to_bits()
            );
        }
    }
}
