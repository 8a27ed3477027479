//! Which write the operator is killed at. Pure.

use std::collections::BTreeMap;

use e2e::fault_proxy::log::Written;
use e2e::fault_proxy::{How, Of};

/// Kills of one controller in a choice.
const AT_LEAST: usize = 2;

/// One kill.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kill {
    pub controller: String,
    pub nth: u64,
    pub how: How,
}

impl Kill {
    pub fn of(&self) -> Of {
        Of::Controller(self.controller.clone())
    }
}

/// Writes of each controller in an undisturbed story.
pub fn counts(writes: &[Written]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for written in writes.iter().filter(|written| Of::All.counts(&written.call)) {
        *counts.entry(written.call.controller.clone()).or_default() += 1;
    }
    counts
}

/// Every write of every controller, carried out and not; or of each controller a few that the seed chooses.
pub fn choose(counts: &BTreeMap<String, u64>, seed: u64, full: bool) -> Vec<Kill> {
    let mut state = seed;
    let mut chosen = Vec::new();
    for (controller, count) in counts {
        let mut all: Vec<Kill> = (1..=*count)
            .flat_map(|nth| {
                [How::AnswerLost, How::NeverArrived].map(|how| Kill {
                    controller: controller.clone(),
                    nth,
                    how,
                })
            })
            .collect();
        if full {
            chosen.extend(all);
            continue;
        }
        for _ in 0..AT_LEAST.min(all.len()) {
            state = next(state);
            chosen.push(all.remove(usize::try_from(state >> 33).unwrap_or_default() % all.len()));
        }
    }
    chosen
}

/// A linear congruential generator: the same choice for the same seed, everywhere.
fn next(state: u64) -> u64 {
    state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

#[test]
fn a_choice_has_every_controller_twice_and_everything_has_every_write_both_ways() {
    let counts = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 20)]);
    let choice = choose(&counts, 7, false);
    assert_eq!(choice, choose(&counts, 7, false));
    for controller in ["a", "b"] {
        let of = choice.iter().filter(|kill| kill.controller == controller);
        assert_eq!(of.count(), AT_LEAST);
    }
    assert_ne!(choice[0], choice[1]);
    assert_eq!(choose(&counts, 7, true).len(), 42);
}
