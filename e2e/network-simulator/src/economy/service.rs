//! The service record: requests missed and answers found invalid, judged as the chain does by a sequential test of two
//! rates, a good and a bad one.

use crate::decimal::Decimal;

/// One in fixed point: results are the same to the bit on every machine.
const ONE: i128 = 1_000_000_000_000;

/// The chain's rule: both rates, and how sure it wants to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    pub good: Decimal,
    pub bad: Decimal,
    /// Logarithm of the likelihood ratio at which a host is inactive.
    pub threshold: Decimal,
}

/// What others say of a host's service in this epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Service {
    pub served: u64,
    pub missed: u64,
    pub invalid: u64,
}

impl Service {
    /// Counts more requests: answered, never answered, answered wrongly.
    pub fn count(&mut self, served: u64, missed: u64, invalid: u64) {
        self.served = self.served.saturating_add(served);
        self.missed = self.missed.saturating_add(missed);
        self.invalid = self.invalid.saturating_add(invalid);
    }

    /// Evidence that requests are missed at the bad rate, and that answers are wrong at it: logarithms of likelihood ratios in
    /// millionths of a millionth, never below zero.
    pub fn evidence(&self, rule: &Rule) -> [i128; 2] {
        [
            evidence(self.missed, self.served.saturating_add(self.invalid), rule),
            evidence(self.invalid, self.served, rule),
        ]
    }

    /// Whether the evidence is enough.
    pub fn is_inactive(&self, rule: &Rule) -> bool {
        // Most hosts in most blocks.
        (self.missed > 0 || self.invalid > 0)
            && self
                .evidence(rule)
                .iter()
                .any(|evidence| *evidence >= fixed(rule.threshold))
    }
}

fn evidence(bad: u64, good: u64, rule: &Rule) -> i128 {
    let (rate_good, rate_bad) = (fixed(rule.good), fixed(rule.bad));
    let each_bad = logarithm(rate_bad, rate_good);
    let each_good = logarithm(ONE - rate_bad, ONE - rate_good);
    (i128::from(bad) * each_bad + i128::from(good) * each_good).max(0)
}

fn fixed(decimal: Decimal) -> i128 {
    i128::from(decimal.floor_of(ONE as u64))
}

/// Logarithm of a ratio of two numbers above zero: twice the area tangent of (a - b) / (a + b). Nothing for any other.
fn logarithm(a: i128, b: i128) -> i128 {
    if a <= 0 || b <= 0 {
        return 0;
    }
    let z = (a - b) * ONE / (a + b);
    let square = z * z / ONE;
    let (mut power, mut sum) = (z, 0);
    for term in 0..200 {
        sum += power / (2 * term + 1);
        power = power * square / ONE;
    }
    2 * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const RULE: Rule = Rule {
        good: Decimal { value: 1, exponent: -1 },
        bad: Decimal { value: 2, exponent: -1 },
        threshold: Decimal { value: 4, exponent: 0 },
    };

    #[test]
    fn logarithms_are_those_of_the_function() {
        for (a, b) in [(2, 1), (8, 9), (1, 50), (99, 100), (1, 1)] {
            let exact = (a as f64 / b as f64).ln();
            let found = logarithm(a * ONE, b * ONE) as f64 / ONE as f64;
            assert!((found - exact).abs() < 1e-6, "{a}/{b}: {found} {exact}");
        }
        assert_eq!(logarithm(0, 1), 0);
    }

    #[rstest]
    #[case(0, 0, 0, false)]
    #[case(1000, 100, 0, false)]
    #[case(1000, 170, 0, false)]
    #[case(1000, 190, 0, true)]
    #[case(0, 5, 0, false)]
    #[case(0, 6, 0, true)]
    #[case(0, 0, 6, true)]
    #[case(10_000, 0, 1500, false)]
    #[case(10_000, 0, 1800, true)]
    fn a_rate_between_the_two_needs_many_requests(
        #[case] served: u64,
        #[case] missed: u64,
        #[case] invalid: u64,
        #[case] inactive: bool,
    ) {
        let mut service = Service::default();
        service.count(served, missed, invalid);
        assert_eq!(service.is_inactive(&RULE), inactive, "{:?}", service.evidence(&RULE));
    }
}
