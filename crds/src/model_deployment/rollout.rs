//! Status of a rollout of a ModelDeployment.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a change of the pods stands. There while one is under way, and after one was rolled back.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Revision that follows from the spec.
    pub revision: String,
    /// Revision before it, which is gone back to. Absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_revision: Option<String>,
    /// How far it is.
    pub state: RolloutState,
    /// Slots whose pod has the revision that new pods get.
    #[serde(default)]
    pub updated_slots: i32,
    /// Slots in all.
    #[serde(default)]
    pub slots: i32,
    /// Since when a slot has the new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_since_time: Option<Time>,
    /// SprintRun of the exam that the canary passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub canary_exam: Option<String>,
    /// Revision that failed: it gets no more slots until the spec asks for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_revision: Option<String>,
    /// Why it failed, what is waited for, or what comes next.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// From a pod's creation to its first rehearsal, seconds, as learned. Absent until one was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<i64>,
    /// When the next step, or the last one, is expected. Absent when nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_time: Option<Time>,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum RolloutState {
    /// A few slots have the new revision, or will; the others wait for their exam.
    Canary,
    /// Slot by slot, one failure domain at a time.
    Rolling,
    /// Held by its owner, or because the new revision failed.
    Paused,
    /// The new revision failed and pods have the one before.
    RolledBack,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}
