//! What is known of one exam of one host, as one plain serialisable value: box 2's output, box 3's only input.

use std::collections::{BTreeMap, BTreeSet};

use crds::SprintRun;
use crds::sprint_run::GateVerdict;
use serde::{Deserialize, Serialize};

use super::answers::{Ballot, Commit};
use super::examined::{Examined, Phase};
use crate::gonka_host::observed::Reading;

/// One snapshot.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Observed {
    /// Unix milliseconds when this was read.
    pub now_ms: i64,
    /// The host.
    pub host: HostView,
    /// The exam.
    pub exam: Examined,
    /// How far it is.
    pub phase: Phase,
    /// Claims of its epoch are open, so whatever was settled shows.
    pub claims_open: bool,
    /// The record as the API server has it; absent when there is none or nobody knows.
    pub run: Option<SprintRun>,
    /// What only a watcher knows.
    pub watched: Watched,
    /// What the chain and DAPI say.
    pub evidence: Evidence,
    /// The newest sealed Sprint of this host that earned something.
    pub reference: Option<Reference>,
}

/// The host as its record needs it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HostView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Account.
    pub address: String,
}

/// What only somebody who watched the exam knows. Kept in memory and on disk, never asked for again.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Watched {
    /// Verdicts that were taken.
    pub gates: Vec<GateVerdict>,
    /// Slots as they were when the exam began.
    pub slots: Vec<Expectation>,
    /// Time of the start block, Unix milliseconds; 0 = not known.
    pub start_ms: i64,
    /// Mean time between blocks at the start, milliseconds; 0 = not known.
    pub block_millis: f64,
    /// `margins.firstNonceSeconds`, milliseconds.
    pub first_nonce_millis: i64,
    /// Rounds by DAPI node id, one per pod that worked on it.
    pub rounds: BTreeMap<String, Vec<Round>>,
    /// Takeovers during the exam.
    pub takeovers: Vec<Moved>,
    /// Commits at the photo by account, all models; empty when nobody took it.
    pub early: BTreeMap<String, i64>,
    /// The setup report said that fees cannot be paid.
    pub fees_unpayable: bool,
}

/// A slot as it was when the exam began.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Expectation {
    /// DAPI node id.
    pub node_id: String,
    /// Index.
    pub slot: i32,
    /// Machine; empty when none.
    pub node_name: String,
    /// Pod that held it at the start; empty when none.
    pub pod_uid: String,
    /// Rehearsed or learned rate; absent when none is known.
    pub nonces_per_minute: Option<i64>,
    /// The first with a new revision: the record shows it whatever it lost.
    pub canary: bool,
    /// At some moment fewer engines were up than expected.
    pub engines_missing: bool,
    /// The operator door did not answer at the end of generation.
    pub disconnected: bool,
    /// What held clocks of its machine's GPUs back at some moment of generation, for people.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub held_back: BTreeSet<String>,
}

/// What one pod did in the exam.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Round {
    /// Unix milliseconds.
    pub started_ms: i64,
    /// Unix milliseconds; 0 = none.
    pub first_nonce_ms: i64,
    /// Unix milliseconds; 0 = none.
    pub first_callback_ms: i64,
    /// Nonces computed before generation ended, as far as the slot knew its end.
    pub generated: u64,
    /// Nonces DAPI took.
    pub accepted: u64,
    /// It ended by a failure.
    pub failed: bool,
}

/// A slot that moved.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Moved {
    /// DAPI node id.
    pub node_id: String,
    /// Index.
    pub slot: i32,
    /// Pod it left; empty when none held it.
    pub from_pod: String,
    /// Pod it went to.
    pub to_pod: String,
    /// Generation of the assignment.
    pub generation: i64,
    /// Decision, Unix milliseconds.
    pub decided_ms: i64,
    /// The new pod took it, Unix milliseconds; absent while it has not.
    pub promoted_ms: Option<i64>,
}

/// What the chain and DAPI say. A reading that nobody tried is empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Evidence {
    /// Last commits of all hosts.
    pub commits: Reading<Vec<Commit>>,
    /// Our artifacts by DAPI node id.
    pub distribution: Reading<BTreeMap<String, i64>>,
    /// Voting power by account.
    pub powers: Reading<BTreeMap<String, i64>>,
    /// Votes on us.
    pub ballot: Reading<Ballot>,
    /// Artifacts DAPI accepted, all models; absent when it knows nothing of the exam.
    pub accepted: Reading<Option<i64>>,
    /// Our weight in the epoch; absent before weights are formed.
    pub weight: Reading<Option<i64>>,
    /// The worst confirmation of the epoch, basis points; absent while there was none below all of it.
    pub confirmation_ratio: Reading<Option<i32>>,
    /// Reward of the epoch, ngonka; absent while it is not settled.
    pub reward: Reading<Option<u64>>,
}

/// What a committed nonce was worth before.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Reference {
    /// Reward, ngonka.
    pub reward: u64,
    /// Nonces committed for it.
    pub committed: i64,
}

impl Evidence {
    /// What could not be read, for people.
    pub fn failures(&self) -> Vec<&str> {
        [
            &self.commits.failure,
            &self.distribution.failure,
            &self.powers.failure,
            &self.ballot.failure,
            &self.accepted.failure,
            &self.weight.failure,
            &self.confirmation_ratio.failure,
            &self.reward.failure,
        ]
        .into_iter()
        .filter(|failure| !failure.is_empty())
        .map(String::as_str)
        .collect()
    }
}
