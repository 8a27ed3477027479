//! ModelDeployment: a model on slots.

mod overlay;
mod rollout;
mod status;

pub use overlay::{EnvVar, OverlayMount, OverlayVolume, PodOverlay, VolumeKind};
pub use rollout::{RolloutState, RolloutStatus};
pub use status::{ModelDeploymentStatus, PowerDomain, SlotState, SlotStatus, SpareState, SpareStatus};

use std::collections::{BTreeMap, BTreeSet};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::ConditionType;
use crate::references::LocalReference;

/// A model, the engine that runs it, and how many slots prove it.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fleet.gonka.ai",
    version = "v1alpha1",
    kind = "ModelDeployment",
    namespaced,
    status = "ModelDeploymentStatus",
    shortname = "gmd",
    category = "gonka",
    derive = "PartialEq",
    doc = "ModelDeployment runs a model on slots. A slot is a stable address and node number in DAPI; the operator decides which pod holds it and keeps rehearsed spares to take it over.",
    scale(
        spec_replicas_path = ".spec.slots",
        status_replicas_path = ".status.assignedSlots",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.id"),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".spec.slots"),
    printcolumn(name = "Assigned", type_ = "integer", json_path = ".status.assignedSlots"),
    printcolumn(name = "Sprint Ready", type_ = "integer", json_path = ".status.sprintReadySlots"),
    printcolumn(name = "Spares", type_ = "integer", json_path = ".status.readySpares"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.enrollment != 'Reserve' || self.slots == 0").message("a Reserve deployment holds no slots: set slots to 0 and use spares"))]
pub struct ModelDeploymentSpec {
    /// GonkaHost in the same namespace whose slots these are. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("hostRef is immutable; slots do not change hosts"))]
    pub host_ref: LocalReference,
    /// The model. Its id is immutable; repository and revision may change and roll out.
    #[x_kube(validation = Rule::new("self.id == oldSelf.id").message("model.id is immutable; make a new ModelDeployment for another model"))]
    pub model: ModelSource,
    /// What computes. Changes roll out through spares.
    pub engine: Engine,
    /// GPUs of one engine process (tensor-parallel group), 0 to 16. Default 1; 0 = none (CPU tests).
    #[serde(default = "default_one")]
    #[schemars(range(min = 0, max = 16))]
    pub gpus_per_replica: i32,
    /// Engine processes per pod, 1 to 16. Default 1. Each is one nonce group.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas_per_slot: i32,
    /// Slots registered with DAPI, 0 to 512. Slots are never removed from DAPI; lowering the number leaves them unassigned.
    #[schemars(range(min = 0, max = 512))]
    pub slots: i32,
    /// Rehearsed pods without a slot, ready to take one over, 0 to 128. Default 1; cover the largest failure domain.
    #[serde(default = "default_one")]
    #[schemars(range(min = 0, max = 128))]
    pub spares: i32,
    /// What starts of exams are spread over, milliseconds, 0 to 2000. Each slot waits a part of it after its start request that its
    /// number says, so that not all GPUs of a rack go to full power in one moment. Costs half of it per slot on average: 1000 of a
    /// Sprint of three minutes is 0.3 % of the weight. Default 0. Can change; pods are rolled out.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2000))]
    pub start_stagger_millis: i32,
    /// `Enrolled` (default): slots are examined. `Reserve`: pods serve only.
    #[serde(default)]
    pub enrollment: Enrollment,
    /// How DAPI reaches a slot.
    #[serde(default)]
    pub exposure: Exposure,
    /// Where pods may run.
    #[serde(default)]
    pub placement: Placement,
    /// Golden artifacts that rehearsals are compared with. Without it a rehearsal is compared with another slot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
    /// Part of the measured concurrency the gateway leaves to the chain, basis points, 0 to 10000. Default 5000.
    #[serde(default = "default_headroom")]
    #[schemars(range(min = 0, max = 10000))]
    pub chain_headroom_basis_points: i32,
    /// How changes roll out.
    #[serde(default)]
    pub rollout: Rollout,
    /// What to add to slot pods; deliberately narrow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overlay: Option<PodOverlay>,
    /// DAPI node ids, made by somebody else, that slots of this deployment take over in order. At most 512.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub adopt_nodes: Vec<String>,
}

fn default_one() -> i32 {
    1
}

fn default_headroom() -> i32 {
    5000
}

/// Which model.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSource {
    /// Id on chain, for example `MiniMaxAI/MiniMax-M2.7`.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// Where the weights come from: a hub repository or a path in a mounted volume. Default: the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub repository: Option<String>,
    /// Pinned revision (commit) of the repository, or weights tag of a test model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub revision: Option<String>,
}

/// What computes.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'VLLM') == has(self.vllm)").message("vllm must be set if and only if type is VLLM"),
    validation = Rule::new("(self.type == 'Native') == has(self.native)").message("native must be set if and only if type is Native"),
    validation = Rule::new("(self.type == 'External') == has(self.external)").message("external must be set if and only if type is External")
)]
pub struct Engine {
    /// `VLLM`, `MLNode` (upstream image as it is), `Native` (ours) or `External` (slots outside the cluster).
    #[serde(rename = "type")]
    pub kind: EngineKind,
    /// Container image by digest; the `slot` program is copied into it. Default for Native: the node-agent's own image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Settings of VLLM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm: Option<VllmEngine>,
    /// Settings of Native.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeEngine>,
    /// Settings of External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalEngine>,
}

