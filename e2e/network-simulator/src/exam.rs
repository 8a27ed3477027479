//! One exam while it runs: its window on the chain and, per host, who was asked, what was delivered and what was
//! committed. Plain state with the rules that belong to it alone.

pub mod book;
pub mod window;

use crate::ledger::{StartRequest, Vote};
use book::Book;
use kernels::scheme::Round;
use std::collections::BTreeMap;
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
    /// Unix time of the block at which the exchange ended; 0 before.
    pub exchange_ended_ms: u64,
    pub stronger_rng: bool,
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
    pub preserved: Vec<String>,
    pub nodes: Vec<ExamNode>,
    /// Artifacts and commitments per model.
    pub books: BTreeMap<String, Book>,
    /// What the photo showed; nothing before it was taken.
    pub early: Option<u64>,
    /// Votes of others on this host that are in a block.
    pub votes: Vec<Vote>,
    /// Votes waiting for the next block, as (validator, value).
    pub votes_pending: Vec<(usize, i64)>,
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
        self.nodes.iter_mut().find(|node| node.node_num == node_num)
    }

    /// Adds a node, or renews what may change about it during an exam.
    pub fn upsert(&mut self, node: ExamNode) {
        match self.node_mut(node.node_num) {
            Some(known) => {
                known.node_id = node.node_id;
                known.model = node.model;
            }
            None => self.nodes.push(node),
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
