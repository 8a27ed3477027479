//! The early share: how much of a host's final count was committed when the photo was taken, against the median of
//! all hosts weighted by voting power.

/// A host below this share of the median misses.
pub const THRESHOLD_BP: u64 = 5000;

/// What the photo and the last commits say about one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub early: u64,
    pub last: u64,
    pub power: u64,
}

impl Share {
    fn value(self) -> Option<f64> {
        (self.last > 0 && self.power > 0).then(|| self.early as f64 / self.last as f64)
    }
}

/// The first share, ascending, at which half of the power is reached; nothing when nobody committed.
fn weighted_median(shares: &[Share]) -> Option<f64> {
    let mut known: Vec<(f64, u64)> = shares
        .iter()
        .filter_map(|share| Some((share.value()?, share.power)))
        .collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let half = known.iter().map(|(_, power)| power).sum::<u64>() as f64 / 2.0;
    let mut seen = 0;
    known.into_iter().find_map(|(share, power)| {
        seen += power;
        (seen as f64 >= half).then_some(share)
    })
}

/// Every share over the median, in basis points rounded down; nothing where there is no share or no median to compare.
pub fn ratios_bp(all: &[Share]) -> Vec<Option<u64>> {
    let median = weighted_median(all).filter(|median| *median > 0.0);
    let ratio = |own: &Share| {
        let share = (own.last > 0).then(|| own.early as f64 / own.last as f64)?;
        Some((share / median? * 10_000.0 + 1e-6).floor() as u64)
    };
    all.iter().map(ratio).collect()
}

/// The guard's memory of a host: misses in a row, after this exam.
pub fn misses(before: u32, ratio_bp: Option<u64>) -> u32 {
    match ratio_bp {
        Some(ratio) if ratio < THRESHOLD_BP => before + 1,
        Some(_) => 0,
        None => before,
    }
}

/// One miss is a warning; the second in a row is voted down.
pub fn is_voted_down(misses: u32) -> bool {
    misses >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn share(early: u64, last: u64, power: u64) -> Share {
        Share { early, last, power }
    }

    #[test]
    fn the_median_is_weighted_by_power() {
        let all = [share(1, 10, 1), share(3, 10, 1), share(4, 10, 3)];
        assert_eq!(weighted_median(&all), Some(0.4));
        assert_eq!(ratios_bp(&all), [Some(2500), Some(7500), Some(10_000)]);
        assert_eq!(ratios_bp(&[all[0], share(5, 0, 1)])[1], None);
        assert_eq!(
            ratios_bp(&[share(1, 10, 0)]),
            [None],
            "nobody with power to compare with"
        );
    }

    #[test]
    fn hosts_without_power_or_commits_do_not_count() {
        let all = [share(0, 0, 9), share(9, 10, 0), share(2, 10, 1)];
        assert_eq!(weighted_median(&all), Some(0.2));
    }

    #[test]
    fn the_second_miss_in_a_row_is_voted_down() {
        let first = misses(0, Some(4999));
        assert!(!is_voted_down(first));
        assert!(is_voted_down(misses(first, Some(100))));
        assert!(!is_voted_down(misses(misses(first, Some(5000)), Some(100))));
        assert_eq!(misses(first, None), 1, "an exam without a share changes nothing");
    }
}
