//! What every exam came to, against what was physically there.

use std::collections::BTreeMap;

use network_simulator::ledger;
use serde::Serialize;

/// One exam of our host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Sprint or Confirmation.
    pub kind: String,
    /// Epoch.
    pub epoch: u64,
    /// First block, or the trigger of a confirmation.
    pub height: i64,
    /// Weight of what the machines could have generated.
    pub available: u64,
    /// Weight that could have been had with what happened meanwhile, what nodes left on inference carry included.
    pub attainable: u64,
    /// Weight that was committed.
    pub weight: u64,
    /// Nonces that DAPI took.
    pub accepted: u64,
    /// Nonces that were committed in time.
    pub committed: u64,
    /// What of the story fell into the exam or the minutes before it.
    pub during: Vec<String>,
}

impl Row {
    /// Our host's part of a finished exam.
    pub fn of(exam: &ledger::Exam, address: &str) -> Option<Self> {
        let host = exam.hosts.iter().find(|host| host.address == address)?;
        let sum = |part: fn(&ledger::Node) -> u64| host.nodes.iter().map(part).sum::<u64>();
        Some(Self {
            kind: exam.kind.to_owned(),
            epoch: exam.epoch,
            height: if exam.trigger_height > 0 {
                exam.trigger_height
            } else {
                exam.start_height
            },
            available: host.physically_available_weight,
            attainable: host.attainable_weight + sum(|node| node.carried_weight),
            weight: host.weight,
            accepted: sum(|node| node.accepted),
            committed: sum(|node| node.committed),
            during: Vec::new(),
        })
    }

    /// Weight against what was there, thousandths.
    pub fn permille(&self) -> u64 {
        (self.weight * 1000).checked_div(self.available).unwrap_or(1000)
    }
}

/// A table of exams for people: those that lost most first, all of them or so many.
pub fn shown(rows: &[Row], most: usize) -> String {
    let mut worst: Vec<&Row> = rows.iter().collect();
    worst.sort_by_key(|row| (row.permille(), row.height));
    let mut text =
        String::from("| exam | epoch | height | available | weight | ‰ | meanwhile |\n|---|---|---|---|---|---|---|\n");
    for row in worst.into_iter().take(most) {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            row.kind,
            row.epoch,
            row.height,
            row.available,
            row.weight,
            row.permille(),
            row.during.join(", ")
        ));
    }
    text
}

/// How many exams were lived through, and how many came to less than what was there by more than so many thousandths: all of
/// them, and those that nothing of the story fell into.
pub fn below(rows: &[Row], tolerance_permille: u64) -> String {
    let is_below = |row: &&Row| row.permille() + tolerance_permille < 1000;
    let calm = rows.iter().filter(|row| row.during.is_empty());
    let (all, alone) = (
        rows.iter().filter(is_below).count(),
        calm.clone().filter(is_below).count(),
    );
    let (available, weight) = rows.iter().fold((0, 0), |(available, weight), row| {
        (available + row.available, weight + row.weight.min(row.available))
    });
    let kept = (weight * 10_000).checked_div(available).unwrap_or(10_000);
    format!(
        "| exams | undisturbed | below what was there by more than {tolerance_permille} \u{2030} | of them undisturbed | weight kept |\n|---|---|---|---|---|\n| {} | {} | {all} | {alone} | {}.{:02} % |\n",
        rows.len(),
        calm.count(),
        kept / 100,
        kept % 100
    )
}

/// What each kind of happening costs where it came alone: exams, the worst of them and their mean, thousandths of what was there.
pub fn by_cause(rows: &[Row]) -> String {
    let mut causes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in rows {
        let cause = match row.during.as_slice() {
            [] => "nothing".to_owned(),
            [one] => one.chars().filter(|letter| !letter.is_ascii_digit()).collect(),
            _ => continue,
        };
        causes.entry(cause).or_default().push(row.permille());
    }
    let mut text = String::from(
        "| alone in an exam or the two minutes before it | exams | worst ‰ | mean ‰ |\n|---|---|---|---|\n",
    );
    for (cause, shares) in causes {
        let count = shares.len() as u64;
        let worst = shares.iter().min().copied().unwrap_or_default();
        let mean = shares.iter().sum::<u64>() / count.max(1);
        text.push_str(&format!("| {cause} | {count} | {worst} | {mean} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(height: i64, weight: u64, during: &[&str]) -> Row {
        Row {
            kind: "Sprint".to_owned(),
            epoch: 1,
            height,
            available: 1000,
            attainable: 1000,
            weight,
            accepted: weight,
            committed: weight,
            during: during.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn the_worst_exam_comes_first_and_machines_of_one_kind_are_one_cause() {
        let rows = [
            row(1, 990, &[]),
            row(2, 700, &["n1 lost"]),
            row(3, 800, &["n2 lost"]),
            row(4, 100, &["n2 lost", "rollout"]),
        ];
        let table = shown(&rows, 1);
        assert!(
            table.contains("| Sprint | 1 | 4 | 1000 | 100 | 100 |") && !table.contains("| 700 |"),
            "{table}"
        );
        let causes = by_cause(&rows);
        assert!(causes.contains("| n lost | 2 | 700 | 750 |"), "{causes}");
        assert!(causes.contains("| nothing | 1 | 990 | 990 |"), "{causes}");
    }

    #[test]
    fn exams_below_what_was_there_are_counted_apart_where_nothing_happened() {
        let rows = [
            row(1, 990, &[]),
            row(2, 700, &[]),
            row(3, 100, &["rollout"]),
            row(4, 1_100, &["rollout"]),
        ];
        let table = below(&rows, 20);
        assert!(table.ends_with("| 4 | 2 | 2 | 1 | 69.75 % |\n"), "{table}");
    }

    #[test]
    fn nothing_is_lost_where_nothing_was_there() {
        let mut empty = row(1, 0, &[]);
        empty.available = 0;
        assert_eq!(empty.permille(), 1000);
    }
}
