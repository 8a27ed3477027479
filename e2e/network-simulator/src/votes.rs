//! The network's decision about a host in an exam.

use crate::scenario::expect::Verdict;

/// More than the threshold of all voting power decides, for or against; less on both sides leaves it open. There are no
/// guardians in a test network to break the tie, so an open vote brings no weight.
pub fn decide(valid: u64, invalid: u64, total: u64, threshold_bps: u64) -> Verdict {
    let passes = |power: u64| u128::from(power) * 10_000 > u128::from(threshold_bps) * u128::from(total);
    if passes(valid) {
        Verdict::Accepted
    } else if passes(invalid) {
        Verdict::Rejected
    } else {
        Verdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(3, 1, 4, Verdict::Accepted)]
    #[case(2, 2, 4, Verdict::Undecided)]
    #[case(1, 3, 4, Verdict::Rejected)]
    #[case(2, 0, 4, Verdict::Undecided)]
    #[case(0, 0, 0, Verdict::Undecided)]
    fn half_is_not_enough(#[case] valid: u64, #[case] invalid: u64, #[case] total: u64, #[case] verdict: Verdict) {
        assert_eq!(decide(valid, invalid, total, 5000), verdict);
    }

    #[test]
    fn large_powers_do_not_overflow() {
        assert_eq!(decide(u64::MAX, 0, u64::MAX, 5000), Verdict::Accepted);
    }
}
