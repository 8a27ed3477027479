//! What an exam says of the slots that have a new revision. Pure.

use std::collections::BTreeMap;

use super::rollout::ENOUGH_PERCENT;
use super::world::World;
use crate::model_deployment::observed::{ExamSeen, ExaminedSlot};

/// Part of what was expected that is enough where no other slot was examined, basis points.
const ENOUGH_ALONE: u64 = 9_000;

/// What exams say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// None has judged it yet.
    Open,
    /// Good enough, in this exam.
    Passed(String),
    /// Not; why.
    Failed(String),
}

/// The first exam that judged slots whose pods have the revision.
pub fn verdict(world: &World<'_>, revision: &str) -> Verdict {
    // A slot that came to its pod while the exam ran was not examined with it.
    let since: BTreeMap<String, i64> = world
        .slots
        .iter()
        .filter_map(|(slot, assignment)| {
            let pod = world.pod_of(assignment.holder.as_ref()?)?;
            (pod.revision == revision).then(|| (world.seen.node_id(*slot), assignment.assigned_ms))
        })
        .collect();
    let mut exams = world.seen.exams.iter();
    exams.find_map(|exam| judge(exam, &since)).unwrap_or(Verdict::Open)
}

fn judge(exam: &ExamSeen, since: &BTreeMap<String, i64>) -> Option<Verdict> {
    let ours = exam
        .slots
        .iter()
        .filter(|(id, _)| since.get(*id).is_some_and(|since| *since < exam.began_ms));
    let (expected, measured) = ours.fold((0, 0), |(expected, measured), (_, slot)| {
        (expected + slot.expected, measured + slot.measured)
    });
    if expected <= 0 {
        return None;
    }
    let ours = ratio(ExaminedSlot { expected, measured });
    let others = exam.slots.iter().filter(|(id, _)| !since.contains_key(*id));
    let unnamed = exam.unnamed.iter();
    let unnamed = unnamed.flat_map(|rest| std::iter::repeat_n(ratio(rest.sum), rest.slots));
    let enough = match median(others.map(|(_, slot)| ratio(*slot)).chain(unnamed).collect()) {
        // Where all others failed it was not the revision.
        Some(0) => return None,
        Some(median) => median * ENOUGH_PERCENT / 100,
        None => ENOUGH_ALONE,
    };
    Some(if ours >= enough {
        Verdict::Passed(exam.name.clone())
    } else {
        Verdict::Failed(format!(
            "in {} its slots computed {} % of what was expected, {} % would have been enough",
            exam.name,
            ours / 100,
            enough / 100
        ))
    })
}

/// Measured of expected, basis points.
fn ratio(slot: ExaminedSlot) -> u64 {
    let part = slot.measured.max(0).saturating_mul(10_000) / slot.expected.max(1);
    u64::try_from(part).unwrap_or_default()
}

/// The middle one; of an even number the lower of the two.
pub fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model_deployment::observed::Unnamed;

    fn exam(slots: &[(&str, i64)]) -> ExamSeen {
        ExamSeen {
            name: "e".to_owned(),
            began_ms: 1_000,
            slots: slots
                .iter()
                .map(|(id, measured)| {
                    let slot = ExaminedSlot {
                        expected: 1_000,
                        measured: *measured,
                    };
                    ((*id).to_owned(), slot)
                })
                .collect(),
            ..ExamSeen::default()
        }
    }

    #[test]
    fn slots_that_a_record_does_not_name_are_as_good_as_their_sum() {
        let mut exam = exam(&[("new", 940), ("bad", 100), ("worse", 50)]);
        let since = BTreeMap::from([("new".to_owned(), 999)]);
        assert!(
            matches!(judge(&exam, &since), Some(Verdict::Passed(_))),
            "it is the best"
        );
        exam.unnamed = Some(Unnamed {
            slots: 9,
            sum: ExaminedSlot {
                expected: 9_000,
                measured: 9_000,
            },
        });
        assert!(matches!(judge(&exam, &since), Some(Verdict::Failed(_))));
    }

    #[rstest]
    #[case::as_good_as_the_others(&[("new", 940), ("a", 980), ("b", 980)], 999, Some(true))]
    #[case::worse_than_the_others(&[("new", 930), ("a", 980), ("b", 980)], 999, Some(false))]
    #[case::all_were_bad(&[("new", 400), ("a", 410), ("b", 300)], 999, Some(true))]
    #[case::nobody_else_and_good(&[("new", 900)], 999, Some(true))]
    #[case::nobody_else_and_bad(&[("new", 899)], 999, Some(false))]
    #[case::left_on_inference(&[("a", 980)], 999, None)]
    #[case::came_while_it_ran(&[("new", 100), ("a", 980)], 1_000, None)]
    #[case::nobody_computed(&[("new", 0), ("a", 0)], 999, None)]
    fn an_exam_judges_slots_that_had_the_revision_when_it_began(
        #[case] slots: &[(&str, i64)],
        #[case] since: i64,
        #[case] passed: Option<bool>,
    ) {
        let verdict = judge(&exam(slots), &BTreeMap::from([("new".to_owned(), since)]));
        let found = verdict.map(|verdict| matches!(verdict, Verdict::Passed(_)));
        assert_eq!(found, passed);
    }
}
