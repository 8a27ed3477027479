//! Foreign switches, and our own mark, on machines that carry slots: held while they do, put back when a machine is released.
//! What was there before is written in the same patch that changes it. Pure.

use std::collections::BTreeMap;

use crds::labels;
use k8s_openapi::api::core::v1::Node;
use kube::api::ApiResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::observed::{HealthCheck, NodeSeen, Observed};
use crate::change::{Change, Object};

/// Where a switch is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// A label of the Node.
    Label,
    /// An annotation of the Node.
    Annotation,
}

/// One switch on a Node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Switch {
    /// Where.
    pub place: Place,
    /// Key.
    pub key: &'static str,
    /// Value while the machine carries slots.
    pub held: &'static str,
    /// Who reads it.
    pub reader: &'static str,
}

/// Every switch that is held.
pub const SWITCHES: [Switch; 6] = [
    label(
        labels::PROTECTED,
        "true",
        "our admission policies: deletion of the Node object",
    ),
    label(
        "nvidia.com/gpu-driver-upgrade.skip",
        "true",
        "gpu-operator: driver upgrades",
    ),
    label(
        "nvsentinel.dgxc.nvidia.com/managed",
        "false",
        "NVSentinel: quarantine, drain, reboot",
    ),
    label(
        "k8saas.nvidia.com/ManagedByNVSentinel",
        "false",
        "NVSentinel before its label moved",
    ),
    annotation(
        "cluster-autoscaler.kubernetes.io/scale-down-disabled",
        "true",
        "Cluster Autoscaler",
    ),
    annotation("karpenter.sh/do-not-disrupt", "true", "Karpenter"),
];

const fn label(key: &'static str, held: &'static str, reader: &'static str) -> Switch {
    Switch {
        place: Place::Label,
        key,
        held,
        reader,
    }
}

const fn annotation(key: &'static str, held: &'static str, reader: &'static str) -> Switch {
    Switch {
        place: Place::Annotation,
        key,
        held,
        reader,
    }
}

/// What stands in `spec.pauseRequests` of a NodeHealthCheck while a machine it looks after carries slots.
pub const PAUSE: &str = "gonka-fleet: machines of this check carry slots; request maintenance on their GpuNode";

/// Values before ours, by key; absent values were not set.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Journal {
    labels: BTreeMap<String, Option<String>>,
    annotations: BTreeMap<String, Option<String>>,
}

impl Journal {
    /// Absent when there is none, or it cannot be understood; what we hold is then simply taken off.
    fn of(node: &NodeSeen) -> Option<Self> {
        serde_json::from_str(node.annotations.get(labels::PREVIOUS_VALUES)?).ok()
    }

    fn values(&mut self, place: Place) -> &mut BTreeMap<String, Option<String>> {
        match place {
            Place::Label => &mut self.labels,
            Place::Annotation => &mut self.annotations,
        }
    }
}

fn present<'a>(node: &'a NodeSeen, switch: &Switch) -> Option<&'a String> {
    match switch.place {
        Place::Label => node.labels.get(switch.key),
        Place::Annotation => node.annotations.get(switch.key),
    }
}

/// Holds every switch of a machine; absent when all are held.
pub fn hold(name: &str, node: &NodeSeen) -> Option<Change> {
    let known = Journal::of(node);
    let mut journal = known.clone().unwrap_or_default();
    let mut patch = Patch::default();
    for switch in &SWITCHES {
        let value = present(node, switch);
        if value.is_none_or(|value| value != switch.held) {
            patch.set(switch.place, switch.key, json!(switch.held));
        }
        // The first value counts: what stands there now may be a quarrel with the switch's reader.
        journal
            .values(switch.place)
            .entry(switch.key.to_owned())
            .or_insert_with(|| value.cloned());
    }
    if known.as_ref() != Some(&journal) {
        let text = serde_json::to_string(&journal).unwrap_or_default();
        patch.set(Place::Annotation, labels::PREVIOUS_VALUES, json!(text));
    }
    patch.of(name, node)
}

/// Puts back what was there; absent when nothing is held. A value that somebody changed meanwhile is theirs.
pub fn restore(name: &str, node: &NodeSeen) -> Option<Change> {
    let written = node.annotations.contains_key(labels::PREVIOUS_VALUES);
    if !written {
        return None;
    }
    let mut journal = Journal::of(node).unwrap_or_default();
    let mut patch = Patch::default();
    for switch in &SWITCHES {
        if present(node, switch).is_some_and(|value| value == switch.held) {
            let before = journal.values(switch.place).remove(switch.key).flatten();
            if before.as_deref() != Some(switch.held) {
                patch.set(switch.place, switch.key, json!(before));
            }
        }
    }
    patch.set(Place::Annotation, labels::PREVIOUS_VALUES, Value::Null);
    patch.of(name, node)
}

#[derive(Default)]
struct Patch {
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
}

impl Patch {
    fn set(&mut self, place: Place, key: &str, value: Value) {
        match place {
            Place::Label => &mut self.labels,
            Place::Annotation => &mut self.annotations,
        }
        .insert(key.to_owned(), value);
    }

    fn of(self, name: &str, node: &NodeSeen) -> Option<Change> {
        if self.labels.is_empty() && self.annotations.is_empty() {
            return None;
        }
        let mut metadata = json!({"uid": node.uid, "resourceVersion": node.resource_version});
        for (place, values) in [("labels", self.labels), ("annotations", self.annotations)] {
            if !values.is_empty() {
                metadata[place] = Value::Object(values);
            }
        }
        Some(Change::Merge(Object {
            resource: ApiResource::erase::<Node>(&()),
            namespace: None,
            name: name.to_owned(),
            value: json!({"metadata": metadata}),
        }))
    }
}

/// The kind of medik8s; it may not be installed.
pub fn health_check_resource() -> ApiResource {
    ApiResource {
        group: "remediation.medik8s.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "remediation.medik8s.io/v1alpha1".to_owned(),
        kind: "NodeHealthCheck".to_owned(),
        plural: "nodehealthchecks".to_owned(),
    }
}

/// Pauses a NodeHealthCheck while a machine it looks after is held, and ends our pause when none is.
pub fn pause(observed: &Observed, check: &HealthCheck, held: impl Fn(&str) -> bool) -> Option<Change> {
    let selects = |node: &NodeSeen| {
        check.match_labels.as_ref().is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(key, value)| node.labels.get(key).is_some_and(|have| have == value))
        })
    };
    let wanted = observed
        .machines
        .iter()
        .any(|(name, machine)| held(name) && machine.node.as_ref().is_some_and(selects));
    let ours = check.pause_requests.iter().any(|request| request == PAUSE);
    if wanted == ours {
        return None;
    }
    let mut requests: Vec<&str> = check
        .pause_requests
        .iter()
        .map(String::as_str)
        .filter(|request| *request != PAUSE)
        .collect();
    if wanted {
        requests.push(PAUSE);
    }
    Some(Change::Merge(Object {
        resource: health_check_resource(),
        namespace: None,
        name: check.name.clone(),
        value: json!({
            "metadata": {"uid": check.uid, "resourceVersion": check.resource_version},
            "spec": {"pauseRequests": requests},
        }),
    }))
}

#[cfg(test)]
mod tests;
