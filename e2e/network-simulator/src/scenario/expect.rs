//! What a scenario expects of a finished run, judged against its ledger.

use crate::ledger;
use serde::Deserialize;

/// One expectation about one host in one exam.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expectation {
    pub exam: ExamChoice,
    pub host: String,
    /// Committed at least so many basis points of what was accepted.
    pub committed_at_least_bp: Option<u64>,
    pub accepted_at_least: Option<u64>,
    pub weight_at_least: Option<u64>,
    pub ratio_at_least_bp: Option<u64>,
    pub verdict: Option<Verdict>,
    pub claimed: Option<bool>,
}

/// Which exam: the first, the last, or by its place (from 1) in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum ExamChoice {
    Number(usize),
    Named(Named),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Named {
    First,
    Last,
}

/// How the network's votes decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, strum::Display)]
pub enum Verdict {
    Accepted,
    Rejected,
    Undecided,
}

impl Expectation {
    /// One line per thing expected: whether it holds and what was found.
    pub fn judge(
        &self,
        ledger: &ledger::Ledger,
        addresses: &[(String, String)],
        threshold_bps: u64,
    ) -> Vec<(bool, String)> {
        let title = format!("exam {:?} host {}", self.exam, self.host);
        let index = match self.exam {
            ExamChoice::Number(number) => number.checked_sub(1),
            ExamChoice::Named(Named::First) => Some(0),
            ExamChoice::Named(Named::Last) => ledger.exams.len().checked_sub(1),
        };
        let Some(exam) = index.and_then(|index| ledger.exams.get(index)) else {
            return vec![(
                false,
                format!("{title}: the ledger has {} exams, none like this", ledger.exams.len()),
            )];
        };
        let address = addresses
            .iter()
            .find(|(name, _)| *name == self.host)
            .map(|(_, address)| address);
        let Some(host) = exam.hosts.iter().find(|host| Some(&host.address) == address) else {
            return vec![(false, format!("{title}: the host is not in this exam"))];
        };
        let accepted: u64 = host.nodes.iter().map(|node| node.accepted).sum();
        let committed: u64 = host.nodes.iter().map(|node| node.committed).sum();
        let share = (committed * 10_000).checked_div(accepted).unwrap_or(0);
        let at_least = |name: &str, found: u64, wanted: Option<u64>| {
            wanted.map(|wanted| {
                (
                    found >= wanted,
                    format!("{title}: {name} {found}, expected at least {wanted}"),
                )
            })
        };
        let verdict = exam.verdict(host, threshold_bps);
        let claimed = ledger
            .epochs
            .iter()
            .filter(|epoch| epoch.index == exam.epoch)
            .flat_map(|epoch| &epoch.rewards)
            .any(|reward| reward.address == host.address && reward.claimed_height > 0);
        [
            at_least("committed share in bp", share, self.committed_at_least_bp),
            at_least("accepted", accepted, self.accepted_at_least),
            at_least("weight", host.weight, self.weight_at_least),
            at_least("ratio in bp", host.ratio_bp, self.ratio_at_least_bp),
            self.verdict
                .map(|wanted| (verdict == wanted, format!("{title}: {verdict}, expected {wanted}"))),
            self.claimed.map(|wanted| {
                (
                    claimed == wanted,
                    format!("{title}: claimed is {claimed}, expected {wanted}"),
                )
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
