//! The DAPI of the external host: what it remembers, in memory and on disk. Its behaviour, part by part:
//!
//! | module | what |
//! |---|---|
//! | [`nodes`] | the registry of ML nodes behind the admin API |
//! | [`broker`] | which node should do what now |
//! | [`job`] | how one node is brought there, request by request |
//! | [`callbacks`] | what ML nodes deliver |
//! | [`validation`] | having others' artifacts recomputed |
//! | [`claims`] | seeds and rewards |

pub mod broker;
pub mod callbacks;
pub mod claims;
pub mod job;
pub mod nodes;
pub mod reply;
pub mod validation;

use crate::scenario::Scenario;
use job::Job;
use nodes::NodeSpec;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use strum::Display;

/// Block time that DAPI's own timings are made for.
const REAL_BLOCK_MS: u64 = 5310;

/// How often DAPI does things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub commit_interval_ms: u64,
    /// A node without a status change for so long is asked for its status.
    pub idle_poll_ms: u64,
    /// Between attempts to have a sample validated.
    pub retry_ms: u64,
    pub request_timeout_ms: u64,
}

impl Timing {
    /// The real timings scaled by the block time, but for those the scenario gives. A request may take as long as it
    /// really may: five seconds.
    pub fn of(scenario: &Scenario) -> Self {
        let scaled = |real_ms: u64| (real_ms * scenario.network.block_millis / REAL_BLOCK_MS).max(10);
        let dapi = &scenario.dapi;
        Self {
            commit_interval_ms: dapi.commit_interval_millis.unwrap_or_else(|| scaled(5000)),
            idle_poll_ms: dapi.idle_poll_millis.unwrap_or_else(|| scaled(60_000)),
            retry_ms: dapi.retry_millis.unwrap_or_else(|| scaled(5000)),
            request_timeout_ms: dapi.request_timeout_millis.unwrap_or(5000),
        }
    }
}

/// What a node is doing, in DAPI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "UPPERCASE")]
pub enum Status {
    Unknown,
    Inference,
    Poc,
    Stopped,
    Failed,
}

impl Status {
    /// The chain's number for it; `reconcile_info` shows numbers where everything else shows names.
    pub fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Inference => 1,
            Self::Poc => 2,
            Self::Stopped => 4,
            Self::Failed => 5,
        }
    }
}

/// What a node is doing within the proof of compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "UPPERCASE")]
pub enum PocStatus {
    Idle,
    Generating,
    Validating,
}

/// Whether people want the node to work, and since which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AdminState {
    pub enabled: bool,
    pub epoch: u64,
}

/// A registered ML node.
#[derive(Debug, Clone)]
pub struct Node {
    pub spec: NodeSpec,
    pub node_num: u32,
    pub intended: (Status, PocStatus),
    pub current: (Status, PocStatus),
    pub failure_reason: String,
    pub status_ms: u64,
    pub admin: AdminState,
    pub version: String,
    pub poc_validation_inference: bool,
    pub job: Option<Job>,
}

impl Node {
    /// Notes what the node does now.
    pub fn set_current(&mut self, current: (Status, PocStatus), now_ms: u64) {
        self.current = current;
        self.status_ms = now_ms;
        if current.0 != Status::Failed {
            self.failure_reason.clear();
        }
    }

    pub fn fail(&mut self, reason: String, now_ms: u64) {
        self.set_current((Status::Failed, PocStatus::Idle), now_ms);
        self.failure_reason = reason;
    }

    pub fn is_generating(&self) -> bool {
        self.current == (Status::Poc, PocStatus::Generating)
    }

    /// One model per node: the alphabetically first, as DAPI takes it for a fresh node.
    pub fn model(&self) -> Option<&String> {
        self.spec.models.keys().next()
    }
}

/// A host's secret for one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    pub seed: i64,
    pub signature: String,
    pub claimed: bool,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Dapi {
    pub timing: Timing,
    /// Start of the callback URLs given to ML nodes.
    pub callback_base: String,
    pub public_url: String,
    /// Without it every transaction is refused, and only the setup report shows it.
    pub feegrant: bool,
    pub up: bool,
    /// In order of registration, which is that of their numbers.
    pub nodes: Vec<Node>,
    /// Where each id is in `nodes`.
    places: BTreeMap<String, usize>,
    /// Highest node number given since DAPI started.
    pub highest_num: u32,
    pub jobs: u64,
    /// On disk, by epoch.
    pub seeds: BTreeMap<u64, Seed>,
    /// Nodes and versions once seen alive; never asked again.
    pub seen_alive: BTreeSet<(String, String)>,
    pub validation: validation::Progress,
    /// Nodes left on inference, as DAPI last read them off the chain.
    pub preserved: Vec<String>,
}

impl Dapi {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            timing: Timing::of(scenario),
            callback_base: scenario.dapi.callback_url.clone().unwrap_or_default(),
            public_url: scenario.dapi.public_url.clone().unwrap_or_default(),
            feegrant: scenario.dapi.feegrant.unwrap_or(true),
            up: true,
            nodes: Vec::new(),
            places: BTreeMap::new(),
            highest_num: 0,
            jobs: 0,
            seeds: BTreeMap::new(),
            seen_alive: BTreeSet::new(),
            validation: validation::Progress::default(),
            preserved: Vec::new(),
        }
    }

    /// Where a node is in the list.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(self.place(id)?)
    }

    pub fn node_mut(&mut self, id: &str) -> Option<&mut Node> {
        let place = self.place(id)?;
        self.nodes.get_mut(place)
    }

    /// The node that has a number.
    pub fn numbered(&self, node_num: i64) -> Option<&Node> {
        let place = self.nodes.binary_search_by_key(&node_num, |node| node.node_num.into());
        self.nodes.get(place.ok()?)
    }

    /// Registers a node under the next number.
    fn add(&mut self, node: Node) {
        self.places.insert(node.spec.id.clone(), self.nodes.len());
        self.nodes.push(node);
    }

    /// Whether there was such a node.
    fn remove(&mut self, id: &str) -> bool {
        let Some(place) = self.places.remove(id) else {
            return false;
        };
        self.nodes.remove(place);
        for later in self.places.values_mut().filter(|later| **later > place) {
            *later -= 1;
        }
        true
    }

    /// In start requests: the highest number ever given, plus one.
    pub fn node_count(&self) -> u32 {
        self.highest_num + 1
    }

    /// Whether transactions reach the chain.
    pub fn can_transact(&self) -> bool {
        self.up && self.feegrant
    }

    /// A stop of the process: what is in memory is gone, what is on disk is read again. Nodes get numbers anew in their
    /// order on disk, and whoever was disabled is enabled.
    pub fn restart(&mut self, now_ms: u64) {
        self.seen_alive.clear();
        self.preserved.clear();
        self.validation = validation::Progress::default();
        self.highest_num = 0;
        for node in &mut self.nodes {
            self.highest_num += 1;
            node.node_num = self.highest_num;
            node.admin = AdminState {
                enabled: true,
                epoch: 0,
            };
            node.job = None;
            node.set_current((Status::Unknown, PocStatus::Idle), now_ms);
        }
    }

    /// The disk is gone too: nodes and seeds.
    pub fn lose_database(&mut self) {
        self.nodes.clear();
        self.places.clear();
        self.highest_num = 0;
        self.seeds.clear();
    }
}
