//! What a decision asks for: values that [`super::super::apply`] carries out in order.

use std::collections::BTreeMap;

use crate::change::Change;
use crate::gate::{ActionKind, Verdict};
use crate::model_deployment::observed::Start;

/// Everything one pass wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// One ordered list per slot; lists do not depend on one another. They come first: they are what an exam waits for.
    pub slots: Vec<SlotSteps>,
    /// Writes, in order.
    pub changes: Vec<Change>,
    /// Rehearsals to start; nobody waits for them.
    pub rehearsals: Vec<Rehearse>,
    /// The gate's answers, for metrics.
    pub asked: Vec<(ActionKind, Verdict)>,
    /// Look again after this long even if nothing happens; absent = the usual resync.
    pub again_after_ms: Option<i64>,
}

impl Desired {
    /// True when the world is as it should be.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.changes.is_empty() && self.rehearsals.is_empty()
    }

    /// True when an object other than the status would be written: worth a fresh read first.
    pub fn writes(&self) -> bool {
        let changes = self
            .slots
            .iter()
            .flat_map(|slot| &slot.steps)
            .filter_map(|step| match step {
                Step::Change(change) => Some(change),
                Step::Demote(_) | Step::Promote(_) => None,
            });
        self.changes
            .iter()
            .chain(changes)
            .any(|change| !matches!(change, Change::Status(_) | Change::Event(_)))
    }
}

/// Steps of one slot, in order. A restart after any of them does no harm: the slice decides, and a promote is repeated
/// until the pod reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSteps {
    /// Index of the slot; -1 for a pod that holds none.
    pub slot: i32,
    /// What is recorded of it when the slot changes hands.
    pub takeover: Option<Takeover>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Close the chain door of the old pod. Its failure stops nothing: the generation fences it.
    Demote(Demote),
    /// Write the slice.
    Change(Change),
    /// Open the chain door of the new pod.
    Promote(Box<Promote>),
}

/// A slot that changes hands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Takeover {
    /// DAPI node id.
    pub node_id: String,
    /// Pod it leaves; empty when none held it.
    pub from: String,
    /// Pod it goes to; empty when there is none.
    pub to: String,
    /// New generation.
    pub generation: i64,
    /// Name of the cause.
    pub cause: String,
    /// When it was decided, Unix milliseconds.
    pub decided_ms: i64,
}

/// Closes a chain door.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Demote {
    /// Pod name.
    pub pod: String,
    /// Pod UID.
    pub pod_uid: String,
    /// Pod IP.
    pub address: String,
    /// Slot.
    pub slot: i32,
    /// New generation, which the old pod is fenced with.
    pub generation: i64,
    /// How long requests in flight may finish.
    pub drain_millis: u32,
    /// Another pod holds the slot already: nothing more is delivered from here.
    pub superseded: bool,
}

/// Opens a chain door.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Promote {
    /// Pod name.
    pub pod: String,
    /// Pod UID.
    pub pod_uid: String,
    /// Pod IP.
    pub address: String,
    /// Slot.
    pub slot: i32,
    /// Generation.
    pub generation: i64,
    /// DAPI node id.
    pub node_id: String,
    /// Number DAPI gave the node; 0 until registered.
    pub node_num: i32,
    /// Where DAPI takes callbacks.
    pub callback_base: String,
    /// A round that goes on here.
    pub running: Option<Start>,
    /// Per group, the first index not delivered.
    pub resume: BTreeMap<u32, u64>,
}

/// Asks for a rehearsal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rehearse {
    /// Pod name.
    pub pod: String,
    /// Pod UID.
    pub pod_uid: String,
    /// Pod IP.
    pub address: String,
    /// Slot it holds; -1 = none.
    pub slot: i32,
    /// Generation it holds it with.
    pub generation: i64,
    /// The test round.
    pub round: Start,
    /// Nonces to compute.
    pub nonces: Vec<i32>,
}
