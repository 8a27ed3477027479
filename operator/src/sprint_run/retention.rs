//! Box 3: which records go. Pure. A record whose line is not on the volume never goes.

use std::collections::BTreeSet;

use crds::SprintRun;

/// Records kept per host.
pub const KEPT: usize = 200;

/// The oldest closed records beyond [`KEPT`] whose line was written. `rows` holds `namespace/name`.
pub fn surplus<'a>(runs: &[&'a SprintRun], rows: &BTreeSet<String>) -> Vec<&'a SprintRun> {
    let mut runs = runs.to_vec();
    runs.sort_by_key(|run| (run.spec.poc_start_height, run.metadata.name.clone()));
    let surplus = runs.len().saturating_sub(KEPT);
    let closed = |run: &&SprintRun| run.status.as_ref().is_some_and(|status| status.sealed_time.is_some());
    let written = |run: &&SprintRun| {
        let metadata = &run.metadata;
        let name = format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        );
        rows.contains(&name)
    };
    runs.into_iter().take(surplus).filter(closed).filter(written).collect()
}

#[cfg(test)]
mod tests {
    use crds::{SprintRunSpec, SprintRunStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn run(height: i64, closed: bool) -> SprintRun {
        let mut run = SprintRun::new(
            &format!("ours-s-{height}"),
            SprintRunSpec {
                poc_start_height: height,
                ..SprintRunSpec::default()
            },
        );
        run.metadata.namespace = Some("gonka".to_owned());
        run.status = Some(SprintRunStatus {
            sealed_time: closed.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..SprintRunStatus::default()
        });
        run
    }

    #[test]
    fn the_oldest_closed_and_written_go_and_no_other() {
        let runs: Vec<SprintRun> = (0..204).rev().map(|height| run(height, height != 1)).collect();
        let runs: Vec<&SprintRun> = runs.iter().collect();
        let rows = [0, 1, 3, 50].map(|height| format!("gonka/ours-s-{height}")).into();
        let gone: Vec<i64> = surplus(&runs, &rows)
            .iter()
            .map(|run| run.spec.poc_start_height)
            .collect();
        assert_eq!(gone, [0, 3], "1 is open, 2 has no line, 50 is among the newest");
    }

    #[test]
    fn nothing_goes_without_a_records_volume() {
        let runs: Vec<SprintRun> = (0..300).map(|height| run(height, true)).collect();
        assert!(surplus(&runs.iter().collect::<Vec<_>>(), &BTreeSet::new()).is_empty());
    }
}
