//! What the state machine is told and what it asks for. A driver turns the one into the other: in real time over
//! sockets ([`crate::driver`]), in virtual time within the process ([`crate::virtual_time`]).

use crate::{
    faults::Port,
    scenario::verb::{Arguments, Verb},
    truth::Unit,
};
use kernels::{
    nonces::Enumeration,
    scheme::{Artifact, Round},
    statistics::StatTest,
};
use serde_json::Value;
use std::{borrow::Cow, ops::Range, sync::Arc};

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
    /// What is physically there at the block that begins or announces an exam; only who simulates it knows.
    Surveyed {
        stage_height: i64,
        units: Vec<Unit>,
    },
    /// What is physically there from now on in the generation under way.
    Looked {
        units: Vec<Unit>,
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
    /// An exam begins or is announced at this height: whoever knows what is physically there may say so.
    Survey {
        stage_height: i64,
    },
    /// A verb is aimed at an ML node, by its id.
    Node(Box<Command>),
    /// What a verb did to an ML node ends.
    NodeUndo(Box<Command>),
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
    /// The request as a value, for who does not want to read path and body.
    pub request: Request,
    pub origin: Origin,
    pub host: String,
    pub port: u16,
    pub method: &'static str,
    pub path: String,
    pub body: Option<String>,
    pub timeout_ms: u64,
}

/// What a call asks of an ML node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Request {
    /// Something that the state machine does not ask.
    #[default]
    Other,
    State,
    PowStatus,
    Health,
    Models,
    /// Generate for this exam.
    Init(Start),
    PowStop,
    /// Unload.
    Stop,
    /// Load this model.
    Up(String),
    /// Recompute a sample and call back.
    Validate(Check),
}

/// A start request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub stage_height: i64,
    pub node_num: u32,
    pub node_count: u32,
    pub model: String,
}

/// A validation request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub stage_height: i64,
    /// The node that does it.
    pub node_num: u32,
    /// Whose artifacts they are.
    pub public_key: String,
    pub model: String,
    pub total: u32,
    /// What recomputing finds where artifacts are only counted.
    pub fraud: bool,
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
    pub body: Body,
}

/// The body of an answer: as it came, or as the value that it would be read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Bytes(Vec<u8>),
    Value(Arc<Value>),
}

impl Answer {
    pub fn bytes(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: Body::Bytes(body.into()),
        }
    }

    pub fn value(status: u16, body: Arc<Value>) -> Self {
        Self {
            status,
            body: Body::Value(body),
        }
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; anything else is null.
    pub fn json(&self) -> Cow<'_, Value> {
        match &self.body {
            Body::Bytes(bytes) => Cow::Owned(serde_json::from_slice(bytes).unwrap_or_default()),
            Body::Value(value) => Cow::Borrowed(value),
        }
    }

    /// The body as text, for people.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.body {
            Body::Bytes(bytes) => String::from_utf8_lossy(bytes),
            Body::Value(value) => Cow::Owned(value.to_string()),
        }
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
        enumeration: Enumeration,
        /// Places in the enumeration.
        places: Range<u64>,
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
    /// A sample of artifacts that are only counted: nothing to compute.
    Count {
        exam: u64,
        host: usize,
        model: String,
        total: u32,
        fraud: bool,
    },
}
