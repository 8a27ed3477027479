//! The rule about weight: rows of exams in, those that came to too little out. Pure.
//!
//! An exam may come to less than what was attainable (`network_simulator::truth::attainable`) by the owner's margin,
//! `GonkaHost.spec.disruption.maxWeightBasisPoints`, and by what a reaction takes: `attainable` reacts at once, and people's
//! machines do not. What each happening may take of each slot that it hit follows from named times, and from nothing else.

use crds::gonka_host::Disruption;
use serde_json::Value;

use crate::story::{Happening, Moment};
use crate::table::Row;

/// Keep-alives of a slot's door that nobody answers are noticed after so long at most.
const NOTICED_MS: u64 = 6_000;
/// The operator waits for so long, because a restart takes less (`takeover::SILENT_MILLIS`).
const WAITED_MS: u64 = 3_000;
/// From the decision to the successor's first nonce: a pass, a demote, a slice, a promote.
const MOVED_MS: u64 = 1_000;

/// What an exam is measured with.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// `maxWeightBasisPoints` of the host.
    pub margin_basis_points: u64,
    /// Between a slot's callbacks: what a pod takes with it when it is gone.
    pub callback_ms: u64,
    /// Length of generation.
    pub generation_ms: u64,
    /// Slots of the host.
    pub slots: u64,
}

/// `maxWeightBasisPoints` of a GonkaHost, as the operator reads it.
pub fn margin_basis_points(host: Option<&Value>) -> i32 {
    let said = host.and_then(|host| serde_json::from_value::<Disruption>(host["spec"]["disruption"].clone()).ok());
    // A host that says nothing has the type's own default.
    said.unwrap_or_default().max_weight_basis_points
}

impl Terms {
    /// Notes what of the story fell into an exam, and what that may have cost.
    /// Each comes with the slots that it hit.
    pub fn judge<'a>(&self, row: &mut Row, moments: impl Iterator<Item = (&'a Moment, u64)>) {
        let mut slot_ms = 0;
        row.during = moments
            .map(|(moment, hit)| {
                // Until it is found out that a spare is gone, a slot may go to it.
                slot_ms += self.reaction_ms(&moment.what) * hit.max(1);
                moment.what.name()
            })
            .collect();
        row.margin = row.attainable * self.margin_basis_points / 10_000;
        // A slot's part of what was there at one time or the other.
        let whole = u128::from(row.attainable.max(row.available)) * u128::from(slot_ms);
        let all = u128::from(self.slots.max(1)) * u128::from(self.generation_ms.max(1));
        row.reaction = u64::try_from(whole / all).unwrap_or(u64::MAX);
    }

    /// Milliseconds of one slot that a happening may take beside what it takes physically.
    fn reaction_ms(&self, what: &Happening) -> u64 {
        match what {
            Happening::NodeLost { .. } | Happening::NodeCut { .. } => {
                self.callback_ms + NOTICED_MS + WAITED_MS + MOVED_MS
            }
            Happening::ServeRestarts { .. } => self.callback_ms + WAITED_MS + MOVED_MS,
            Happening::PodDies { .. } | Happening::PodDeleted { .. } => self.callback_ms + MOVED_MS,
            // The pod answers, and delivers what it has.
            Happening::GpuFinding { .. } => MOVED_MS,
            Happening::EngineDies { .. } => WAITED_MS + MOVED_MS,
            // Nothing that computes or delivers is touched.
            Happening::Rollout { .. }
            | Happening::Edited { .. }
            | Happening::Drained { .. }
            | Happening::Maintained { .. }
            | Happening::GlassBroken { .. }
            | Happening::Rearmed
            | Happening::SwitchSet { .. }
            | Happening::ChecksPaused { .. }
            | Happening::LabelsFlap { .. }
            | Happening::ApiOutage { .. }
            | Happening::OperatorDies { .. }
            | Happening::WriteFails { .. }
            | Happening::WatchFails { .. }
            | Happening::StaleLists { .. }
            | Happening::Network { .. } => 0,
        }
    }
}

/// Exams in which too little came of what was attainable although nothing, or one kind of thing alone, happened in them.
pub fn broken(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.causes().len() <= 1 && row.is_short())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TERMS: Terms = Terms {
        margin_basis_points: 300,
        callback_ms: 5_000,
        generation_ms: 40_000,
        slots: 3,
    };

    fn row_of(weight: u64, happenings: &[Happening], hit: u64) -> Row {
        let mut row = Row {
            kind: "Sprint".to_owned(),
            available: 1_200,
            attainable: 1_200,
            weight,
            ..Row::default()
        };
        let moments: Vec<Moment> = happenings
            .iter()
            .map(|what| Moment {
                at: 0,
                what: what.clone(),
            })
            .collect();
        TERMS.judge(&mut row, moments.iter().map(|moment| (moment, hit)));
        row
    }

    fn row(weight: u64, happenings: &[Happening]) -> Row {
        row_of(weight, happenings, 1)
    }

    fn is_broken(weight: u64, happenings: &[Happening]) -> bool {
        broken(&[row(weight, happenings)]).count() == 1
    }

    #[test]
    fn without_a_disturbance_the_owners_margin_is_all_there_is() {
        assert!(!is_broken(1_164, &[]));
        assert!(is_broken(1_163, &[]));
    }

    #[test]
    fn a_machine_that_is_cut_off_may_cost_one_slot_fifteen_seconds_and_no_more() {
        let cut = [Happening::NodeCut {
            machine: 1,
            millis: 60_000,
        }];
        // A slot computes 400 in 40 seconds: 150 in 15.
        assert_eq!(row(0, &cut).reaction, 150);
        assert!(!is_broken(1_014, &cut) && is_broken(1_013, &cut));
    }

    #[test]
    fn a_lost_machine_is_judged_as_one_that_is_cut_off() {
        let lost = [Happening::NodeLost {
            machine: 1,
            millis: 60_000,
        }];
        assert!(!is_broken(1_014, &lost) && is_broken(1_013, &lost));
    }

    #[test]
    fn a_machine_with_two_slots_may_cost_both_as_much_and_one_with_a_spare_alone_as_much_as_one() {
        let lost = [Happening::NodeLost {
            machine: 1,
            millis: 60_000,
        }];
        let reaction = |hit| row_of(0, &lost, hit).reaction;
        assert_eq!([reaction(0), reaction(1), reaction(2)], [150, 150, 300]);
    }

    #[test]
    fn what_touches_nothing_that_computes_may_cost_nothing() {
        let outage = Happening::ApiOutage { millis: 60_000 };
        assert!(is_broken(1_163, &[outage]));
    }

    #[test]
    fn two_of_a_kind_are_judged_with_what_both_may_take_and_two_kinds_are_only_counted() {
        let engine = Happening::EngineDies { pod: 1 };
        let twice = [engine.clone(), Happening::EngineDies { pod: 2 }];
        assert!(!is_broken(1_084, &twice) && is_broken(1_083, &twice));
        assert!(!is_broken(0, &[engine, Happening::PodDies { pod: 1 }]));
    }

    #[test]
    fn the_margin_is_the_hosts_own_and_three_hundred_where_it_says_nothing() {
        let host = |disruption: Value| json!({"spec": {"disruption": disruption}});
        let known = host(json!({"maxWeightBasisPoints": 120}));
        assert_eq!(margin_basis_points(Some(&known)), 120);
        assert_eq!(margin_basis_points(Some(&host(json!({})))), 300);
        assert_eq!(margin_basis_points(Some(&json!({"spec": {}}))), 300);
        assert_eq!(margin_basis_points(None), 300);
    }
}
