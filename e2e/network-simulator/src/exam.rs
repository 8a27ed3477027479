//! One exam while it runs: its window on the chain and, per host, who was asked, what was delivered and what was
//! committed. Plain state with the rules that belong to it alone.

pub mod ballot;
pub mod book;
pub mod window;

use crate::ledger::StartRequest;
use ballot::Ballot;
use book::{Book, Proof};
use kernels::scheme::Round;
use std::collections::{BTreeMap, BTreeSet};
use window::Window;

/// One Sprint or confirmation.
#[derive(Debug, Clone)]
pub struct Exam {
    /// Counts exams of this run from 1.
    pub id: u64,
    pub epoch: u64,
    pub window: Window,
    /// Block hash, upper case in a Sprint and lower case in a confirmation.
    pub seed: String,
    /// Unix time of the block at which generation started.
    pub started_ms: u64,
    /// When DAPI asked the first of our nodes to start, Unix time; nothing before.
    pub asked_ms: Option<u64>,
    /// Unix time of the block at which generation ended; 0 before.
    pub generation_ended_ms: u64,
    /// Unix time of the block at which the exchange ended; 0 before.
    pub exchange_ended_ms: u64,
    pub stronger_rng: bool,
    pub proof: Proof,
    /// One per host, in the network's order.
    pub entries: Vec<Entry>,
    /// Voting power per host, frozen at validation start; empty before.
    pub powers: Vec<u64>,
    pub snapshot_hash: String,
}

/// One host's part in an exam.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Node ids left on inference.
    pub preserved: BTreeSet<String>,
    /// In order of their numbers.
    pub nodes: Vec<ExamNode>,
    /// Artifacts and commitments per model.
    pub books: BTreeMap<String, Book>,
    /// Models whose weight distribution was sent and refused: nobody paid.
    pub undistributed: BTreeSet<String>,
    /// What the photo showed; nothing before it was taken.
    pub early: Option<u64>,
    /// Votes of others on this host.
    pub ballot: Ballot,
    /// What recomputing this host's sample gave, per model.
    pub judged: BTreeMap<String, Judgement>,
}

/// A node as this exam sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExamNode {
    pub node_id: String,
    pub node_num: u32,
    pub node_count: u32,
    pub model: String,
    pub requests: Vec<StartRequest>,
    pub first_callback_ms: Option<u64>,
    /// Count carried over from the epoch before by a preserved node.
    pub carried: u64,
    /// Nonces in 1000 seconds of a simulated host's node in this exam.
    pub rate_milli: u64,
}

impl ExamNode {
    /// A node that has done nothing yet.
    pub fn new(node_id: String, node_num: u32, node_count: u32, model: String) -> Self {
        Self {
            node_id,
            node_num,
            node_count,
            model,
            requests: Vec::new(),
            first_callback_ms: None,
            carried: 0,
            rate_milli: 0,
        }
    }
}

/// Outcome of recomputing a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    pub total: u32,
    pub fraud: bool,
}

impl Exam {
    /// What the nonces of one host and model have in common.
    pub fn round(&self, public_key: &str, seq_len: usize, k_dim: usize) -> Round {
        Round {
            block_hash: self.seed.clone(),
            public_key: public_key.to_owned(),
            seq_len,
            k_dim,
            stronger_rng: self.stronger_rng,
        }
    }

    /// Milliseconds since the block at which generation started.
    pub fn since_start(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.started_ms)
    }

    pub fn total_power(&self) -> u64 {
        self.powers.iter().sum()
    }
}

impl Entry {
    /// All artifacts of the last commits.
    pub fn committed(&self) -> u64 {
        self.books.values().map(Book::committed).sum()
    }

    /// The node with this number, for whatever is to be noted about it.
    pub fn node_mut(&mut self, node_num: u32) -> Option<&mut ExamNode> {
        let place = self.nodes.binary_search_by_key(&node_num, |node| node.node_num).ok()?;
        self.nodes.get_mut(place)
    }

    /// Adds a node, or renews what may change about it during an exam.
    pub fn upsert(&mut self, node: ExamNode) {
        match self.nodes.binary_search_by_key(&node.node_num, |known| known.node_num) {
            Ok(place) => {
                self.nodes[place].node_id = node.node_id;
                self.nodes[place].model = node.model;
            }
            Err(place) => self.nodes.insert(place, node),
        }
    }

    /// Whether everything that was committed has been recomputed.
    pub fn is_judged(&self) -> bool {
        self.books
            .iter()
            .filter(|(_, book)| book.committed() > 0)
            .all(|(model, _)| self.judged.contains_key(model))
    }
}
