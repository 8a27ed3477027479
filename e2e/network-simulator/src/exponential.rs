//! The decay of the emission in whole numbers: libraries differ in the last digit of `exp`, and a history must not.

use crate::decimal::Decimal;

/// Fraction bits.
const BITS: u32 = 62;
const ONE: i128 = 1 << BITS;
/// ln 2 in `BITS` fraction bits.
const LN_2: i128 = 3_196_577_161_300_663_915;

/// `initial * exp(rate * steps)`, rounded down; at most what fits.
pub fn scaled(initial: u64, rate: Decimal, steps: u64) -> u64 {
    let (halvings, rest) = split(exponent(rate, steps));
    let product = u128::from(initial) * exp(rest).unsigned_abs();
    // Below 0 the exponent is positive: fewer fraction bits go.
    let shift = i128::from(BITS) + halvings;
    let scaled = match u32::try_from(shift) {
        Ok(shift) => product.checked_shr(shift).unwrap_or_default(),
        Err(_) => u128::MAX,
    };
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// `rate * steps` in fraction bits, within what makes a difference.
fn exponent(rate: Decimal, steps: u64) -> i128 {
    let divisor = 10_i128.pow(rate.exponent.unsigned_abs().min(18));
    let value = i128::from(rate.value) * i128::from(steps.min(u64::from(u32::MAX)));
    // 64 is more than any halving or doubling of 64 bits.
    let whole = (value / divisor).clamp(-64, 64);
    if whole.abs() == 64 {
        return whole * ONE;
    }
    whole * ONE + (value % divisor) * (ONE / divisor) + (value % divisor) * (ONE % divisor) / divisor
}

/// How often to halve (negative: to double) and what is left of an exponent, from 0 to -ln 2.
fn split(exponent: i128) -> (i128, i128) {
    let halvings = (-exponent).div_euclid(LN_2);
    (halvings, exponent + halvings * LN_2)
}

/// `exp` of a fraction between -ln 2 and 0, by its series.
fn exp(fraction: i128) -> i128 {
    let (mut sum, mut term) = (ONE, ONE);
    for step in 1..32 {
        term = ((term * fraction) >> BITS) / step;
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    // Each is 285e12 x exp(rate x steps) to forty places, rounded down.
    #[case("-0.000475", 0, 285_000_000_000_000)]
    #[case("-0.000475", 1, 284_864_657_146_472)]
    #[case("-0.000475", 400, 235_683_353_173_858)]
    #[case("-0.000475", 10_000, 2_465_733_132_889)]
    #[case("-1", 60, 0)]
    #[case("0.000475", 1, 285_135_407_156_653)]
    #[case("0.1", 20, 2_105_880_988_195_235)]
    #[case("2", 60, u64::MAX)]
    #[case("-9", 1_000_000_000, 0)]
    fn it_is_the_exponential_to_the_last_digit(#[case] rate: &str, #[case] steps: u64, #[case] expected: u64) {
        let rate = rate.parse().expect("decimal");
        assert_eq!(scaled(285_000_000_000_000, rate, steps), expected);
    }
}
