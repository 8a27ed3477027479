//! What a scenario expects of a finished run, judged against its ledger.

use crate::ledger;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

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

/// The part of a run that expectations are about, however long the run.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    wanted: BTreeSet<usize>,
    count: usize,
    kept: BTreeMap<usize, ledger::Exam>,
    last: Option<ledger::Exam>,
    /// Epoch and address of who claimed, where it matters.
    claimed: BTreeSet<(u64, String)>,
}

impl Findings {
    pub fn new(expect: &[Expectation]) -> Self {
        let wanted = expect.iter().filter_map(|expectation| match expectation.exam {
            ExamChoice::Number(number) => Some(number),
            ExamChoice::Named(Named::First) => Some(1),
            ExamChoice::Named(Named::Last) => None,
        });
        Self {
            wanted: wanted.collect(),
            ..Self::default()
        }
    }

    /// Of a run whose ledger is there as a whole.
    pub fn of(expect: &[Expectation], ledger: &ledger::Ledger) -> Self {
        let mut findings = Self::new(expect);
        ledger.exams.iter().for_each(|exam| findings.exam(exam.clone()));
        ledger.epochs.iter().for_each(|epoch| findings.epoch(epoch));
        findings
    }

    /// The next exam that ended.
    pub fn exam(&mut self, exam: ledger::Exam) {
        self.count += 1;
        if self.wanted.contains(&self.count) {
            self.kept.insert(self.count, exam.clone());
        }
        self.last = Some(exam);
    }

    /// An epoch that was paid, after its exams.
    pub fn epoch(&mut self, epoch: &ledger::Epoch) {
        let matters = self
            .kept
            .values()
            .chain(&self.last)
            .any(|exam| exam.epoch == epoch.index);
        let rewards = epoch
            .rewards
            .iter()
            .filter(|reward| matters && reward.claimed_height > 0);
        self.claimed
            .extend(rewards.map(|reward| (epoch.index, reward.address.clone())));
    }

    fn choose(&self, choice: ExamChoice) -> Option<&ledger::Exam> {
        match choice {
            ExamChoice::Number(number) => self.kept.get(&number),
            ExamChoice::Named(Named::First) => self.kept.get(&1),
            ExamChoice::Named(Named::Last) => self.last.as_ref(),
        }
    }
}

impl Expectation {
    /// One line per thing expected: whether it holds and what was found.
    pub fn judge(
        &self,
        findings: &Findings,
        addresses: &[(String, String)],
        threshold_bps: u64,
    ) -> Vec<(bool, String)> {
        let title = format!("exam {:?} host {}", self.exam, self.host);
        let Some(exam) = findings.choose(self.exam) else {
            return vec![(
                false,
                format!("{title}: the ledger has {} exams, none like this", findings.count),
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
        let claimed = findings.claimed.contains(&(exam.epoch, host.address.clone()));
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
