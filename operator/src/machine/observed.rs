//! What one pass over all machines knows, as one plain serialisable value: box 2's output, box 3's only input.

use std::collections::BTreeMap;

use crds::gpu_node::{Maintenance, MaintenanceStatus};
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::gate::HostState;

/// One snapshot of the fleet.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Observed {
    /// Unix milliseconds when this was read.
    pub now_ms: i64,
    /// Machines by Node name.
    pub machines: BTreeMap<String, Machine>,
    /// ModelDeployments by `namespace/name`.
    pub deployments: BTreeMap<String, Deployment>,
    /// GonkaHosts by `namespace/name`.
    pub hosts: BTreeMap<String, Host>,
    /// NodeHealthChecks of the cluster, where the kind is installed.
    pub checks: Vec<HealthCheck>,
}

/// One machine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Machine {
    /// As Kubernetes sees it; absent when there is no such Node.
    pub node: Option<NodeSeen>,
    /// As people and its agent see it; absent when there is no such GpuNode.
    pub gpu_node: Option<GpuNodeSeen>,
    /// Slot pods on it that have not ended.
    pub pods: Vec<PodHere>,
}

/// A Node, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSeen {
    /// UID.
    pub uid: String,
    /// Resource version: a patch is of what was seen.
    pub resource_version: String,
    /// Condition Ready is True.
    pub ready: bool,
    /// Cordoned: `kubectl drain` does that first, and it is read as a wish for maintenance.
    pub unschedulable: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations of ours and of foreign switches.
    pub annotations: BTreeMap<String, String>,
}

/// A GpuNode, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GpuNodeSeen {
    /// UID.
    pub uid: String,
    /// `metadata.generation`: every edit of the spec makes it one more.
    pub generation: Option<i64>,
    /// What a person wishes.
    pub wish: Maintenance,
    /// What was answered last.
    pub answer: Option<MaintenanceStatus>,
}

/// A slot pod on a machine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodHere {
    /// Its deployment, `namespace/name`.
    pub deployment: String,
    /// Name.
    pub name: String,
    /// Slot that a slice says it holds.
    pub slot: Option<i32>,
    /// A rehearsal passed since its last start.
    pub proven: bool,
}

/// One deployment.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Deployment {
    /// Its host, `namespace/name`.
    pub host: String,
    /// Node label that names failure domains.
    pub domain_key: String,
    /// Machines of its rehearsed spares, one entry per spare.
    pub spares: Vec<String>,
    /// Somebody wishes to work on a machine, and no machine that stays has GPUs left for one more pod.
    pub is_full: bool,
    /// Weight of each slot, in units that compare within the host.
    pub weights: BTreeMap<i32, i64>,
}

/// One host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Host {
    /// What the chain says.
    pub facts: Facts,
    /// What the gate knows of it.
    pub state: HostState,
    /// Sum of the weights of its slots.
    pub weight: i64,
    /// `margins.coldLoadSeconds`, milliseconds: from a machine's return until its slots are proven again.
    pub load_millis: i64,
}

/// A NodeHealthCheck of medik8s.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HealthCheck {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Resource version.
    pub resource_version: String,
    /// Labels that select its nodes; absent when its selector has expressions, and then it selects all of them.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// `spec.pauseRequests`.
    pub pause_requests: Vec<String>,
}

impl Machine {
    /// Somebody works on it, or wants to.
    pub fn is_wished_for(&self, now_ms: i64) -> bool {
        use crds::gpu_node::{MaintenanceStage, MaintenanceState};

        if self.node.as_ref().is_some_and(|node| node.unschedulable) {
            return true;
        }
        let Some(gpu_node) = &self.gpu_node else { return false };
        let granted = self.stage() == Some(MaintenanceStage::Released);
        let lapsed = gpu_node
            .wish
            .not_after_time
            .as_ref()
            .is_some_and(|time| time.0.as_millisecond() <= now_ms);
        gpu_node.wish.state == MaintenanceState::Requested && (granted || !lapsed)
    }

    /// The stage that was answered last, to the wish at hand: one that was withdrawn and made again waits like any other.
    pub fn stage(&self) -> Option<crds::gpu_node::MaintenanceStage> {
        let answer = self.answer()?;
        Some(crds::gpu_node::stage_now(
            answer,
            &self.gpu_node.as_ref()?.wish,
            self.generation(),
        ))
    }

    /// What was answered last.
    pub fn answer(&self) -> Option<&MaintenanceStatus> {
        self.gpu_node.as_ref()?.answer.as_ref()
    }

    /// Somebody cordoned it, which is a wish of its own: an edit of the GpuNode does not withdraw it.
    fn generation(&self) -> Option<i64> {
        let cordoned = self.node.as_ref().is_some_and(|node| node.unschedulable);
        self.gpu_node.as_ref()?.generation.filter(|_| !cordoned)
    }

    /// Failure domain; the machine's own name where the label is missing.
    pub fn domain(&self, name: &str, key: &str) -> String {
        self.node
            .as_ref()
            .and_then(|node| node.labels.get(key).cloned())
            .unwrap_or_else(|| name.to_owned())
    }
}