/// Kinds of engines.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum EngineKind {
    /// vLLM with the proof plugin.
    #[serde(rename = "VLLM")]
    Vllm,
    /// The network's own ML node image.
    #[serde(rename = "MLNode")]
    MlNode,
    /// Our own engine.
    #[default]
    Native,
    /// Slots outside the cluster.
    External,
}

/// Settings of vLLM.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VllmEngine {
    /// Arguments, one flag or value each. At most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub args: Vec<String>,
    /// Nonces per batch, 1 to 1024. Default: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub poc_batch_size: Option<i32>,
}

/// Settings of our own engine.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NativeEngine {
    /// Proof scheme. Default `prefill_v2`.
    #[serde(default = "default_scheme")]
    #[schemars(length(min = 1, max = 63))]
    pub scheme: String,
    /// Where it computes. Default `CPU`. `CUDA` is an NVIDIA GPU, one for each replica (`gpusPerReplica: 1`, `dtype: BF16`), and dense Qwen3- or
    /// Llama-shaped models; the slot's image then needs cuBLASLt of CUDA 13 and `/usr/bin/node-agent`, the machine driver 580 or newer. A change
    /// is a rollout.
    #[serde(default)]
    pub device: Device,
    /// Arithmetic of the model. Default `F32`.
    #[serde(default)]
    pub dtype: Dtype,
    /// Upper bound of nonces per second and engine process; 0 = none. For tests and burn-in.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_nonces_per_second: i32,
}

fn default_scheme() -> String {
    "prefill_v2".to_owned()
}

/// Where a native engine computes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum Device {
    /// The reference.
    #[default]
    #[serde(rename = "CPU")]
    #[strum(serialize = "CPU")]
    Cpu,
    /// An NVIDIA GPU.
    #[serde(rename = "CUDA")]
    #[strum(serialize = "CUDA")]
    Cuda,
}

/// Arithmetic of a native engine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    #[strum(serialize = "F32")]
    F32,
    /// bfloat16.
    #[serde(rename = "BF16")]
    #[strum(serialize = "BF16")]
    Bf16,
}

/// Slots outside the cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalEngine {
    /// One address per slot. At most 512, keyed by slot.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["slot".into()]))]
    pub endpoints: Vec<ExternalSlot>,
}

/// Address of one slot outside the cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSlot {
    /// Index of the slot.
    #[schemars(range(min = 0, max = 511))]
    pub slot: i32,
    /// IP address or host name of the ML node.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
}

