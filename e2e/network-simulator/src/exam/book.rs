//! One host's artifacts of one model in one exam, and the commitments to them.
//!
//! A commitment covers a prefix of the accepted artifacts. It is submitted at DAPI's commit interval and counts from
//! the block that takes it; what was accepted after the last one that got into a block is the tail, and lost.
//!
//! In real time the artifacts are there ([`listed`]); in virtual time there is only their number ([`counted`]).

pub mod counted;
pub mod listed;

use crate::ledger::{ArtifactLine, Commit};
use counted::{Batch, Counted};
use listed::{Accepted, Listed};
use std::collections::BTreeMap;

/// Accepted and committed artifacts per node number.
pub type Counts = BTreeMap<u32, (u64, u64)>;

/// How artifacts come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// They are computed and recomputed.
    #[default]
    Computed,
    /// They are counted: a slot has a rate.
    Counted,
}

/// What a host has delivered of a model.
#[derive(Debug, Clone)]
pub enum Book {
    Listed(Listed),
    Counted(Counted),
}

impl Default for Book {
    fn default() -> Self {
        Self::Listed(Listed::default())
    }
}

impl Book {
    pub fn new(proof: Proof) -> Self {
        match proof {
            Proof::Computed => Self::default(),
            Proof::Counted => Self::Counted(Counted::default()),
        }
    }

    /// Takes an artifact; a nonce counts once. A counting book has no place for one.
    pub fn accept(&mut self, nonce: i32, node_num: u32, vector: Vec<u8>, height: i64) -> bool {
        match self {
            Self::Listed(book) => book.accept(nonce, node_num, vector, height),
            Self::Counted(_) => false,
        }
    }

    /// Takes a stretch of a node's nonces, says how many were new. A listing book has no place for it.
    pub fn count(&mut self, batch: &Batch) -> u64 {
        match self {
            Self::Listed(_) => 0,
            Self::Counted(book) => book.count(batch),
        }
    }

    /// Sends a commitment to everything accepted so far, unless the last one already covers it.
    pub fn submit(&mut self) {
        match self {
            Self::Listed(book) => book.submit(),
            Self::Counted(book) => book.submit(),
        }
    }

    /// The block at `height` takes what is on its way.
    pub fn include(&mut self, model: &str, height: i64) {
        match self {
            Self::Listed(book) => book.include(model, height),
            Self::Counted(book) => book.include(model, height),
        }
    }

    /// A commitment that arrives outside its window is refused and gone.
    pub fn drop_pending(&mut self) {
        match self {
            Self::Listed(book) => book.drop_pending(),
            Self::Counted(book) => book.drop_pending(),
        }
    }

    pub fn commits(&self) -> &[Commit] {
        match self {
            Self::Listed(book) => book.commits(),
            Self::Counted(book) => book.commits(),
        }
    }

    /// Count of the last commitment in a block.
    pub fn committed(&self) -> u64 {
        self.commits().last().map_or(0, |commit| u64::from(commit.count))
    }

    /// Count of everything accepted, committed or not.
    pub fn accepted(&self) -> u64 {
        match self {
            Self::Listed(book) => book.accepted().len() as u64,
            Self::Counted(book) => book.accepted(),
        }
    }

    /// Accepted artifacts of a node.
    pub fn delivered(&self, node_num: u32) -> u64 {
        match self {
            Self::Listed(book) => book.delivered(node_num),
            Self::Counted(book) => book.delivered(node_num),
        }
    }

    /// Count and root of everything accepted, committed or not.
    pub fn state(&self) -> (u32, [u8; 32]) {
        match self {
            Self::Listed(book) => book.state(),
            Self::Counted(book) => book.state(),
        }
    }

    /// Committed artifacts by nonce: what validators draw their samples from. Nothing where they are only counted.
    pub fn committed_by_nonce(&self) -> Vec<&Accepted> {
        match self {
            Self::Listed(book) => book.committed_by_nonce(),
            Self::Counted(_) => Vec::new(),
        }
    }

    /// Accepted and committed per node number.
    pub fn counts(&self) -> Counts {
        match self {
            Self::Listed(book) => book.counts(),
            Self::Counted(book) => book.counts(),
        }
    }

    /// As the ledger's artifacts file has them.
    pub fn lines(&self) -> Vec<ArtifactLine> {
        match self {
            Self::Listed(book) => book.lines().collect(),
            Self::Counted(_) => Vec::new(),
        }
    }
}
