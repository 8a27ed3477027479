//! What every exam came to, against what was physically there.

use std::collections::{BTreeMap, BTreeSet};

use network_simulator::ledger;
use serde::Serialize;

/// One exam of our host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// Weight that its owner gives away: [`crate::check::weight`].
    pub margin: u64,
    /// Weight that reactions to what happened may have taken.
    pub reaction: u64,
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
            ..Self::default()
        })
    }

    /// Weight against what was there, thousandths.
    pub fn permille(&self) -> u64 {
        (self.weight * 1000).checked_div(self.available).unwrap_or(1000)
    }

    /// Kinds of happenings, whatever machine they hit.
    pub fn causes(&self) -> BTreeSet<String> {
        let kind = |name: &String| name.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        self.during.iter().map(kind).collect()
    }

    /// Less than what could be had with what happened, beyond the owner's margin.
    pub fn is_beyond_margin(&self) -> bool {
        self.weight + self.margin < self.attainable
    }

    /// The same beyond what a reaction takes, too.
    pub fn is_short(&self) -> bool {
        self.weight + self.margin + self.reaction < self.attainable
    }
}

/// A table of exams for people: those that lost most of what could be had first, all of them or so many.
pub fn shown(rows: &[Row], most: usize) -> String {
    let left = |row: &Row| (row.weight * 10_000).checked_div(row.attainable).unwrap_or(10_000);
    let mut worst: Vec<&Row> = rows.iter().collect();
    worst.sort_by_key(|row| (left(row), row.height));
    let mut text = String::from(
        "| exam | epoch | height | available | attainable | margin | reaction | weight | \u{2030} | meanwhile |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in worst.into_iter().take(most) {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.kind,
            row.epoch,
            row.height,
            row.available,
            row.attainable,
            row.margin,
            row.reaction,
            row.weight,
            row.permille(),
            row.during.join(", ")
        ));
    }
    text
}

/// How many exams were lived through, undisturbed and disturbed, and how many came to less: than what was there as they began by
/// more than so many thousandths; than what could be had with what happened, beyond the owner's margin; and beyond what a
/// reaction takes.
pub fn below(rows: &[Row], tolerance_permille: u64) -> String {
    let mut text = format!(
        "| exams | | below what was there by more than {tolerance_permille} \u{2030} | below attainable beyond margin | and reaction | kept of what was there | of attainable |\n|---|---|---|---|---|---|---|\n",
    );
    let kinds = [
        ("undisturbed", 0..=0),
        ("one kind of happening", 1..=1),
        ("several kinds", 2..=usize::MAX),
    ];
    for (name, causes) in kinds {
        let rows: Vec<&Row> = rows.iter().filter(|row| causes.contains(&row.causes().len())).collect();
        let count = |is: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
        text.push_str(&format!(
            "| {name} | {} | {} | {} | {} | {} | {} |\n",
            rows.len(),
            count(&|row| row.permille() + tolerance_permille < 1000),
            count(&Row::is_beyond_margin),
            count(&Row::is_short),
            kept(&rows, |row| row.available),
            kept(&rows, |row| row.attainable),
        ));
    }
    text
}

/// The part of all weight that was kept.
fn kept(rows: &[&Row], of: fn(&Row) -> u64) -> String {
    let (whole, weight) = rows.iter().fold((0, 0), |(whole, weight), row| {
        (whole + of(row), weight + row.weight.min(of(row)))
    });
    let kept = (weight * 10_000).checked_div(whole).unwrap_or(10_000);
    format!("{}.{:02} %", kept / 100, kept % 100)
}

/// What each kind of happening, or pair of kinds, costs that came without others: exams, the worst of them and their mean in
/// thousandths of what could be had, and how many were short beyond margin and reaction. Pairs only where one was.
pub fn by_cause(rows: &[Row]) -> String {
    let mut causes: BTreeMap<(usize, String), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let kinds = row.causes();
        if kinds.len() <= 2 {
            let names: Vec<String> = kinds.into_iter().collect();
            let name = if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(" + ")
            };
            causes.entry((names.len(), name)).or_default().push(row);
        }
    }
    let mut text = String::from(
        "| alone in an exam or the two minutes before it | exams | worst \u{2030} of attainable | mean \u{2030} | short |\n|---|---|---|---|---|\n",
    );
    for ((kinds, cause), rows) in causes {
        let share = |row: &&Row| (row.weight * 1000).checked_div(row.attainable).unwrap_or(1000);
        let worst = rows.iter().map(share).min().unwrap_or_default();
        let mean = rows.iter().map(share).sum::<u64>() / (rows.len() as u64).max(1);
        let short = rows.iter().filter(|row| row.is_short()).count();
        if kinds < 2 || short > 0 {
            text.push_str(&format!("| {cause} | {} | {worst} | {mean} | {short} |\n", rows.len()));
        }
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
            margin: 30,
            reaction: 50 * during.len() as u64,
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
            table.contains("| Sprint | 1 | 4 | 1000 | 1000 | 30 | 100 | 100 | 100 |") && !table.contains("| 700 |"),
            "{table}"
        );
        let causes = by_cause(&rows);
        assert!(causes.contains("| n lost | 2 | 700 | 750 | 2 |"), "{causes}");
        assert!(causes.contains("| nothing | 1 | 990 | 990 | 0 |"), "{causes}");
        assert!(causes.contains("| n lost + rollout | 1 | 100 | 100 | 1 |"), "{causes}");
        let harmless = by_cause(&[row(1, 990, &["rollout", "pod dies"])]);
        assert!(!harmless.contains("rollout"), "{harmless}");
    }

    #[test]
    fn exams_that_fell_short_are_counted_apart_by_how_much_happened_in_them() {
        let mut halved = row(5, 500, &["n1 lost"]);
        halved.attainable = 500;
        let rows = [
            row(1, 990, &[]),
            row(2, 960, &[]),
            row(3, 930, &["rollout"]),
            row(4, 100, &["rollout", "pod dies"]),
            halved,
        ];
        let table = below(&rows, 20);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        let expected = [
            "| undisturbed | 2 | 1 | 1 | 1 | 97.50 % | 97.50 % |",
            "| one kind of happening | 2 | 2 | 1 | 0 | 71.50 % | 95.33 % |",
            "| several kinds | 1 | 1 | 1 | 1 | 10.00 % | 10.00 % |",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn nothing_is_lost_where_nothing_was_there() {
        let mut empty = row(1, 0, &[]);
        empty.available = 0;
        assert_eq!(empty.permille(), 1000);
    }
}
