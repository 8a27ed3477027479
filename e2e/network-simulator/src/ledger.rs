//! What a run leaves behind: `ledger.json` and one artifacts file per host and exam. The verifier's README is the
//! contract for the meaning of every field. Plain data; [`files`] writes it.

pub mod files;

use crate::scenario::expect::Verdict;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The whole record.
#[derive(Debug, Clone, Serialize)]
pub struct Ledger {
    pub version: u32,
    pub seed: u64,
    pub chain_id: String,
    pub network_version: String,
    pub physical: Physical,
    pub parameters: Value,
    pub models: BTreeMap<String, Model>,
    pub exams: Vec<Exam>,
    pub epochs: Vec<Epoch>,
    pub external_requests: Vec<ExternalRequest>,
    /// Requests that came after the list was full.
    pub external_requests_left_out: u64,
}

/// What `physically_available_weight` means in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Physical {
    /// Real time: weight of what was delivered in time, had all of it been committed. Machines are outside, and what they
    /// could have done is not known here.
    Delivered,
    /// Virtual time: weight of what the machines could have generated that were healthy, loaded and reachable at the block
    /// that began or announced the exam, no more of them than there were slots.
    Capacity,
}

#[derive(Debug, Clone, Serialize)]
pub struct Model {
    pub recipe: &'static str,
    pub tag: String,
    pub seq_len: usize,
    pub k_dim: usize,
    pub dtype: String,
    pub stat_test: StatTest,
    pub weight_scale_factor: Value,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct StatTest {
    pub dist_threshold: f64,
    pub p_mismatch: f64,
    pub fraud_threshold: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Exam {
    pub kind: &'static str,
    pub epoch: u64,
    pub start_height: i64,
    pub trigger_height: i64,
    pub seed: String,
    pub photo_height: i64,
    pub stronger_rng: bool,
    pub time_norm_bp: u64,
    pub total_voting_power: u64,
    /// What a nonce of each model weighs, where coefficients move.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weight_scales: BTreeMap<String, Value>,
    pub hosts: Vec<Host>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Host {
    pub name: String,
    pub address: String,
    pub public_key: String,
    pub preserved: Vec<String>,
    pub nodes: Vec<Node>,
    pub commits: Vec<Commit>,
    pub early_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_median_ratio_bp: Option<u64>,
    pub artifacts_file: String,
    pub votes: Vec<Vote>,
    pub voting_power: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_weight: Option<u64>,
    pub ratio_bp: u64,
    pub weight: u64,
    /// What its nodes' would have come to; see [`Physical`].
    pub physically_available_weight: u64,
    /// The same with what happened during generation ([`crate::truth::attainable`]); where that is not known, the same.
    pub attainable_weight: u64,
    pub lost_ngonka: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Node {
    pub node_id: String,
    pub node_num: u32,
    pub node_count: u32,
    pub model: String,
    pub requests: Vec<StartRequest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_callback_ms: Option<u64>,
    pub accepted: u64,
    pub committed: u64,
    pub carried_weight: u64,
    /// See [`Physical`].
    pub physically_available_weight: u64,
}

/// One `init/generate`: milliseconds after the block of the seed, and the answer's status (0: none came).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StartRequest {
    pub t_ms: u64,
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commit {
    pub height: i64,
    pub model: String,
    pub count: u32,
    pub root: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vote {
    pub validator: String,
    pub value: i64,
    pub power: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Epoch {
    pub index: u64,
    pub settled_height: i64,
    pub total_ngonka: String,
    pub total_weight: u64,
    pub rewards: Vec<Reward>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Reward {
    pub address: String,
    pub ngonka: String,
    pub weight: u64,
    pub claimed_height: i64,
}

/// A request from outside to one of the DAPI's ports.
#[derive(Debug, Clone, Serialize)]
pub struct ExternalRequest {
    pub t_ms: u64,
    pub height: i64,
    pub port: u16,
    pub method: String,
    pub path: String,
    pub caller: String,
    pub body_sha256: String,
}

/// One line of an artifacts file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArtifactLine {
    pub nonce: i32,
    pub node_num: u32,
    pub vector_b64: String,
    pub height: i64,
    pub in_commit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_height: Option<i64>,
}

impl Exam {
    /// How the votes on a host decide, by the chain's threshold of all voting power.
    pub fn verdict(&self, host: &Host, threshold_bps: u64) -> Verdict {
        let power = |valid: bool| -> u64 {
            host.votes
                .iter()
                .filter(|vote| (vote.value > 0) == valid)
                .map(|vote| vote.power)
                .sum()
        };
        crate::votes::decide(power(true), power(false), self.total_voting_power, threshold_bps)
    }
}
