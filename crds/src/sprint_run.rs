//! SprintRun: the record of one exam of one host.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::ConditionType;
use crate::references::{ExamKind, UidReference};

/// Which exam. Immutable.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fleet.gonka.ai",
    version = "v1alpha1",
    kind = "SprintRun",
    namespaced,
    status = "SprintRunStatus",
    shortname = "srun",
    category = "gonka",
    derive = "PartialEq",
    doc = "SprintRun is the record of one exam of one host: what was expected, measured, accepted and committed, what was lost and why. Sealed once, then never changed.",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.hostRef.name"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Height", type_ = "integer", json_path = ".spec.pocStartHeight"),
    printcolumn(name = "Expected", type_ = "integer", json_path = ".status.totals.expected"),
    printcolumn(name = "Committed", type_ = "integer", json_path = ".status.totals.committed"),
    printcolumn(name = "Cause", type_ = "string", json_path = ".status.cause"),
    printcolumn(name = "Sealed", type_ = "string", json_path = ".status.conditions[?(@.type=='Sealed')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.sealedTime) || (has(self.status) && self.status == oldSelf.status)").message("a sealed SprintRun does not change")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("the spec of a SprintRun is immutable"))]
pub struct SprintRunSpec {
    /// The examined host.
    pub host_ref: UidReference,
    /// Kind of the exam.
    pub kind: ExamKind,
    /// First height of generation.
    #[schemars(range(min = 0))]
    pub poc_start_height: i64,
    /// Block that announced the exam; the start itself for a Sprint.
    #[schemars(range(min = 0))]
    pub trigger_height: i64,
    /// The exam's block hash as received, case kept.
    #[schemars(length(max = 128))]
    pub seed: String,
    /// Epoch the exam belongs to.
    pub epoch: i64,
}

/// The record. Written by the operator, sealed once.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SprintRunStatus {
    /// Generation of the spec this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Verdicts before the exam. At most 4, keyed by gate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["gate".into()]))]
    pub gates: Vec<GateVerdict>,
    /// Sums over all slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// The worst slots by shortfall, worst first. At most 64; all of them are in the records volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["nodeID".into()]))]
    pub slots: Vec<SlotRecord>,
    /// Slots by ratio of committed to expected, ten classes of 1000 basis points, then 10000 and above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 11))]
    pub ratio_histogram: Vec<i32>,
    /// Our early share and the network's median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_share: Option<EarlyShare>,
    /// Votes of validators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Votes>,
    /// Measured over expected, basis points, capped at 10000. In a confirmation: what scales the epoch's reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_basis_points: Option<i32>,
    /// Weight the chain gave for this exam.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Reward of the epoch this exam decided, ngonka, decimal. Absent until settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_ngonka: Option<String>,
    /// What was lost, ngonka, decimal. `0` when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ngonka: Option<String>,
    /// Why.
    #[serde(default)]
    pub cause: Cause,
    /// What the cause rests on, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub evidence: Option<String>,
    /// Slots that moved during the exam. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub takeovers: Vec<Takeover>,
    /// When the record was closed. From then on nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_time: Option<Time>,
    /// Ready, Sealed and the kstatus pair.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Verdict at one gate.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateVerdict {
    /// Which gate.
    pub gate: Gate,
    /// What it said.
    pub verdict: GateResult,
    /// Reasons of a red light. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub reasons: Vec<String>,
    /// When it was taken. Absent when nobody watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Gates before a Sprint, and the notice of a confirmation.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    strum::Display,
)]
pub enum Gate {
    /// `coldLoadSeconds` before (T−30 min on mainnet).
    ColdLoad,
    /// `readyBySeconds` before (T−10 min).
    ReadyBy,
    /// `drainSeconds` before (T−2 min).
    Drain,
    /// At the notice of a confirmation.
    #[default]
    Notice,
}

/// What a gate said.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum GateResult {
    /// Ready.
    Green,
    /// Not ready; a person was called.
    Red,
    /// Nobody watched.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Sums over all slots.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Slots that should have generated.
    pub slots: i32,
    /// Slots left on inference by the network; zero is expected of them.
    pub preserved: i32,
    /// Nonces expected from rehearsed rates and the exam's length.
    pub expected: i64,
    /// Nonces the engines computed before generation ended, as far as slots knew its end.
    pub measured: i64,
    /// Nonces DAPI accepted.
    pub accepted: i64,
    /// Nonces in the last commit on chain.
    pub committed: i64,
}

/// One slot in one exam.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotRecord {
    /// DAPI node id.
    #[serde(rename = "nodeID")]
    pub node_id: String,
    /// Index of the slot; −1 for a node that is not ours.
    pub slot: i32,
    /// Machine at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Left on inference by the network.
    #[serde(default)]
    pub preserved: bool,
    /// Nonces expected. Absent when no rate is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<i64>,
    /// Nonces computed before generation ended, as far as the slot knew its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<i64>,
    /// Nonces DAPI accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<i64>,
    /// Nonces on chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<i64>,
    /// From the start block's time to the first nonce, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_nonce_millis: Option<i64>,
    /// From the start block's time to the first accepted callback, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_callback_millis: Option<i64>,
    /// Why this slot fell short.
    #[serde(default)]
    pub cause: Cause,
}

/// Our early share against the network's.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EarlyShare {
    /// Nonces committed when validators took the photograph.
    pub early_count: i64,
    /// Of our final count, basis points.
    pub own_basis_points: i32,
    /// Weighted median of all hosts, basis points. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_basis_points: Option<i32>,
}

/// Votes of validators.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Votes {
    /// Validators that voted valid.
    pub valid: i32,
    /// Validators that voted invalid.
    pub invalid: i32,
}

/// A slot that moved during the exam.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Takeover {
    /// Index of the slot.
    pub slot: i32,
    /// Pod it left. Empty when none held it.
    pub from_pod: String,
    /// Pod it went to.
    pub to_pod: String,
    /// Generation of the new assignment.
    pub generation: i64,
    /// From the decision to the first request on the new pod, milliseconds. Absent when none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_millis: Option<i64>,
}

/// Why an exam or a slot fell short.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum Cause {
    /// Nothing was lost.
    None,
    /// No start reached the slot.
    NoStart,
    /// The first nonce came late.
    LateStart,
    /// Fewer engines than expected started.
    PartialStart,
    /// An engine died.
    EngineDied,
    /// A GPU was slower than rehearsed.
    SlowGpu,
    /// Callbacks did not reach DAPI.
    CallbackLost,
    /// Artifacts came after the last commit that got into a block.
    TailUncommitted,
    /// DAPI accepted artifacts and committed none.
    NotCommitted,
    /// The commit's fee was refused.
    FeeRefused,
    /// Validators voted the host down.
    VotedInvalid,
    /// Left on inference by the network.
    Preserved,
    /// The machine was lost.
    NodeLost,
    /// The slot did not answer the operator.
    Unreachable,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

impl SprintRun {
    /// Condition types of this kind.
    pub const CONDITIONS: [ConditionType; 4] = [
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
        ConditionType::Sealed,
    ];
}
