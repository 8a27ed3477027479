//! The chain's decimals: a whole value and a power of ten.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::str::FromStr;
use thiserror::Error;

/// `value` x 10^`exponent`, the exponent at most 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decimal {
    pub value: i64,
    pub exponent: i32,
}

/// A text that is no decimal.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a plain decimal number such as 0.3024")]
pub struct NotDecimal(String);

impl Decimal {
    pub const ONE: Self = Self { value: 1, exponent: 0 };

    /// Largest whole number not above `self * count`.
    pub fn floor_of(self, count: u64) -> u64 {
        let product = i128::from(self.value.max(0)) * i128::from(count);
        let divisor = 10_i128.pow(self.exponent.unsigned_abs().min(30));
        (product / divisor).min(i128::from(u64::MAX)) as u64
    }

    /// In basis points, rounded down.
    pub fn basis_points(self) -> u64 {
        self.floor_of(10_000)
    }

    /// As the chain's REST shows it: the value as a string.
    pub fn rest(self) -> Value {
        json!({"value": self.value.to_string(), "exponent": self.exponent})
    }

    /// As DAPI shows it: numbers, a zero exponent left out.
    pub fn dapi(self) -> Value {
        if self.exponent == 0 {
            json!({"value": self.value})
        } else {
            json!({"value": self.value, "exponent": self.exponent})
        }
    }

    /// Reads the chain's form.
    pub fn from_rest(value: &Value) -> Option<Self> {
        let exponent = value.get("exponent")?.as_i64()?;
        Some(Self {
            value: value.get("value")?.as_str()?.parse().ok()?,
            exponent: i32::try_from(exponent)
                .ok()
                .filter(|exponent| (-30..=0).contains(exponent))?,
        })
    }
}

impl FromStr for Decimal {
    type Err = NotDecimal;

    fn from_str(text: &str) -> Result<Self, NotDecimal> {
        let wrong = || NotDecimal(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if digits.is_empty() || digits.len() + fraction.len() > 18 || !all_digits(digits) || !all_digits(fraction) {
            return Err(wrong());
        }
        let fraction = fraction.trim_end_matches('0');
        Ok(Self {
            value: format!("{whole}{fraction}").parse().map_err(|_| wrong())?,
            exponent: -(fraction.len() as i32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_writes_and_rounds_down() {
        let scale: Decimal = "0.3024".parse().expect("decimal");
        assert_eq!(
            scale,
            Decimal {
                value: 3024,
                exponent: -4
            }
        );
        assert_eq!(scale.floor_of(156), 47);
        assert_eq!(scale.rest(), json!({"value": "3024", "exponent": -4}));
        assert_eq!(Decimal::from_rest(&scale.rest()), Some(scale));
        assert_eq!("0.000475".parse::<Decimal>().map(Decimal::basis_points), Ok(4));
        assert_eq!("2".parse::<Decimal>().map(Decimal::dapi), Ok(json!({"value": 2})));
        assert!("1e5".parse::<Decimal>().is_err());
        assert!("".parse::<Decimal>().is_err());
    }
}
