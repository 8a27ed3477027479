//! Many epochs as independent runs, "lives", one beside another: each is a run of its own plan and replays alone, and what they
//! come to is put together in their order, so that the number of cores changes nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::fleet::{Outcome, run};
use crate::plan::{Error, Plan};

/// Runs every plan, so many at a time; outcomes in the order of the plans.
pub fn run_all(plans: &[Plan], strict: bool, at_once: usize) -> Result<Vec<Outcome>, Error> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Outcome, Error>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, plans.len().max(1)) {
            scope.spawn(|| {
                while let Some((place, plan)) = take(plans, &next) {
                    let outcome = run(plan, strict);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((place, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

fn take<'a>(plans: &'a [Plan], next: &AtomicUsize) -> Option<(usize, &'a Plan)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    Some((place, plans.get(place)?))
}

/// One digest of all histories, in their order.
pub fn digest(outcomes: &[Outcome]) -> String {
    let mut all = Sha256::new();
    for outcome in outcomes {
        all.update(outcome.digest.as_bytes());
    }
    hex::encode(all.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_come_to_the_same_one_after_another_and_side_by_side() {
        let plans: Vec<Plan> = (1..=3).map(|seed| Plan::devnet(seed, 1)).collect();
        let one_by_one = run_all(&plans, false, 1).expect("they can be run");
        let at_once = run_all(&plans, false, 3).expect("they can be run");
        let digests =
            |outcomes: &[Outcome]| -> Vec<String> { outcomes.iter().map(|outcome| outcome.digest.clone()).collect() };
        assert_eq!(digests(&one_by_one), digests(&at_once));
        assert_eq!(digest(&one_by_one), digest(&at_once));
        let alone = run(&plans[1], false).expect("it can be run");
        assert_eq!(alone.digest, one_by_one[1].digest, "a life replays alone");
    }
}