/// Whether slots are examined.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Enrollment {
    /// Slots are registered and examined.
    #[default]
    Enrolled,
    /// Pods serve only.
    Reserve,
}

/// How DAPI reaches a slot.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// Service type of slots. Default `ClusterIP`, for a DAPI that routes to service addresses.
    #[serde(rename = "type", default)]
    pub kind: ExposureKind,
}

/// Service type of slots.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum ExposureKind {
    /// An address inside the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    #[strum(serialize = "ClusterIP")]
    ClusterIp,
    /// An address from the load balancer.
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// The pod's own node; a takeover changes the address in DAPI.
    HostPort,
}

/// Where pods may run.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Node labels pods need. Default: none beyond the GPUs asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Name of a hardware profile, for example `8xH200`. For people and reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub hardware_profile: Option<String>,
    /// Node label that names the failure domain over which slots are spread. Default `kubernetes.io/hostname`.
    #[serde(default = "default_failure_domain")]
    #[schemars(length(min = 1, max = 317))]
    pub failure_domain_key: String,
    /// Power that the machines with slots of this deployment in one failure domain (a rack, say) may draw together, watts: what
    /// their feed bears without what else hangs on it. In a Sprint every GPU draws its limit in the same moment; where the sum is
    /// above this, status.power and an Event say so. Nothing is held back. Optional; can change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub domain_watts: Option<i32>,
    /// What a machine draws beside its GPUs, watts: processors, fans, switches. Counted once per machine with a slot. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub machine_watts: i32,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            node_selector: BTreeMap::new(),
            hardware_profile: None,
            failure_domain_key: default_failure_domain(),
            domain_watts: None,
            machine_watts: 0,
        }
    }
}

fn default_failure_domain() -> String {
    "kubernetes.io/hostname".to_owned()
}

/// Artifacts a rehearsal must reproduce.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Golden {
    /// ConfigMap in the same namespace with a key `golden.json`.
    pub config_map_ref: LocalReference,
    /// Largest L2 distance per vector, thousandths. Default 20 (0.020), the network's own default.
    #[serde(default = "default_distance")]
    #[schemars(range(min = 1, max = 2000))]
    pub max_distance_milli: i32,
}

fn default_distance() -> i32 {
    20
}

/// How changes roll out.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Holds every rollout while true. Takeovers of broken slots go on. Default false.
    #[serde(default)]
    pub paused: bool,
    /// Slots that are examined once with a new revision before any other gets it, 0 to 512. Default 1; 0 = none.
    #[serde(default = "default_one")]
    #[schemars(range(min = 0, max = 512))]
    pub canary_slots: i32,
    /// Goes back to the revision before when a rehearsal, its rate or the canary's exam speaks against the new one. When
    /// false the rollout is held instead. Default true.
    #[serde(default = "default_true")]
    pub automatic_rollback: bool,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            paused: false,
            canary_slots: default_one(),
            automatic_rollback: default_true(),
        }
    }
}

fn default_true() -> bool {
    true
}

impl ModelDeployment {
    /// Condition types of this kind.
    pub const CONDITIONS: [ConditionType; 8] = [
        ConditionType::Accepted,
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
        ConditionType::SprintReady,
        ConditionType::ArgsAccepted,
        ConditionType::WeightsStaged,
        ConditionType::RolledOut,
    ];

    /// Indices of the slots that an exam asks for: those the spec wants, and those that a pod still holds though the spec wants
    /// them no more.
    pub fn examined_slots(&self) -> BTreeSet<i32> {
        const MOST: std::ops::Range<i32> = 0..512;
        let wanted = match self.spec.enrollment {
            Enrollment::Enrolled => self.spec.slots.clamp(MOST.start, MOST.end),
            Enrollment::Reserve => 0,
        };
        let known = self.status.iter().flat_map(|status| &status.slots);
        let held = known.filter(|slot| slot.pod_ref.is_some() && MOST.contains(&slot.index));
        (0..wanted).chain(held.map(|slot| slot.index)).collect()
    }
}
