//! The number type of a run. Values are held in single precision everywhere and rounded where the run's type would
//! round them, so one body of code serves both types.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the vector units of `vector::widest`"
)]

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Number type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Dtype {
    /// Single precision.
    F32,
    /// bfloat16: single precision cut to 8 significant bits, what the network's models run in.
    Bf16,
}

/// A name that is none of the number types.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("dtype {0:?} is unknown: use F32 or BF16")]
pub struct ParseDtypeError(String);

impl Dtype {
    /// Rounds to this type, ties to even.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => F32::round(x),
            Self::Bf16 => Bf16::round(x),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
        })
    }
}

impl FromStr for Dtype {
    type Err = ParseDtypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "F32" | "FLOAT32" => Ok(Self::F32),
            "BF16" | "BFLOAT16" => Ok(Self::Bf16),
            _ => Err(ParseDtypeError(text.to_owned())),
        }
    }
}

/// How a run rounds the results of its operations.
pub trait Arithmetic {
    /// Rounds to the nearest value of the type, ties to even.
    fn round(x: f32) -> f32;
}

/// Single precision: nothing to round.
#[derive(Debug)]
pub struct F32;

impl Arithmetic for F32 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }
}

/// bfloat16.
#[derive(Debug)]
pub struct Bf16;

impl Arithmetic for Bf16 {
    // Adding half of the discarded range (one less on even) carries into the kept bits exactly when it must; an
    // infinity stays one, and setting the quiet bit keeps the carry from turning a NaN into an infinity or a zero.
    #[inline(always)]
    fn round(x: f32) -> f32 {
        let bits = x.to_bits();
        let carried = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let kept = if x.is_nan() { bits | 0x0040_0000 } else { carried };
        f32::from_bits(kept & 0xffff_0000)
    }
}

/// Half precision, the type of scheme `transformer_v1`.
#[derive(Debug)]
pub struct F16;

impl Arithmetic for F16 {
    // Written without branches, for vector units. Above the smallest normal half, 13 bits are rounded off as in `Bf16`;
    // below it halves are multiples of 2^-24, the step of single precision between 0.5 and 1.
    #[inline(always)]
    fn round(x: f32) -> f32 {
        const SMALLEST_NORMAL: u32 = 0x3880_0000;
        const BEYOND_LARGEST: u32 = 0x4780_0000;
        const INFINITY: u32 = 0x7f80_0000;
        let (bits, sign) = (x.to_bits() & 0x7fff_ffff, x.to_bits() & 0x8000_0000);
        let normal = (bits + 0x0fff + ((bits >> 13) & 1)) & 0xffff_e000;
        let normal = if normal >= BEYOND_LARGEST { INFINITY } else { normal };
        let small = ((f32::from_bits(bits) + 0.5) - 0.5).to_bits();
        let rounded = if bits < SMALLEST_NORMAL { small } else { normal };
        let rounded = if bits > INFINITY { 0x7fc0_0000 } else { rounded };
        f32::from_bits(rounded | sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_half_and_what_lies_beside_the_middle_of_two_rounds_as_in_the_half_crate() {
        for bits in 0..=u16::MAX {
            let half = half::f16::from_bits(bits).to_f32();
            let middle = half.to_bits().wrapping_add(0x1000);
            for x in [half.to_bits(), middle - 1, middle, middle + 1].map(f32::from_bits) {
                let expected = half::f16::from_f32(x).to_f32();
                assert!(
                    F16::round(x).to_bits() == expected.to_bits() || x.is_nan() && F16::round(x).is_nan(),
                    "{x:e}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn rounding_to_half_agrees_with_the_half_crate(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            let expected = half::f16::from_f32(x).to_f32();
            prop_assert!(F16::round(x).to_bits() == expected.to_bits() || x.is_nan() && F16::round(x).is_nan());
        }

        #[test]
        fn rounding_agrees_with_the_half_crate(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            let expected = half::bf16::from_f32(x).to_f32();
            prop_assert_eq!(Bf16::round(x).to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn names_round_trip() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        assert!("int8".parse::<Dtype>().is_err());
    }
}
