//! What every exam came to, against what was physically there.

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
