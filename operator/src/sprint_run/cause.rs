//! Box 3: why a slot, or a host, fell short. A pure table over what was lost between each two steps.
//!
//! ```text
//!  expected ──► measured ──► accepted ──► committed        the step that lost most names the cause
//!        start, engine, GPU   callbacks     commits
//! ```

use crds::sprint_run::Cause;

/// Part of what was expected that may be missing without a cause, basis points.
pub const UNREMARKABLE_BASIS_POINTS: i64 = 500;

/// What is known of one slot in one exam.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent signs, each a column of the table below"
)]
pub struct Slot {
    /// Left on inference.
    pub preserved: bool,
    /// Nonces expected; absent when no rate was known.
    pub expected: Option<i64>,
    /// Nonces computed; absent when nobody watched the slot.
    pub measured: Option<i64>,
    /// Nonces DAPI took.
    pub accepted: Option<i64>,
    /// Nonces on chain.
    pub committed: Option<i64>,
    /// From the start block to the first nonce, milliseconds.
    pub first_nonce_millis: Option<i64>,
    /// Later than this is late, milliseconds.
    pub late_after_millis: i64,
    /// A start reached it.
    pub started: bool,
    /// A round ended by a failure.
    pub failed: bool,
    /// Fewer engines than expected.
    pub engines_missing: bool,
    /// It did not answer the operator.
    pub disconnected: bool,
    /// It moved to another pod.
    pub moved: bool,
    /// Somebody watched.
    pub watched: bool,
    /// Fees could not be paid.
    pub fees_unpayable: bool,
}

/// Cause of one slot.
pub fn of_slot(slot: &Slot) -> Cause {
    if slot.preserved {
        return Cause::Preserved;
    }
    let reached = slot.committed.or(slot.accepted);
    let Some(reached) = reached.or(slot.measured) else {
        return if slot.watched { of_nothing(slot) } else { Cause::Unknown };
    };
    let Some(wanted) = slot.expected.or(slot.measured).or(slot.accepted) else {
        return Cause::Unknown;
    };
    if wanted > 0 && (wanted - reached) * 10_000 <= wanted * UNREMARKABLE_BASIS_POINTS {
        return Cause::None;
    }
    if wanted == 0 {
        return if reached > 0 { Cause::None } else { of_nothing(slot) };
    }
    if !slot.watched && slot.measured.is_none() {
        return after_generation(slot, wanted, reached).unwrap_or(Cause::Unknown);
    }
    let measured = slot.measured.unwrap_or(0);
    let lost_computing = (wanted - measured).max(0);
    // Engines go on until they are told to stop: what they compute after the exam's end is no loss.
    let in_time = measured.min(wanted);
    let accepted = slot.accepted.unwrap_or(in_time);
    let lost_calling = (in_time - accepted).max(0);
    let lost_committing = (accepted - reached).max(0);
    if lost_computing >= lost_calling && lost_computing >= lost_committing {
        while_computing(slot)
    } else if lost_calling > lost_committing {
        Cause::CallbackLost
    } else {
        uncommitted(slot)
    }
}

/// Without a watcher DAPI's own count still tells what happened after generation.
fn after_generation(slot: &Slot, wanted: i64, reached: i64) -> Option<Cause> {
    let accepted = slot.accepted?;
    let lost_before = wanted - accepted;
    (accepted - reached > lost_before).then(|| uncommitted(slot))
}

fn of_nothing(slot: &Slot) -> Cause {
    if slot.disconnected || slot.moved {
        gone(slot)
    } else if slot.started {
        Cause::EngineDied
    } else {
        Cause::NoStart
    }
}

fn gone(slot: &Slot) -> Cause {
    if slot.moved {
        Cause::NodeLost
    } else {
        Cause::Unreachable
    }
}

fn while_computing(slot: &Slot) -> Cause {
    if slot.disconnected {
        return gone(slot);
    }
    if !slot.started {
        return Cause::NoStart;
    }
    if slot.failed || slot.first_nonce_millis.is_none() {
        return Cause::EngineDied;
    }
    if slot
        .first_nonce_millis
        .is_some_and(|millis| slot.late_after_millis > 0 && millis > slot.late_after_millis)
    {
        return Cause::LateStart;
    }
    if slot.engines_missing {
        return Cause::PartialStart;
    }
    if slot.moved { Cause::NodeLost } else { Cause::SlowGpu }
}

fn uncommitted(slot: &Slot) -> Cause {
    match slot.committed {
        Some(0) if slot.fees_unpayable => Cause::FeeRefused,
        Some(0) => Cause::NotCommitted,
        _ => Cause::TailUncommitted,
    }
}

