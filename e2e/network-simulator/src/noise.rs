//! How far a slot's rate is from its usual one in an exam: by the scenario's seed, the same on every machine.

use crate::identity;

/// A rate, up to `permille` thousandths more or less of it, as the parts decide.
pub fn vary(rate: u64, permille: u32, parts: &[&str]) -> u64 {
    if permille == 0 {
        return rate;
    }
    let permille = u64::from(permille.min(1000));
    let all: Vec<&str> = ["noise"].into_iter().chain(parts.iter().copied()).collect();
    let factor = 1000 - permille + identity::number_below(2 * permille + 1, &all);
    (u128::from(rate) * u128::from(factor) / 1000) as u64
}

/// Nonces that a rate (in 1000 seconds) gives in so many milliseconds.
pub fn nonces(rate_milli: u64, ms: u64) -> u64 {
    (u128::from(rate_milli) * u128::from(ms) / 1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_stays_within_its_noise_and_uses_all_of_it() {
        let rates: Vec<u64> = (0..2000).map(|at| vary(1000, 50, &[&at.to_string()])).collect();
        assert!(rates.iter().all(|rate| (950..=1050).contains(rate)));
        assert!(rates.contains(&950) && rates.contains(&1050));
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        assert!((997..=1003).contains(&mean), "{mean}");
        assert_eq!(vary(1000, 0, &["any"]), 1000);
    }

    #[test]
    fn nonces_are_whole_ones() {
        assert_eq!(nonces(5000, 999), 4);
        assert_eq!(nonces(u64::MAX, 1_000_000), u64::MAX);
    }
}
