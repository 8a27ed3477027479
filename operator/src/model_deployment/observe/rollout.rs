//! What a rollout is judged by: pod templates on record, and exams. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::sprint_run::SlotRecord;
use crds::{SprintRun, labels};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::ResourceExt as _;

use crate::model_deployment::observed::{ExamSeen, ExaminedSlot, Observed, TemplateSeen, Unnamed};

/// Exams that are looked at, the latest ones.
const EXAMS: usize = 4;

/// Templates that this very deployment owns, by revision.
pub fn templates(records: &[Arc<ControllerRevision>], owner: &str) -> BTreeMap<String, TemplateSeen> {
    records
        .iter()
        .filter(|record| record.metadata.deletion_timestamp.is_none())
        .filter(|record| record.owner_references().iter().any(|reference| reference.uid == owner))
        .filter_map(|record| {
            let revision = record.labels().get(labels::REVISION)?.clone();
            let seen = TemplateSeen {
                uid: record.uid().unwrap_or_default(),
                number: record.revision,
                template: record.data.as_ref().map(|data| data.0.clone()).unwrap_or_default(),
            };
            Some((revision, seen))
        })
        .collect()
}

/// The latest exams, while a rollout is under way: nobody else asks for them.
pub fn exams(observed: &Observed, runs: impl FnOnce() -> Vec<Arc<SprintRun>>) -> Vec<ExamSeen> {
    let rolling = observed
        .deployment
        .status
        .as_ref()
        .is_some_and(|status| status.rollout.is_some());
    if !rolling {
        return Vec::new();
    }
    let mut exams: Vec<ExamSeen> = runs().iter().map(|run| exam(observed, run)).collect();
    exams.retain(|exam| !exam.slots.is_empty());
    exams.sort_by(|one, other| (one.height, &one.name).cmp(&(other.height, &other.name)));
    exams.split_off(exams.len().saturating_sub(EXAMS))
}

fn exam(observed: &Observed, run: &SprintRun) -> ExamSeen {
    let made = run.metadata.creation_timestamp.as_ref();
    // A record is made when generation begins, or later when nobody watched.
    let began = [
        made.map(|time| time.0.as_millisecond()),
        observed
            .facts
            .predict(run.spec.poc_start_height)
            .map(|prediction| prediction.time_ms),
    ];
    let rows = run.status.iter().flat_map(|status| &status.slots);
    ExamSeen {
        name: run.name_any(),
        height: run.spec.poc_start_height,
        began_ms: began.into_iter().flatten().min().unwrap_or_default(),
        unnamed: unnamed(run),
        slots: rows
            .filter(|row| !row.preserved)
            .filter_map(|row| {
                let expected = row.expected.filter(|expected| *expected > 0)?;
                let measured = row.measured?;
                Some((row.node_id.clone(), ExaminedSlot { expected, measured }))
            })
            .collect(),
    }
}

fn unnamed(run: &SprintRun) -> Option<Unnamed> {
    let status = run.status.as_ref()?;
    let totals = status.totals.as_ref()?;
    let named = || status.slots.iter().filter(|row| !row.preserved);
    let sum = |part: fn(&SlotRecord) -> Option<i64>| named().filter_map(part).sum::<i64>();
    let slots = usize::try_from(totals.slots)
        .unwrap_or_default()
        .saturating_sub(named().count());
    let sum = ExaminedSlot {
        expected: totals.expected - sum(|row| row.expected),
        measured: totals.measured - sum(|row| row.measured),
    };
    (slots > 0 && sum.expected > 0).then_some(Unnamed { slots, sum })
}

#[cfg(test)]
mod tests {
    use crds::sprint_run::Totals;
    use crds::{SprintRunSpec, SprintRunStatus};

    use super::*;

    fn run(height: i64, status: SprintRunStatus) -> Arc<SprintRun> {
        let spec = SprintRunSpec {
            poc_start_height: height,
            ..SprintRunSpec::default()
        };
        let mut run = SprintRun::new(&format!("ours-sprint-{height}"), spec);
        run.status = Some(status);
        Arc::new(run)
    }

    fn row(id: &str, preserved: bool, expected: Option<i64>, measured: Option<i64>) -> SlotRecord {
        SlotRecord {
            node_id: id.to_owned(),
            preserved,
            expected,
            measured,
            ..SlotRecord::default()
        }
    }

    fn rolling() -> Observed {
        let base = include_str!("../../../tests/golden/model_deployment/base.yaml");
        let base: serde_json::Value = serde_yaml::from_str(base).expect("YAML");
        let mut observed: Observed = serde_json::from_value(base).expect("a snapshot");
        let status = observed.deployment.status.as_mut().expect("a status");
        status.rollout = Some(crds::model_deployment::RolloutStatus::default());
        observed
    }

    #[test]
    fn an_exam_tells_of_slots_that_were_examined_and_heard_and_of_the_rest_together() {
        let status = SprintRunStatus {
            slots: vec![
                row("a", false, Some(100), Some(90)),
                row("preserved", true, Some(0), None),
                row("unheard", false, Some(100), None),
                row("without a rate", false, None, Some(5)),
            ],
            totals: Some(Totals {
                slots: 10,
                expected: 900,
                measured: 795,
                ..Totals::default()
            }),
            ..SprintRunStatus::default()
        };
        let exams = exams(&rolling(), || vec![run(5, status)]);
        let slot = ExaminedSlot {
            expected: 100,
            measured: 90,
        };
        assert_eq!(exams[0].slots, BTreeMap::from([("a".to_owned(), slot)]));
        let sum = ExaminedSlot {
            expected: 700,
            measured: 700,
        };
        assert_eq!(exams[0].unnamed, Some(Unnamed { slots: 7, sum }));
    }

    #[test]
    fn the_latest_exams_are_looked_at_and_none_while_nothing_rolls_out() {
        let status = SprintRunStatus {
            slots: vec![row("a", false, Some(100), Some(90))],
            ..SprintRunStatus::default()
        };
        let runs = || (1..=9).rev().map(|height| run(height, status.clone())).collect();
        let mut observed = rolling();
        let heights: Vec<i64> = exams(&observed, runs).iter().map(|exam| exam.height).collect();
        assert_eq!(heights, [6, 7, 8, 9]);
        observed.deployment.status = None;
        assert!(exams(&observed, || unreachable!("nobody asks")).is_empty());
    }
}