/// Cause of a host: a vote against it outweighs everything, then whatever lost most nonces.
pub fn of_host(slots: &[(Cause, i64)], voted_invalid: bool, short: bool) -> Cause {
    if voted_invalid {
        return Cause::VotedInvalid;
    }
    if slots.iter().all(|(cause, _)| *cause == Cause::Unknown) {
        return Cause::Unknown;
    }
    if slots.iter().all(|(cause, _)| *cause == Cause::Preserved) {
        return Cause::Preserved;
    }
    if !short {
        return Cause::None;
    }
    let mut lost: std::collections::BTreeMap<Cause, i64> = std::collections::BTreeMap::new();
    for (cause, nonces) in slots
        .iter()
        .filter(|(cause, _)| !matches!(cause, Cause::None | Cause::Preserved))
    {
        *lost.entry(*cause).or_default() += (*nonces).max(0);
    }
    lost.into_iter()
        .max_by_key(|(cause, nonces)| (*nonces, std::cmp::Reverse(*cause)))
        .map_or(Cause::Unknown, |(cause, _)| cause)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn healthy() -> Slot {
        Slot {
            expected: Some(100),
            measured: Some(100),
            accepted: Some(100),
            committed: Some(98),
            first_nonce_millis: Some(400),
            late_after_millis: 10_000,
            started: true,
            watched: true,
            ..Slot::default()
        }
    }

    fn silent() -> Slot {
        Slot {
            measured: Some(0),
            accepted: Some(0),
            committed: Some(0),
            first_nonce_millis: None,
            ..healthy()
        }
    }

    fn half(mut slot: Slot) -> Slot {
        for count in [&mut slot.measured, &mut slot.accepted, &mut slot.committed] {
            *count = Some(50);
        }
        slot
    }

    #[rstest]
    #[case::nothing_lost(healthy(), Cause::None)]
    #[case::no_rate_but_all_committed(Slot { expected: None, ..healthy() }, Cause::None)]
    #[case::no_start(Slot { started: false, ..silent() }, Cause::NoStart)]
    #[case::late(half(Slot { first_nonce_millis: Some(10_001), ..healthy() }), Cause::LateStart)]
    #[case::half_the_engines(half(Slot { engines_missing: true, ..healthy() }), Cause::PartialStart)]
    #[case::never_a_nonce(silent(), Cause::EngineDied)]
    #[case::failed_on_the_way(half(Slot { failed: true, ..healthy() }), Cause::EngineDied)]
    #[case::slow(half(healthy()), Cause::SlowGpu)]
    #[case::callbacks(Slot { accepted: Some(40), committed: Some(40), ..healthy() }, Cause::CallbackLost)]
    #[case::went_on_after_the_end(Slot { measured: Some(125), committed: Some(80), ..healthy() }, Cause::TailUncommitted)]
    #[case::tail(Slot { committed: Some(80), ..healthy() }, Cause::TailUncommitted)]
    #[case::nothing_committed(Slot { committed: Some(0), ..healthy() }, Cause::NotCommitted)]
    #[case::no_fees(Slot { committed: Some(0), fees_unpayable: true, ..healthy() }, Cause::FeeRefused)]
    #[case::preserved(Slot { preserved: true, ..silent() }, Cause::Preserved)]
    #[case::machine_gone(half(Slot { moved: true, disconnected: true, ..healthy() }), Cause::NodeLost)]
    #[case::moved_and_went_on(half(Slot { moved: true, ..healthy() }), Cause::NodeLost)]
    #[case::unreachable(half(Slot { disconnected: true, ..healthy() }), Cause::Unreachable)]
    #[case::unreachable_from_the_start(Slot { disconnected: true, started: false, ..silent() }, Cause::Unreachable)]
    #[case::nobody_watched(Slot { expected: Some(100), committed: Some(10), ..Slot::default() }, Cause::Unknown)]
    #[case::nobody_watched_but_dapi_counted(Slot { expected: Some(100), accepted: Some(99), committed: Some(10), ..Slot::default() }, Cause::TailUncommitted)]
    #[case::nothing_known(Slot::default(), Cause::Unknown)]
    fn each_cause_has_its_evidence(#[case] slot: Slot, #[case] cause: Cause) {
        assert_eq!(of_slot(&slot), cause);
    }

    #[rstest]
    #[case(&[(Cause::SlowGpu, 10), (Cause::TailUncommitted, 30)], false, true, Cause::TailUncommitted)]
    #[case(&[(Cause::SlowGpu, 10), (Cause::SlowGpu, 25), (Cause::TailUncommitted, 30)], false, true, Cause::SlowGpu)]
    #[case(&[(Cause::None, 3), (Cause::None, 2)], false, false, Cause::None)]
    #[case(&[(Cause::None, 3)], true, false, Cause::VotedInvalid)]
    #[case(&[(Cause::Preserved, 0)], false, false, Cause::Preserved)]
    #[case(&[(Cause::Preserved, 0), (Cause::NoStart, 100)], false, true, Cause::NoStart)]
    #[case(&[], false, true, Cause::Unknown)]
    #[case(&[(Cause::Unknown, 0), (Cause::Unknown, 0)], false, false, Cause::Unknown)]
    fn the_host_names_its_largest_loss(
        #[case] slots: &[(Cause, i64)],
        #[case] voted_invalid: bool,
        #[case] short: bool,
        #[case] cause: Cause,
    ) {
        assert_eq!(of_host(slots, voted_invalid, short), cause);
    }

    #[test]
    fn every_cause_of_a_slot_can_be_reached() {
        use std::collections::BTreeSet;
        use strum::VariantArray as _;
        let mut reached = BTreeSet::from([Cause::VotedInvalid]);
        for bits in 0..512_u32 {
            let on = |bit: u32| bits & (1 << bit) != 0;
            for (measured, accepted, committed) in [
                (0, 0, 0),
                (50, 50, 50),
                (100, 40, 40),
                (100, 100, 80),
                (100, 100, 0),
                (100, 100, 100),
            ] {
                reached.insert(of_slot(&Slot {
                    preserved: on(0),
                    started: on(1),
                    failed: on(2),
                    engines_missing: on(3),
                    disconnected: on(4),
                    moved: on(5),
                    watched: on(6),
                    fees_unpayable: on(7),
                    first_nonce_millis: Some(if on(8) { 20_000 } else { 100 }),
                    late_after_millis: 10_000,
                    expected: Some(100),
                    measured: on(6).then_some(measured),
                    accepted: on(6).then_some(accepted),
                    committed: Some(committed),
                }));
            }
        }
        assert_eq!(reached, Cause::VARIANTS.iter().copied().collect());
    }
}
