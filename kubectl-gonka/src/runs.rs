//! `kubectl gonka runs` as text. Pure: records in, lines out.

use crds::SprintRun;

use crate::table;

/// One line per record, and one per slot when asked.
pub(crate) fn render(runs: &[SprintRun], slots: bool) -> String {
    let header = [
        "HOST",
        "KIND",
        "EPOCH",
        "HEIGHT",
        "GATES",
        "EXPECTED",
        "MEASURED",
        "ACCEPTED",
        "COMMITTED",
        "EARLY/MEDIAN",
        "VOTES",
        "WEIGHT",
        "GNK",
        "LOST GNK",
        "CAUSE",
        "SEALED",
    ];
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    if rows.is_empty() {
        return "no exam has been recorded yet\n".to_owned();
    }
    let mut text = table::render(&header, &rows);
    if slots {
        for run in runs {
            text.push('\n');
            text.push_str(&slot_table(run));
        }
    }
    text
}

fn row(run: &SprintRun) -> Vec<String> {
    let status = run.status.clone().unwrap_or_default();
    let totals = status.totals.unwrap_or_default();
    let gates: Vec<String> = status.gates.iter().map(|gate| gate.verdict.to_string()).collect();
    let early = status.early_share.map(|early| {
        let median = early.median_basis_points.map_or_else(|| "?".to_owned(), percent);
        format!("{}/{median}", percent(early.own_basis_points))
    });
    vec![
        run.spec.host_ref.name.clone(),
        run.spec.kind.to_string(),
        run.spec.epoch.to_string(),
        run.spec.poc_start_height.to_string(),
        gates.join(","),
        totals.expected.to_string(),
        totals.measured.to_string(),
        totals.accepted.to_string(),
        totals.committed.to_string(),
        early.unwrap_or_default(),
        status
            .votes
            .map(|votes| format!("{}+ {}-", votes.valid, votes.invalid))
            .unwrap_or_default(),
        status.weight.map(|weight| weight.to_string()).unwrap_or_default(),
        status.reward_ngonka.as_deref().map(gnk).unwrap_or_default(),
        status.lost_ngonka.as_deref().map(gnk).unwrap_or_default(),
        status.cause.to_string(),
        if status.sealed_time.is_some() { "yes" } else { "no" }.to_owned(),
    ]
}

fn slot_table(run: &SprintRun) -> String {
    let status = run.status.clone().unwrap_or_default();
    let count = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let rows: Vec<Vec<String>> = status
        .slots
        .iter()
        .map(|slot| {
            vec![
                run.metadata.name.clone().unwrap_or_default(),
                slot.node_id.clone(),
                slot.node_name.clone().unwrap_or_default(),
                if slot.preserved {
                    "preserved".to_owned()
                } else {
                    count(slot.expected)
                },
                count(slot.measured),
                count(slot.accepted),
                count(slot.committed),
                count(slot.first_nonce_millis),
                count(slot.first_callback_millis),
                slot.cause.to_string(),
            ]
        })
        .collect();
    let header = [
        "RECORD",
        "NODE",
        "MACHINE",
        "EXPECTED",
        "MEASURED",
        "ACCEPTED",
        "COMMITTED",
        "FIRST NONCE MS",
        "FIRST CALLBACK MS",
        "CAUSE",
    ];
    table::render(&header, &rows)
}

fn percent(basis_points: i32) -> String {
    format!("{}.{}%", basis_points / 100, basis_points % 100 / 10)
}

/// Decimal ngonka as GNK with three places, by text: amounts exceed what a float keeps.
fn gnk(ngonka: &str) -> String {
    if ngonka.is_empty() || !ngonka.chars().all(|character| character.is_ascii_digit()) {
        return ngonka.to_owned();
    }
    let padded = format!("{ngonka:0>10}");
    let (whole, fraction) = padded.split_at(padded.len() - 9);
    format!("{whole}.{}", &fraction[..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_one_line_per_record_and_its_slots() {
        let runs: Vec<SprintRun> = serde_yaml::from_str(include_str!("../tests/runs.yaml")).expect("records");
        insta::assert_snapshot!(render(&runs, true));
    }

    #[test]
    fn says_that_nothing_is_recorded() {
        assert_eq!(render(&[], false), "no exam has been recorded yet\n");
    }

    #[test]
    fn amounts_keep_every_digit_before_the_point() {
        assert_eq!(gnk("285000000000000"), "285000.000");
        assert_eq!(gnk("1500000"), "0.001");
        assert_eq!(gnk("0"), "0.000");
    }
}
