//! Status of a ModelDeployment: who holds which slot, and who could.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rollout::RolloutStatus;
use crate::references::UidReference;

/// Who holds which slot. Written by the operator; the assignment itself is the slot's EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Generation of the spec this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Revision new pods get: ten hex digits of the pod template's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// A change of the pods that is under way, or was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// From a pod's creation to its first rehearsal, seconds: the largest of late, fading slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<i64>,
    /// Failure domains whose machines with slots may draw more than `spec.placement.domainWatts` in a Sprint, the worst first. At
    /// most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["domain".into()]))]
    pub power: Vec<PowerDomain>,
    /// Slots that a pod holds.
    #[serde(default)]
    pub assigned_slots: i32,
    /// Slots that are SprintReady.
    #[serde(default)]
    pub sprint_ready_slots: i32,
    /// Spares that passed a rehearsal since their last start.
    #[serde(default)]
    pub ready_spares: i32,
    /// Label selector of slot pods, for `kubectl scale` and autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// One entry per slot. At most 512, keyed by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["index".into()]))]
    pub slots: Vec<SlotStatus>,
    /// Pods without a slot. At most 640, keyed by pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 640))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["podName".into()]))]
    pub spares: Vec<SpareStatus>,
    /// See `ModelDeployment::CONDITIONS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One slot.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    /// Index, 0 to 511.
    pub index: i32,
    /// DAPI node id.
    #[serde(rename = "nodeID")]
    pub node_id: String,
    /// Number DAPI gave the node. Absent until registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_num: Option<i32>,
    /// Address DAPI knows; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Pod that holds the slot. Absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_ref: Option<UidReference>,
    /// Machine of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Revision of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Generation of the assignment; the fence.
    #[serde(default)]
    pub generation: i64,
    /// What the slot can do.
    pub state: SlotState,
    /// Why it is not SprintReady: condition reasons. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub reasons: Vec<String>,
    /// End of the last rehearsal that passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed_time: Option<Time>,
    /// Rate of the last rehearsal or exam, nonces per minute; kept while no pod holds the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonces_per_minute: Option<i64>,
}

/// What a slot can do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum SlotState {
    /// No pod holds it.
    Unassigned,
    /// Its pod is not up yet.
    Starting,
    /// Its pod is up and not proven.
    Assigned,
    /// A rehearsal passed and nothing speaks against the next exam.
    SprintReady,
    /// A round runs.
    Generating,
    /// Its pod does not answer.
    Unreachable,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One pod without a slot.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpareStatus {
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Machine of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// What the spare can do.
    pub state: SpareState,
    /// End of the last rehearsal that passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed_time: Option<Time>,
    /// Rate of the last rehearsal, nonces per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonces_per_minute: Option<i64>,
}

/// What a spare can do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum SpareState {
    /// Not up yet.
    Starting,
    /// Up, not rehearsed.
    NotRehearsed,
    /// Rehearsed; may take a slot over.
    Ready,
    /// Does not answer.
    Unreachable,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A failure domain that may draw more power than its feed bears.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PowerDomain {
    /// Its name: value of the label `spec.placement.failureDomainKey`.
    pub domain: String,
    /// Machines with slots in it.
    pub machines: i32,
    /// Sum of the power limits of their GPUs, and `machineWatts` of each, watts.
    pub watts: i64,
    /// `domainWatts`.
    pub limit_watts: i64,
}
