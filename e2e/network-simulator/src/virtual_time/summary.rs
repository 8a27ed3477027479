//! What a run came to, host by host, added up while it goes on: the table that `run` prints.

use crate::ledger;
use std::{collections::BTreeMap, fmt::Write as _};

/// Most hosts in the table.
const MOST_ROWS: usize = 12;
const NGONKA: u128 = 1_000_000_000;

/// A host's exams added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub exams: u64,
    /// The lowest yield of an exam, in basis points.
    pub worst_bp: Option<u128>,
    pub weight: u128,
    pub available: u128,
    /// What preserved nodes carried: part of the weight that no exam could bring.
    pub carried: u128,
    pub lost_ngonka: u128,
    pub reward_ngonka: u128,
}

impl Row {
    /// Weight brought by exams over what was there, in basis points.
    pub fn yield_bp(&self) -> Option<u128> {
        yield_bp(self.weight, self.carried, self.available)
    }
}

/// Nothing where nothing was there.
fn yield_bp(weight: u128, carried: u128, available: u128) -> Option<u128> {
    (weight.saturating_sub(carried) * 10_000).checked_div(available)
}

fn percent(bp: Option<u128>) -> String {
    bp.map_or_else(|| "-".to_owned(), |bp| format!("{}.{:02}%", bp / 100, bp % 100))
}

/// All hosts.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// By address.
    rows: BTreeMap<String, Row>,
    /// Addresses in the scenario's order, ours first or wherever it stands there.
    order: Vec<String>,
    pub exams: u64,
    pub epochs: u64,
}

impl Summary {
    pub fn exam(&mut self, exam: &ledger::Exam) {
        self.exams += 1;
        for host in &exam.hosts {
            if !self.rows.contains_key(&host.address) {
                self.order.push(host.address.clone());
            }
            let row = self.rows.entry(host.address.clone()).or_default();
            let carried: u64 = host.nodes.iter().map(|node| node.carried_weight).sum();
            row.name.clone_from(&host.name);
            row.exams += 1;
            let available = u128::from(host.physically_available_weight);
            let now_bp = yield_bp(host.weight.into(), carried.into(), available);
            row.worst_bp = row.worst_bp.into_iter().chain(now_bp).min();
            row.weight += u128::from(host.weight);
            row.available += available;
            row.carried += u128::from(carried);
            row.lost_ngonka += host.lost_ngonka.parse::<u128>().unwrap_or_default();
        }
    }

    pub fn epoch(&mut self, epoch: &ledger::Epoch) {
        self.epochs += 1;
        for reward in epoch.rewards.iter().filter(|reward| reward.claimed_height > 0) {
            let row = self.rows.entry(reward.address.clone()).or_default();
            row.reward_ngonka += reward.ngonka.parse::<u128>().unwrap_or_default();
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.order.iter().filter_map(|address| self.rows.get(address))
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<16} {:>6} {:>14} {:>14} {:>8} {:>8} {:>12} {:>14}\n",
            "host", "exams", "weight", "available", "yield", "worst", "lost GNK", "claimed GNK"
        );
        for row in self.rows().take(MOST_ROWS) {
            let _ = writeln!(
                text,
                "{:<16} {:>6} {:>14} {:>14} {:>8} {:>8} {:>12} {:>14}",
                row.name,
                row.exams,
                row.weight,
                row.available,
                percent(row.yield_bp()),
                percent(row.worst_bp),
                row.lost_ngonka / NGONKA,
                row.reward_ngonka / NGONKA,
            );
        }
        let more = self.order.len().saturating_sub(MOST_ROWS);
        if more > 0 {
            let _ = writeln!(text, "and {more} more in {}", super::history::LEDGER);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_is_no_yield_and_nothing_to_have_is_none() {
        assert_eq!(yield_bp(150, 50, 200), Some(5000));
        assert_eq!(yield_bp(50, 50, 0), None);
        assert_eq!(
            (percent(Some(9436)), percent(None)),
            ("94.36%".to_owned(), "-".to_owned())
        );
    }
}
