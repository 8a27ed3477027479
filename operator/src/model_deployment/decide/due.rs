//! When to look again though nothing happens: the next moment at which the clock alone changes the answer. Everything else that
//! matters wakes the deployment: its objects, its machines, what its pods say, and the chain's transitions. Pure.

use super::clocks;
use super::contradiction;
use super::planner::Plan;
use super::pods;
use super::rehearsal;
use super::takeover;
use super::world::{LOST_MILLIS, World};
use crate::model_deployment::observed::{Link, Phase, PodSeen};

/// In an exam, what was just asked for is looked at again after this long, and so is an exam whose beginning is not known.
const EXAM_MILLIS: i64 = 1_000;
/// While a rehearsal is to be repeated.
const PENDING_MILLIS: i64 = 10_000;
/// While something was just moved or made.
const SOON_MILLIS: i64 = 2_000;

/// Milliseconds until the next look; absent = the usual resync. `acts`: this pass tells pods something.
pub fn again_after(world: &World<'_>, plan: &Plan, acts: bool) -> Option<i64> {
    let mut waits: Vec<i64> = Vec::new();
    let acts = acts || !plan.moves.is_empty() || plan.create > 0;
    if acts || !world.knows_trust() {
        let in_exam = world.exam.is_some();
        waits.push(if in_exam { EXAM_MILLIS } else { SOON_MILLIS });
    }
    if world.exam.as_ref().is_some_and(|exam| exam.started_ms.is_none()) {
        waits.push(EXAM_MILLIS);
    }
    if rehearsal::pending(world) {
        waits.push(PENDING_MILLIS);
    }
    let until = |at: i64| Some(at - world.seen.now_ms).filter(|wait| *wait > 0);
    waits.extend(rehearsal::repeats(world).filter_map(until));
    waits.extend(
        world
            .seen
            .pods
            .values()
            .flat_map(|pod| silences(world, pod))
            .filter_map(until),
    );
    let overrides = world
        .seen
        .machines
        .values()
        .filter_map(|machine| machine.findings_until_ms);
    waits.extend(overrides.filter_map(until));
    waits.extend(clocks::edges(world).filter_map(until));
    waits.extend(contradiction::edges(world.seen, &world.slots).filter_map(until));
    let overdue = takeover::next_first_nonce_ms(world).and_then(until);
    waits.extend(overdue.map(approach));
    waits.extend(cold_load(world));
    waits.into_iter().min()
}

/// A predicted moment moves a little with every block: half of the way at a time, and every second at the end.
fn approach(left: i64) -> i64 {
    (left / 2).max(left.min(EXAM_MILLIS))
}

/// When a silence has lasted long enough for the next conclusion.
fn silences(world: &World<'_>, pod: &PodSeen) -> Vec<i64> {
    let mut edges = Vec::new();
    if let Some(live) = world.live(pod).filter(|live| live.link == Link::Broken) {
        edges.extend([live.since_ms + takeover::SILENT_MILLIS, live.since_ms + LOST_MILLIS]);
    }
    if world.exam.is_some() {
        edges.extend(takeover::lost_engine_since(world, pod).map(|since| since + takeover::SILENT_MILLIS));
    }
    if let Some(machine) = world.machine(pod).filter(|machine| !machine.ready) {
        let since = machine.ready_since_ms;
        edges.extend([since + LOST_MILLIS, since + pods::FORGET_LOST_MILLIS]);
    }
    if pod.phase == Phase::Running && !pod.ready {
        edges.push(pod.ready_since_ms + LOST_MILLIS);
    }
    edges
}

/// The point of no return for cold loads.
fn cold_load(world: &World<'_>) -> Option<i64> {
    let margin = i64::from(world.seen.schedule.as_ref()?.margins.cold_load_seconds) * 1000;
    let facts = &world.seen.facts;
    let until = facts
        .next_poc_start()
        .and_then(|height| facts.millis_until(height, world.seen.now_ms))?;
    (until > margin).then_some(until - margin)
}

#[cfg(test)]
mod tests {
    use super::approach;

    #[test]
    fn a_predicted_moment_is_come_near_and_never_passed() {
        assert_eq!(approach(10_000), 5_000);
        assert_eq!(approach(1_500), 1_000);
        assert_eq!(approach(300), 300);
        let mut left = 60_000;
        for _ in 0..12 {
            assert!(approach(left) <= left && approach(left) <= (left / 2).max(1_000));
            left = (left - approach(left)).max(1);
        }
        assert!(left <= 1_000, "{left}");
    }
}
