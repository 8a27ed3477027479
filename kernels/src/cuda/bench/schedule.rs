//! Decide: who runs when. Contestants take turns on one GPU in one run, so that its warmth and its clocks are everybody's.

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Turns of each contestant.
    pub turns: usize,
    /// Batches of a turn that count.
    pub batches: usize,
    /// Batches of each contestant before the first turn, which do not count.
    pub warm_up: usize,
    /// Batches at the begin of a turn that do not count: what a change of contestant costs is nobody's.
    pub settling: usize,
}

impl Length {
    /// What figures are taken from: 36 batches of each.
    pub const FULL: Self = Self {
        turns: 6,
        batches: 6,
        warm_up: 5,
        settling: 2,
    };
}

/// One contestant's batches in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Whose, by place.
    pub contestant: usize,
    /// Batches that run first and do not count.
    pub dropped: usize,
    /// Batches that count.
    pub kept: usize,
}

/// Everybody warms up, then A B C A B C.
pub fn schedule(contestants: usize, length: Length) -> Vec<Turn> {
    let warm_up = Turn {
        contestant: 0,
        dropped: length.warm_up,
        kept: 0,
    };
    let turn = Turn {
        contestant: 0,
        dropped: length.settling,
        kept: length.batches,
    };
    std::iter::once(warm_up)
        .chain(std::iter::repeat_n(turn, length.turns))
        .flat_map(|turn| (0..contestants).map(move |contestant| Turn { contestant, ..turn }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::bench::samples::LEAST_BATCHES;

    #[test]
    fn contestants_take_turns_after_all_of_them_are_warm() {
        let length = Length {
            turns: 2,
            batches: 3,
            warm_up: 4,
            settling: 1,
        };
        let turns: Vec<_> = schedule(2, length)
            .iter()
            .map(|turn| (turn.contestant, turn.dropped, turn.kept))
            .collect();
        assert_eq!(
            turns,
            [(0, 4, 0), (1, 4, 0), (0, 1, 3), (1, 1, 3), (0, 1, 3), (1, 1, 3)]
        );
    }

    #[test]
    fn a_full_run_has_batches_enough_for_a_figure() {
        let turns = schedule(5, Length::FULL);
        for contestant in 0..5 {
            let kept = turns.iter().filter(|turn| turn.contestant == contestant);
            assert!(kept.map(|turn| turn.kept).sum::<usize>() >= LEAST_BATCHES);
        }
        let alone = |pair: &[Turn]| pair[0].contestant == pair[1].contestant;
        assert!(!turns.windows(2).any(alone), "nobody runs twice in a row");
    }
}
