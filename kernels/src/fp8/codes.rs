//! E4M3: a sign, four bits of exponent with bias 7, three of fraction; no infinity, one NaN of either sign.

/// Largest number there is.
pub const LARGEST: f32 = 448.0;
/// Smallest with a full fraction; below it numbers are multiples of 2^-9.
const SMALLEST_NORMAL: f32 = 0.015_625;

/// The nearest code, ties to the even one; what is larger than the largest becomes the largest, infinities too. A NaN becomes `0x7f`.
pub fn encode(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    let (sign, size) = ((x.to_bits() >> 24 & 0x80) as u8, x.abs().min(LARGEST));
    if size < SMALLEST_NORMAL {
        return sign | (size * 512.0).round_ties_even() as u8;
    }
    let bits = size.to_bits();
    sign | ((bits + 0x7_ffff + (bits >> 20 & 1)) >> 20).wrapping_sub(120 << 3) as u8
}

/// The number of a code.
pub fn decode(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction / 512.0,
        _ => (1.0 + fraction / 8.0) * 2.0_f32.powi(exponent - 7),
    };
    if code & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All numbers that are one, in order.
    fn numbers() -> Vec<f32> {
        (0..0x7f).map(decode).collect()
    }

    #[test]
    fn codes_are_those_of_the_standards_table() {
        for (code, number) in [
            (0x00, 0.0),
            (0x01, 0.001_953_125),
            (0x07, 0.013_671_875),
            (0x08, 0.015_625),
            (0x38, 1.0),
            (0x3f, 1.875),
            (0x77, 240.0),
            (0x7e, 448.0),
            (0xb8, -1.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(decode(code).to_bits(), f32::to_bits(number), "{code:#x}");
        }
        assert!(decode(0x7f).is_nan() && decode(0xff).is_nan());
        assert!(numbers().windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn every_code_is_its_numbers_code() {
        for code in 0..=u8::MAX {
            let back = encode(decode(code));
            assert_eq!(back, if code & 0x7f == 0x7f { 0x7f } else { code });
        }
    }

    #[test]
    fn the_middle_of_two_goes_to_the_even_one_and_what_lies_beside_it_to_the_nearer() {
        for (code, pair) in numbers().windows(2).enumerate() {
            let (code, middle) = (code as u8, f32::midpoint(pair[0], pair[1]));
            let even = code + (code & 1);
            for (sign, bit) in [(1.0, 0), (-1.0, 0x80)] {
                assert_eq!(encode(sign * middle), even | bit, "{middle}");
                assert_eq!(encode(sign * middle.next_down()), code | bit, "{middle}");
                assert_eq!(encode(sign * middle.next_up()), (code + 1) | bit, "{middle}");
            }
        }
    }

    #[test]
    fn what_is_too_large_becomes_the_largest_and_what_is_no_number_stays_none() {
        for x in [448.0, 449.0, 464.0, 464.1, 480.0, 1e6, f32::MAX, f32::INFINITY] {
            assert_eq!((encode(x), encode(-x)), (0x7e, 0xfe), "{x}");
        }
        assert_eq!((encode(f32::NAN), encode(-f32::NAN)), (0x7f, 0x7f));
        assert_eq!((encode(f32::MIN_POSITIVE), encode(-f32::MIN_POSITIVE)), (0x00, 0x80));
    }

    proptest! {
        #[test]
        fn no_code_is_nearer_than_the_one_chosen(x in -500.0_f32..500.0) {
            let found = (decode(encode(x)) - x).abs();
            for number in numbers() {
                prop_assert!(found <= (number - x).abs().min((-number - x).abs()));
            }
        }
    }
}
