//! What happens when: events of the fleet in the network's own queue, by token, so that of two things at one moment the one that
//! was thought of first comes first.

use std::collections::BTreeMap;

use network_simulator::event::Check;
use network_simulator::virtual_time::door::Door;
use operator::sprint_run::desk::Task;
use proto::v1::SlotReport;

use crate::operator::Controller;
use crate::store::{self, Id, Kind};

/// Something of the fleet that happens at its moment.
#[derive(Debug)]
pub enum Event {
    /// The operator's program begins.
    OperatorStarts,
    /// A watch tells of a change.
    Told {
        /// Which life of the operator hears it.
        life: u32,
        /// What.
        change: store::Event,
    },
    /// A watch breaks and lists again.
    Relist {
        /// Which life.
        life: u32,
        /// Kind.
        kind: Kind,
    },
    /// The chain is read.
    Read {
        /// Which life.
        life: u32,
    },
    /// A controller is due.
    Pass {
        /// Which life.
        life: u32,
        /// Controller.
        controller: Controller,
    },
    /// A door is tried.
    Connect {
        /// Which life.
        life: u32,
        /// UID of the pod.
        pod_uid: String,
        /// At this address.
        address: String,
        /// Failures before.
        failures: u32,
    },
    /// Keep-alives of a door were not answered.
    Silent {
        /// Which life.
        life: u32,
        /// UID of the pod.
        pod_uid: String,
        /// Its connection broke for good: nobody has to wait.
        at_once: bool,
    },
    /// A report arrives.
    Heard {
        /// Which life.
        life: u32,
        /// UID of the pod.
        pod_uid: String,
        /// It.
        report: Box<SlotReport>,
    },
    /// A rehearsal ends.
    Rehearsed {
        /// Which life asked.
        life: u32,
        /// UID of the pod.
        pod_uid: String,
        /// Nonces.
        nonces: Vec<i32>,
    },
    /// What a record needs was asked for.
    Job {
        /// Which life.
        life: u32,
        /// What.
        task: Box<Task>,
    },
    /// The scheduler looks at a pod.
    Schedule {
        /// Which.
        id: Id,
    },
    /// A pod's containers start.
    Start {
        /// UID of the pod.
        pod_uid: String,
    },
    /// A pod's readiness probe succeeds.
    Ready {
        /// UID of the pod.
        pod_uid: String,
        /// Address it has then.
        address: String,
    },
    /// A model is loaded.
    Loaded {
        /// UID of the pod.
        pod_uid: String,
        /// Address it has then.
        address: String,
        /// Start of the engine.
        starts: u32,
    },
    /// A pod that is told to end looks whether it may.
    Ending {
        /// UID of the pod.
        pod_uid: String,
        /// When it was told, Unix milliseconds.
        since_ms: i64,
    },
    /// A slot with work goes on.
    Tick {
        /// UID of the pod.
        pod_uid: String,
    },
    /// A slot says how it is.
    Report {
        /// UID of the pod.
        pod_uid: String,
    },
    /// A sample was recomputed.
    Verdict {
        /// UID of the pod.
        pod_uid: String,
        /// It.
        check: Box<Check>,
    },
    /// Machines' routing learns of a slice.
    Route {
        /// The slice.
        id: Id,
    },
    /// The node controller looks at a machine.
    Judge {
        /// Its name.
        machine: String,
        /// Since when it is as it is, Unix milliseconds.
        since_ms: i64,
    },
    /// A moment of the story.
    Moment {
        /// Its place in the story.
        place: usize,
    },
    /// What a moment did ends.
    Undo {
        /// Its place in the story.
        place: usize,
    },
    /// A drain asks for evictions.
    Evict {
        /// Its place in the story.
        place: usize,
    },
    /// Somebody who asked for a machine looks whether it is released.
    Work {
        /// Place of the wish in the story.
        place: usize,
    },
    /// A machine that somebody rebooted is back.
    Booted {
        /// Its name.
        machine: String,
    },
    /// A leader's lease runs out, unless it was renewed.
    Lease {
        /// Which life.
        life: u32,
    },
    /// Facts are looked at again: silence ages them.
    Aged {
        /// Which life.
        life: u32,
    },
    /// Somebody looks whether a fleet at rest is at rest.
    RestCheck {
        /// It is the second look.
        again: bool,
    },
}

/// Events to come.
#[derive(Debug, Default)]
pub struct Agenda {
    given: u64,
    events: BTreeMap<u64, Event>,
}

impl Agenda {
    /// So many milliseconds from now.
    pub fn after(&mut self, door: &mut Door<'_>, ms: i64, event: Event) {
        self.given += 1;
        self.events.insert(self.given, event);
        door.wake_after(ms.max(0).unsigned_abs(), self.given);
    }

    /// The event of a token.
    pub fn take(&mut self, token: u64) -> Option<Event> {
        self.events.remove(&token)
    }

    /// Events to come.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
