//! Box 3: the answer to every wish for maintenance, and which machines are held. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::GpuNode;
use crds::gpu_node::{MaintenanceStage, MaintenanceStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use kube::api::ApiResource;
use serde_json::json;

use super::observed::{GpuNodeSeen, Machine, Observed};
use super::queue::{self, Turn};
use super::switches;
use crate::change::{Change, Notice, Object};
use crate::conditions::whole_seconds;

/// Estimates that moved less than this are not worth a write.
const STEADY_MILLIS: i64 = 60_000;

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Writes by what they are about: one that fails holds up no other.
    pub writes: BTreeMap<String, Vec<Change>>,
    /// Somebody waits, so that the clock alone may change the answer.
    pub waiting: bool,
    /// Machines by stage, for metrics; those nobody wishes to work on are not in it.
    pub stages: BTreeMap<MaintenanceStage, usize>,
}

impl Decision {
    /// Nothing is to be written and nobody wishes anything: neither the chain nor the clock can make another one of it.
    pub fn is_settled(&self) -> bool {
        self.writes.is_empty() && self.stages.is_empty()
    }

    /// A NodeHealthCheck is among what is written.
    pub fn writes_checks(&self) -> bool {
        let kind = switches::health_check_resource().kind;
        let of_check = |change: &Change| matches!(change, Change::Merge(object) if object.resource.kind == kind);
        self.writes.values().flatten().any(of_check)
    }
}

/// Decides one pass over all machines.
pub fn decide(observed: &Observed) -> Decision {
    let turns = queue::turns(observed);
    let mut decision = Decision::default();
    let mut held = BTreeSet::new();
    for (name, machine) in &observed.machines {
        let stage = stage(observed, machine, turns.get(name));
        if let Some(stage) = &stage {
            *decision.stages.entry(stage.stage).or_default() += 1;
        }
        let mut changes = answer(observed, name, machine, stage.as_ref());
        let released = stage.is_some_and(|turn| turn.stage == MaintenanceStage::Released);
        let holds = !machine.pods.is_empty() && !released;
        if holds {
            held.insert(name.as_str());
        }
        // The answer is written first: pods lose their mark by it, and a crash in between leaves the machine protected.
        changes.extend(machine.node.as_ref().and_then(|node| {
            if holds {
                switches::hold(name, node)
            } else {
                switches::restore(name, node)
            }
        }));
        if !changes.is_empty() {
            decision.writes.insert(format!("machine {name}"), changes);
        }
    }
    for check in &observed.checks {
        if let Some(change) = switches::pause(observed, check, |name| held.contains(name)) {
            decision
                .writes
                .insert(format!("NodeHealthCheck {}", check.name), vec![change]);
        }
    }
    decision.waiting = decision.stages.keys().any(|stage| *stage != MaintenanceStage::Released);
    decision
}

/// The stage of a machine; absent when nobody wishes anything and it is as it should be.
fn stage(observed: &Observed, machine: &Machine, turn: Option<&Turn>) -> Option<Turn> {
    if let Some(turn) = turn {
        return Some(turn.clone());
    }
    let was_out = matches!(
        machine.stage()?,
        MaintenanceStage::Released | MaintenanceStage::Returning | MaintenanceStage::Unknown
    );
    let ready = machine.node.as_ref().is_some_and(|node| node.ready);
    let unproven: Vec<&str> = machine
        .pods
        .iter()
        .filter(|pod| !pod.proven)
        .map(|pod| pod.name.as_str())
        .collect();
    if !was_out || machine.is_wished_for(observed.now_ms) || (ready && unproven.is_empty()) {
        return None;
    }
    Some(Turn {
        stage: MaintenanceStage::Returning,
        message: if ready {
            format!("not rehearsed since: {}", unproven.join(", "))
        } else {
            "the Node is not Ready".to_owned()
        },
        expected_ms: None,
        position: None,
    })
}

/// The status, when it differs, and an Event when the stage does.
fn answer(observed: &Observed, name: &str, machine: &Machine, turn: Option<&Turn>) -> Vec<Change> {
    let Some(gpu_node) = &machine.gpu_node else {
        return Vec::new();
    };
    let before = gpu_node.answer.as_ref();
    // What another wish was answered is not carried on.
    let same_wish = before.filter(|answer| Some(answer.state) == machine.stage());
    let after = turn.map(|turn| MaintenanceStatus {
        observed_generation: gpu_node.generation,
        ..status(observed.now_ms, same_wish, turn)
    });
    if before == after.as_ref() {
        return Vec::new();
    }
    let mut changes = vec![status_write(name, gpu_node, after.as_ref())];
    let stages = (
        before.map(|answer| answer.state),
        after.as_ref().map(|answer| answer.state),
    );
    if stages.0 != stages.1 {
        changes.push(notice(name, gpu_node, after.as_ref()));
    }
    changes
}

fn status(now_ms: i64, before: Option<&MaintenanceStatus>, turn: &Turn) -> MaintenanceStatus {
    let now = whole_seconds(now_ms);
    let same = before.filter(|answer| answer.state == turn.stage);
    let expected = turn.expected_ms.map(whole_seconds);
    let steady = same
        .and_then(|answer| answer.expected_release_time.clone())
        .filter(|old| {
            let moved = turn.expected_ms.map(|new| (new - old.0.as_millisecond()).abs());
            moved.is_some_and(|moved| moved < STEADY_MILLIS)
        });
    MaintenanceStatus {
        state: turn.stage,
        message: turn.message.chars().take(1024).collect(),
        requested_time: before.map_or_else(|| now.clone(), |answer| answer.requested_time.clone()),
        since_time: same.map_or(now, |answer| answer.since_time.clone()),
        expected_release_time: steady.or(expected),
        queue_position: turn.position,
        observed_generation: None,
    }
}

fn status_write(name: &str, gpu_node: &GpuNodeSeen, after: Option<&MaintenanceStatus>) -> Change {
    let status = after.map_or_else(|| json!({}), |answer| json!({ "maintenance": answer }));
    Change::Status(Object {
        resource: ApiResource::erase::<GpuNode>(&()),
        namespace: None,
        name: name.to_owned(),
        value: json!({
            "apiVersion": GpuNode::api_version(&()),
            "kind": GpuNode::kind(&()),
            "metadata": {"name": name, "uid": gpu_node.uid},
            "status": status,
        }),
    })
}

fn notice(name: &str, gpu_node: &GpuNodeSeen, after: Option<&MaintenanceStatus>) -> Change {
    let (reason, note) = match after {
        Some(answer) => (format!("Maintenance{}", answer.state), answer.message.clone()),
        None => (
            "MaintenanceOver".to_owned(),
            "the machine is protected again".to_owned(),
        ),
    };
    Change::Event(Notice {
        regarding: ObjectReference {
            api_version: Some(GpuNode::api_version(&()).into_owned()),
            kind: Some(GpuNode::kind(&()).into_owned()),
            name: Some(name.to_owned()),
            uid: Some(gpu_node.uid.clone()),
            ..ObjectReference::default()
        },
        warning: false,
        reason,
        note,
    })
}
