//! Collateral: a part of the weight is free, the rest counts as far as the deposit covers it.

use crate::decimal::Decimal;

/// The chain's rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Part of the weight that needs no deposit.
    pub base_weight_ratio: Decimal,
    /// Ngonka per unit of the rest.
    pub per_weight_unit: Decimal,
    /// No deposit is asked for up to this epoch.
    pub grace_period_end_epoch: u64,
    /// Lost when a host's service makes it inactive, in thousandths.
    pub slash_downtime_permille: u64,
}

/// What a host has deposited; absent = as much as is ever asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deposit(pub Option<u64>);

impl Deposit {
    /// How much of a weight counts.
    pub fn counted(self, weight: u64, rule: &Rule) -> u64 {
        let Some(ngonka) = self.0 else {
            return weight;
        };
        let free = rule.base_weight_ratio.floor_of(weight).min(weight);
        let covered = rule.per_weight_unit.quotient_of(ngonka).unwrap_or(u64::MAX);
        free + covered.min(weight - free)
    }

    /// Loses a part.
    pub fn slash_permille(&mut self, permille: u64) {
        if let Some(ngonka) = &mut self.0 {
            *ngonka -= (u128::from(*ngonka) * u128::from(permille.min(1000)) / 1000) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn rule() -> Rule {
        let decimal = |text: &str| text.parse().expect("decimal");
        Rule {
            base_weight_ratio: decimal("0.2"),
            per_weight_unit: decimal("4.2"),
            grace_period_end_epoch: 0,
            slash_downtime_permille: 100,
        }
    }

    #[rstest]
    #[case(None, 1000)]
    #[case(Some(3360), 1000)]
    #[case(Some(1680), 600)]
    #[case(Some(0), 200)]
    #[case(Some(u64::MAX), 1000)]
    fn a_fifth_is_free_and_the_rest_needs_cover(#[case] deposit: Option<u64>, #[case] counted: u64) {
        assert_eq!(Deposit(deposit).counted(1000, &rule()), counted);
    }

    #[test]
    fn a_slash_takes_its_part_and_never_more_than_there_is() {
        let mut deposit = Deposit(Some(1005));
        deposit.slash_permille(100);
        assert_eq!(deposit, Deposit(Some(905)));
        deposit.slash_permille(5000);
        assert_eq!(deposit, Deposit(Some(0)));
        let mut plenty = Deposit(None);
        plenty.slash_permille(100);
        assert_eq!(plenty, Deposit(None));
    }
}
