//! What the state machine is told and what it asks for. A driver turns the one into the other: in real time over
//! sockets ([`crate::driver`]), later in virtual time in one process.

use crate::{
    faults::Port,
    scenario::verb::{Arguments, Verb},
};
use kernels::{
    scheme::{Artifact, Round},
    statistics::StatTest,
};

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The chain's clock is due for a block.
    Block,
    Timer(Timer),
    /// An ML node answered a call, or did not.
    Reply {
        to: Origin,
        result: Result<Answer, String>,
    },
    /// A simulated host's node finished a batch.
    Produced {
        exam: u64,
        host: usize,
        node: usize,
        artifacts: Vec<Artifact>,
    },
    /// A sample was recomputed.
    Judged {
        exam: u64,
        host: usize,
        model: String,
        total: u32,
        fraud: bool,
    },
}

/// A wait that is over.
#[derive(Debug, Clone, PartialEq)]
pub enum Timer {
    /// DAPI's commit interval.
    Commit {
        exam: u64,
    },
    /// Simulated hosts deliver.
    Produce {
        exam: u64,
    },
    /// Validation requests go out or are tried again.
    Dispatch {
        exam: u64,
    },
    Command(Box<Command>),
    /// A block out of its turn.
    Block,
    /// A fault of limited duration ends.
    Undo(Box<Command>),
}

/// A verb with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub verb: Verb,
    pub arguments: Arguments,
}

/// Something is to be done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Tell the machine about a timer so many milliseconds from now.
    After {
        ms: u64,
        timer: Timer,
    },
    Call(Call),
    Compute(Work),
    /// Open or close a listening socket.
    Listen {
        port: Port,
        open: bool,
    },
    /// Write the ledger.
    Save,
    /// The scenario is over.
    Finish,
}

/// An HTTP request of the DAPI to an ML node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub origin: Origin,
    pub host: String,
    pub port: u16,
    pub method: &'static str,
    pub path: String,
    pub body: Option<String>,
    pub timeout_ms: u64,
}

/// Whom an answer belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A job of a node; answers to an older job are stale.
    Job { node_id: String, job: u64 },
    /// Recomputation of a host's sample of one model.
    Validation { exam: u64, subject: usize, model: String },
}

/// An ML node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; anything else is null.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Proof of compute to be done here.
#[derive(Debug, Clone)]
pub enum Work {
    Generate {
        exam: u64,
        host: usize,
        node: usize,
        model: String,
        round: Round,
        nonces: Vec<i64>,
        random: bool,
    },
    Judge {
        exam: u64,
        host: usize,
        model: String,
        round: Round,
        sample: Vec<Artifact>,
        test: StatTest,
    },
}
