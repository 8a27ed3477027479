//! Weights, ratios and rewards: whole numbers, every division rounded down.

use crate::{decimal::Decimal, exponential};
use std::collections::BTreeMap;

/// Part of its expected weight at which a confirmation counts in full, in thousandths.
const FULL_AT_THOUSANDTHS: u128 = 909;

/// Confirmation ratio in basis points: what was read over what was expected, with the network's margin, at most 1.
/// Nothing expected is nothing missed.
pub fn ratio_bp(reading: u64, expected: u64) -> u64 {
    (u128::from(reading) * 10_000 * 1000)
        .checked_div(u128::from(expected) * FULL_AT_THOUSANDTHS)
        .map_or(10_000, |ratio| ratio.min(10_000) as u64)
}

/// Emission of an epoch: it decays from the first reward epoch on.
pub fn epoch_reward(initial: u64, decay_rate: Decimal, epoch: u64, genesis_epoch: u64) -> u64 {
    exponential::scaled(initial, decay_rate, epoch.saturating_sub(genesis_epoch))
}

/// A host's claim on an epoch before it is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Weight of its Sprint.
    pub weight: u64,
    /// Its worst confirmation in basis points.
    pub ratio_bp: u64,
}

/// The effective weight behind a reward: scaled by the worst confirmation, nothing below the threshold.
pub fn effective_weight(standing: Standing, alpha_bp: u64) -> u64 {
    if standing.ratio_bp < alpha_bp {
        return 0;
    }
    (u128::from(standing.weight) * u128::from(standing.ratio_bp) / 10_000) as u64
}

/// What `weight` of `total_weight` is worth.
pub fn share(total_ngonka: u64, weight: u64, total_weight: u64) -> u64 {
    (u128::from(total_ngonka) * u128::from(weight))
        .checked_div(u128::from(total_weight))
        .unwrap_or(0) as u64
}

/// Weight and reward per host. What confirmations took away is not given to others.
pub fn settle<K: Ord + Clone>(
    total_ngonka: u64,
    standings: &BTreeMap<K, Standing>,
    alpha_bp: u64,
) -> BTreeMap<K, (u64, u64)> {
    let whole: u64 = standings.values().map(|standing| standing.weight).sum();
    standings
        .iter()
        .map(|(host, standing)| {
            let weight = effective_weight(*standing, alpha_bp);
            (host.clone(), (weight, share(total_ngonka, weight, whole)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(100, 100, 10_000)]
    #[case(91, 100, 10_000)]
    #[case(50, 100, 5500)]
    #[case(45, 100, 4950)]
    #[case(0, 100, 0)]
    #[case(5, 0, 10_000)]
    fn the_ratio_has_a_margin_and_a_cap(#[case] reading: u64, #[case] expected: u64, #[case] ratio: u64) {
        assert_eq!(ratio_bp(reading, expected), ratio);
    }

    #[test]
    fn rewards_never_exceed_the_emission_and_miss_it_only_by_rounding() {
        let full = |weight| Standing {
            weight,
            ratio_bp: 10_000,
        };
        let standings: BTreeMap<String, Standing> = [("a", 97), ("b", 31), ("c", 11)]
            .map(|(name, weight)| (name.to_owned(), full(weight)))
            .into();
        let rewards = settle(285_000_000_000_000, &standings, 5000);
        let sum: u64 = rewards.values().map(|(_, reward)| reward).sum();
        assert!(sum <= 285_000_000_000_000 && sum > 285_000_000_000_000 - 3, "{sum}");
    }

    #[test]
    fn a_confirmation_below_the_threshold_costs_everything_and_helps_nobody() {
        let standings: BTreeMap<String, Standing> = [
            (
                "a".to_owned(),
                Standing {
                    weight: 100,
                    ratio_bp: 4999,
                },
            ),
            (
                "b".to_owned(),
                Standing {
                    weight: 100,
                    ratio_bp: 7500,
                },
            ),
            (
                "c".to_owned(),
                Standing {
                    weight: 200,
                    ratio_bp: 10_000,
                },
            ),
        ]
        .into();
        let rewards = settle(1000, &standings, 5000);
        assert_eq!(rewards["a"], (0, 0));
        assert_eq!(rewards["b"], (75, 187));
        assert_eq!(rewards["c"], (200, 500));
        assert!(settle(1000, &BTreeMap::<String, Standing>::new(), 5000).is_empty());
    }

    #[test]
    fn emission_decays_from_the_genesis_epoch_on() {
        let decay = "-0.000475".parse().expect("decimal");
        assert_eq!(epoch_reward(285_000_000_000_000, decay, 1, 1), 285_000_000_000_000);
        // 285e12 x exp(-0.000475) = 284864657146472.44 in forty decimal places.
        assert_eq!(epoch_reward(285_000_000_000_000, decay, 2, 1), 284_864_657_146_472);
    }
}
