//! bf16 as bits, and how close two lists of them are.

use half::bf16;
use kernels::rng;

pub(crate) fn bits(numbers: &[f32]) -> Vec<u16> {
    numbers.iter().map(|&x| bf16::from_f32(x).to_bits()).collect()
}

pub(crate) fn widen(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect()
}

pub(crate) fn round(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// Normals as bf16, one seed for each list.
pub(crate) fn normals(seed: u32, count: usize) -> Vec<u16> {
    bits(&rng::normal(seed, count))
}

/// Norm weights: one and a tenth of a normal.
pub(crate) fn weights(seed: u32, count: usize) -> Vec<u16> {
    let weights: Vec<f32> = rng::normal(seed, count).iter().map(|x| 1.0 + 0.1 * x).collect();
    bits(&weights)
}

/// Steps of bf16 between two numbers; none between two that are none.
fn steps(a: u16, b: u16) -> u32 {
    let place = |bits: u16| {
        let size = i32::from(bits & 0x7fff);
        if bits & 0x8000 == 0 { size } else { -size }
    };
    match (bf16::from_bits(a).is_nan(), bf16::from_bits(b).is_nan()) {
        (true, true) => 0,
        (false, false) => place(a).abs_diff(place(b)),
        _ => u32::MAX,
    }
}

#[track_caller]
pub(crate) fn assert_same(found: &[u16], expected: &[u16]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            steps(*found, *expected) == 0,
            "element {at}: {} instead of {}",
            bf16::from_bits(*found),
            bf16::from_bits(*expected)
        );
    }
}

/// Equal, but for one in five hundred that another order of a sum rounded otherwise: by at most two steps.
#[track_caller]
pub(crate) fn assert_same_but_for_sums(found: &[u16], expected: &[u16]) {
    assert_eq!(found.len(), expected.len());
    let mut differing = 0;
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let steps = steps(*found, *expected);
        assert!(
            steps <= 2,
            "element {at}: {} instead of {}",
            bf16::from_bits(*found),
            bf16::from_bits(*expected)
        );
        differing += usize::from(steps > 0);
    }
    assert!(
        differing * 500 <= found.len().max(500),
        "{differing} of {} differ",
        found.len()
    );
}
