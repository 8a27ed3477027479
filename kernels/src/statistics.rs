//! Comparing artifacts and deciding on fraud (`docs/poc-v2.md`, section 7). Pure.
//!
//! A received vector mismatches when it has the wrong length, holds something that is not finite, or lies farther
//! from the computed one than the model's threshold. The count of mismatches is then tested against a binomial.

use crate::artifact;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use thiserror::Error;

/// Parameters that make no test.
#[derive(Debug, Error, PartialEq)]
pub enum Error {
    /// The threshold is not a number at or above zero.
    #[error("dist_threshold is {0}: it must be a finite number at or above 0")]
    Distance(f64),
    /// A probability is outside of [0, 1].
    #[error("{name} is {value}: it must lie between 0 and 1")]
    Probability {
        /// Which parameter.
        name: &'static str,
        /// Its value.
        value: f64,
    },
}

/// Thresholds of one comparison, per model and set by the chain; the defaults are the worker's own for a request
/// without any.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatTest {
    /// Largest Euclidean distance between received and computed vector that still matches.
    pub dist_threshold: f64,
    /// Probability with which an honest vector mismatches.
    pub p_mismatch: f64,
    /// The prover is called fraudulent below this probability of so many mismatches.
    pub fraud_threshold: f64,
}

impl Default for StatTest {
    fn default() -> Self {
        Self {
            dist_threshold: 0.02,
            p_mismatch: 0.001,
            fraud_threshold: 0.01,
        }
    }
}

impl StatTest {
    /// Refuses thresholds and probabilities that are not such.
    pub fn check(&self) -> Result<(), Error> {
        if !self.dist_threshold.is_finite() || self.dist_threshold < 0.0 {
            return Err(Error::Distance(self.dist_threshold));
        }
        for (name, value) in [
            ("p_mismatch", self.p_mismatch),
            ("fraud_threshold", self.fraud_threshold),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Probability { name, value });
            }
        }
        Ok(())
    }

    /// Whether the received bytes mismatch the computed ones.
    pub fn mismatches(&self, computed: &[u8], received: &[u8]) -> bool {
        let (Some(computed), Some(received)) = (artifact::decode(computed), artifact::decode(received)) else {
            return true;
        };
        received.len() != computed.len()
            || received.iter().any(|x| !x.is_finite())
            || match distance(&computed, &received).partial_cmp(&self.dist_threshold) {
                Some(Ordering::Less | Ordering::Equal) => false,
                // A computed vector without a distance must not pass for a match.
                Some(Ordering::Greater) | None => true,
            }
    }

    /// Probability of at least `mismatches` of `total` under honesty, and whether it means fraud.
    pub fn judge(&self, mismatches: u32, total: u32) -> (f64, bool) {
        if total == 0 {
            return (1.0, false);
        }
        let p_value = binomial_tail(mismatches, total, self.p_mismatch);
        (p_value, p_value < self.fraud_threshold)
    }
}

/// Euclidean distance of two vectors of equal length, rounded to single precision as in the reference.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares: f32 = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum();
    f64::from(squares.sqrt())
}

/// P[X >= successes] for X binomial with `trials` and `probability`. At least nine digits over the whole range;
/// results below the smallest double are 0.
pub fn binomial_tail(successes: u32, trials: u32, probability: f64) -> f64 {
    if successes == 0 {
        return 1.0;
    }
    if successes > trials || probability <= 0.0 {
        return 0.0;
    }
    if probability >= 1.0 {
        return 1.0;
    }
    // Sum the side that holds less than about half, so that nothing cancels.
    if f64::from(successes) > f64::from(trials) * probability {
        sum_upwards(successes, trials, probability)
    } else {
        1.0 - sum_upwards(trials - successes + 1, trials, 1.0 - probability)
    }
}

/// P[X >= first] where the terms fall from `first` on.
fn sum_upwards(first: u32, trials: u32, probability: f64) -> f64 {
    let odds = probability / (1.0 - probability);
    let logarithm = ln_choose(trials, first)
        + f64::from(first) * probability.ln()
        + f64::from(trials - first) * (-probability).ln_1p();
    let (mut term, mut sum) = (1.0_f64, 1.0_f64);
    for k in first..trials {
        term *= f64::from(trials - k) / f64::from(k + 1) * odds;
        sum += term;
        if term < sum * f64::EPSILON / 4.0 {
            break;
        }
    }
    (logarithm + sum.ln()).exp().min(1.0)
}

fn ln_choose(n: u32, k: u32) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Exact products while they fit, Stirling's series (error below 1e-17 from 32 on) after that.
fn ln_factorial(n: u32) -> f64 {
    let x = f64::from(n);
    if n < 32 {
        return (2..=n).map(f64::from).product::<f64>().ln();
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1, 6, 0.1, 0.468_559)]
    #[case(6, 6, 0.1, 1e-6)]
    #[case(1, 1, 0.001, 0.001)]
    #[case(2, 3, 0.5, 0.5)]
    #[case(0, 9, 0.3, 1.0)]
    fn tails_agree_with_hand_sums(#[case] k: u32, #[case] n: u32, #[case] p: f64, #[case] expected: f64) {
        assert!((binomial_tail(k, n, p) / expected - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_edges_are_certain() {
        assert_eq!(binomial_tail(3, 2, 0.5).to_bits(), 0.0_f64.to_bits());
        assert_eq!(binomial_tail(1, 2, 0.0).to_bits(), 0.0_f64.to_bits());
        assert_eq!(binomial_tail(2, 2, 1.0).to_bits(), 1.0_f64.to_bits());
        assert_eq!(binomial_tail(2000, 2000, 0.1).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn thirty_one_mismatches_of_two_hundred_are_fraud_and_thirty_are_not() {
        let test = StatTest {
            dist_threshold: 0.4,
            p_mismatch: 0.1,
            fraud_threshold: 0.01,
        };
        assert!(!test.judge(30, 200).1);
        assert!(test.judge(31, 200).1);
        assert_eq!(test.judge(0, 0), (1.0, false));
    }

    #[test]
    fn a_distance_of_exactly_the_threshold_still_matches() {
        let test = StatTest {
            dist_threshold: 0.5,
            ..StatTest::default()
        };
        let computed = artifact::encode(&[0.0, 0.0]);
        assert!(!test.mismatches(&computed, &artifact::encode(&[0.5, 0.0])));
        assert!(test.mismatches(&computed, &artifact::encode(&[0.5, 0.125])));
        assert!(test.mismatches(&computed, &artifact::encode(&[0.0])));
        assert!(test.mismatches(&computed, &artifact::encode(&[0.0, f32::NAN])));
        assert!(test.mismatches(&artifact::encode(&[f32::NAN, 0.0]), &computed));
    }

    #[test]
    fn tests_without_meaning_are_refused() {
        assert!(StatTest::default().check().is_ok());
        assert!(
            StatTest {
                dist_threshold: f64::NAN,
                ..StatTest::default()
            }
            .check()
            .is_err()
        );
        assert!(
            StatTest {
                p_mismatch: 1.5,
                ..StatTest::default()
            }
            .check()
            .is_err()
        );
        assert!(
            StatTest {
                fraud_threshold: f64::NAN,
                ..StatTest::default()
            }
            .check()
            .is_err()
        );
    }
}
