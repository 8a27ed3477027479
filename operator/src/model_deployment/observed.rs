//! What one pass over a ModelDeployment knows, as one plain serialisable value: box 2's output, box 3's only input.

use std::collections::{BTreeMap, BTreeSet};

use crds::gpu_node::MaintenanceStage;
use crds::sprint_schedule::Margins;
use crds::{GonkaHost, ModelDeployment};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;

/// One snapshot. Whatever is absent here is not known; nothing is deleted because of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Unix milliseconds when this was read.
    pub now_ms: i64,
    /// Flags of this installation.
    pub install: Install,
    /// The object itself.
    pub deployment: ModelDeployment,
    /// Its host.
    #[serde(default)]
    pub host: Option<GonkaHost>,
    /// The host's schedule.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// What the chain says.
    #[serde(default)]
    pub facts: Facts,
    /// Pods of the deployment of this name, by name; also those that an earlier one left behind, which had another UID.
    #[serde(default)]
    pub pods: BTreeMap<String, PodSeen>,
    /// Slot Services by name.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
    /// Slot EndpointSlices by name: the assignment.
    #[serde(default)]
    pub slices: BTreeMap<String, EndpointSlice>,
    /// The deployment's disruption budget.
    #[serde(default)]
    pub budget: Option<PodDisruptionBudget>,
    /// ServiceAccount of slot pods in this namespace.
    #[serde(default)]
    pub account: Option<ServiceAccount>,
    /// ConfigMap with the keys that slots check the operator's token with.
    #[serde(default)]
    pub trust: Option<ConfigMap>,
    /// Keys as they should be in it; absent when the operator does not have them yet.
    #[serde(default)]
    pub trust_keys: Option<String>,
    /// Authorities that FleetSignal's certificate is checked with, as they should be in it; absent when the operator does not have
    /// them yet.
    #[serde(default)]
    pub trust_authorities: Option<String>,
    /// Artifacts a rehearsal must reproduce.
    #[serde(default)]
    pub golden: GoldenSeen,
    /// Machines by Node name.
    #[serde(default)]
    pub machines: BTreeMap<String, Machine>,
    /// A slot is on a machine that somebody wants to work on, and no other has GPUs left for one more pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_full: bool,
    /// What slots report, by pod UID.
    #[serde(default)]
    pub live: BTreeMap<String, Live>,
    /// Rounds of the exam at hand by DAPI node id, whoever held it.
    #[serde(default)]
    pub rounds: BTreeMap<String, Vec<Round>>,
    /// Pod templates on record, by revision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, TemplateSeen>,
    /// Exams of the host that judge a rollout, the earliest first; nothing while none is under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exams: Vec<ExamSeen>,
    /// Revision of the pod template, where it is known already: it follows from the rest, and costs more than all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// Flags of this installation that a decision needs.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Install {
    /// The operator's namespace.
    pub namespace: String,
    /// Six hex digits.
    pub install_id: String,
    /// Image of slot pods and of the init container.
    pub slot_image: String,
    /// Pull policy.
    pub image_pull_policy: String,
    /// Service of FleetSignal.
    pub signal_service: String,
    /// PriorityClass; empty = none.
    pub priority_class: String,
    /// Seconds between callbacks.
    pub callback_interval_seconds: u32,
}

/// What a SprintSchedule's spec says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Schedule {
    /// Chain id.
    pub chain_id: String,
    /// Lead times.
    pub margins: Margins,
}

/// One pod of ours.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "independent marks of one pod")]
pub struct PodSeen {
    /// UID.
    pub uid: String,
    /// Revision label.
    pub revision: String,
    /// Slot label.
    pub slot: String,
    /// True when the protection label is there.
    pub protected: bool,
    /// Machine; empty until scheduled.
    pub node_name: String,
    /// Pod IP; empty until there is one.
    pub address: String,
    /// Phase.
    pub phase: Phase,
    /// Condition Ready.
    pub ready: bool,
    /// Since when `ready` is as it is, Unix milliseconds.
    pub ready_since_ms: i64,
    /// Creation, Unix milliseconds.
    pub created_ms: i64,
    /// `deletionTimestamp` is set.
    pub leaving: bool,
    /// Its owner is an earlier deployment of this name, which is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
    /// UID of the deployment it was made for, which it is spoken to with; empty = this one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub made_for: String,
    /// While it is on no machine: those that it may not be placed on, as written when it was made.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub avoids: BTreeSet<String>,
}

/// Phase of a pod.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Phase {
    /// Not started.
    Pending,
    /// Containers run.
    Running,
    /// Ended well; a slot pod never should.
    Succeeded,
    /// Ended.
    Failed,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One machine.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Machine {
    /// Node condition Ready is True.
    pub ready: bool,
    /// Since when, Unix milliseconds.
    pub ready_since_ms: i64,
    /// `spec.unschedulable`, or maintenance is requested: no new slot goes there.
    pub leaving: bool,
    /// How somebody's wish to work on it stands: slots leave a machine that is `Draining`, pods on one that is `Released` are
    /// protected no more, and on one that is `Returning` they take no slot before they are proven. Absent: nobody wishes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceStage>,
    /// Excluded by its owner.
    pub excluded: bool,
    /// Failure domain; the Node's own name when the label is missing.
    pub domain: String,
    /// Sum of the power limits of its GPUs, watts; absent when no GPU tells one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watts: Option<i64>,
    /// GpuNode condition GpusHealthy; absent when not known.
    pub gpus_healthy: Option<bool>,
    /// Names of blocking findings that nobody declared harmless, but for those about clocks.
    pub findings: Vec<String>,
    /// Such findings about clocks, power and heat: an exam has thresholds of its own for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clock_findings: Vec<ClockFinding>,
    /// When the next declaration of harmlessness ends, Unix milliseconds; absent when none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings_until_ms: Option<i64>,
}

/// A finding about clocks, power or heat.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClockFinding {
    /// Name of the rule.
    pub rule: String,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
}

/// What is known of one pod's operator door.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Live {
    /// The connection.
    pub link: Link,
    /// Since when it is so, Unix milliseconds.
    pub since_ms: i64,
    /// Slot the pod believes it holds; -1 = none.
    pub slot: i32,
    /// Generation it holds it with; 0 = none.
    pub generation: i64,
    /// Since when it says so, Unix milliseconds.
    pub held_since_ms: i64,
    /// Generation it refused a promote with: it has seen a higher one.
    pub fence: i64,
    /// Its chain door is open.
    pub door_open: bool,
    /// Model its engines loaded.
    pub loaded_model: String,
    /// Engines that are ready.
    pub backends_ready: u32,
    /// Engines there should be.
    pub backends_expected: u32,
    /// Since when so many are ready, Unix milliseconds.
    pub engines_since_ms: i64,
    /// Digest of its weights; empty until loaded.
    pub weights_digest: String,
    /// The round it works on or worked on last.
    pub round: Option<Round>,
    /// Its last rehearsal since its engines started.
    pub rehearsal: Option<Rehearsed>,
    /// What it says keeps it from being ready.
    pub not_ready: Vec<String>,
    /// What this process told it last.
    pub told: Option<Told>,
    /// A rehearsal asked for by this process runs.
    pub rehearsing: bool,
}

/// State of a connection to an operator door.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Link {
    /// Being made for the first time.
    #[default]
    Connecting,
    /// Reports arrive.
    Connected,
    /// Failed or broke; being made again.
    Broken,
}

/// What a promote said.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Told {
    /// Generation.
    pub generation: i64,
    /// Number DAPI gave the node.
    pub node_num: i32,
    /// Callback base.
    pub callback_base: String,
}

/// One round of one pod.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Round {
    /// Height of the exam.
    pub height: i64,
    /// Generating or validating now.
    pub active: bool,
    /// Unix milliseconds; 0 = not yet.
    pub first_nonce_ms: i64,
    /// Start request it was asked with.
    pub request: Option<Start>,
    /// Per group, the first index not delivered.
    pub next: BTreeMap<u32, u64>,
    /// Artifacts that were computed and neither delivered nor given up.
    pub waiting: u64,
}

/// A start request, as in the protocol.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Start {
    /// Exam height.
    pub height: i64,
    /// Block hash as received.
    pub seed: String,
    /// Account key, hex.
    pub public_key: String,
    /// Number of this node.
    pub node_num: i32,
    /// Nodes of the host.
    pub node_count: i32,
    /// Model id.
    pub model: String,
    /// Tokens per nonce.
    pub seq_len: i32,
    /// Values per artifact.
    pub k_dim: i32,
    /// Nonces per batch.
    pub batch_size: u32,
    /// Inputs of the stronger generator.
    pub stronger_rng: bool,
    /// Where artifacts go.
    pub callback_url: String,
    /// Proof scheme.
    pub scheme: String,
}

/// One rehearsal.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rehearsed {
    /// Its end, Unix milliseconds.
    pub time_ms: i64,
    /// Rate, thousandths of a nonce per second.
    pub rate_milli: u64,
    /// What failed; empty on success.
    pub error: String,
    /// Artifacts, base64 of little-endian fp16, by nonce.
    pub artifacts: BTreeMap<i32, String>,
}

/// A pod template on record: a ControllerRevision.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TemplateSeen {
    /// UID of the record.
    pub uid: String,
    /// Its number: later ones are larger.
    pub number: i64,
    /// The template, as it was written.
    pub template: serde_json::Value,
}

/// An exam as a rollout reads it, out of its SprintRun.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExamSeen {
    /// Name of the record.
    pub name: String,
    /// First height of generation.
    pub height: i64,
    /// When generation began, not later, Unix milliseconds.
    pub began_ms: i64,
    /// Slots that were examined and heard, by DAPI node id. Nothing is here of those that the network left on inference.
    pub slots: BTreeMap<String, ExaminedSlot>,
    /// All others together: a record names the worst 64 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unnamed: Option<Unnamed>,
}

/// Slots that a record counts and does not name.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Unnamed {
    /// How many.
    pub slots: usize,
    /// What they should have computed and did, together.
    pub sum: ExaminedSlot,
}

/// One slot in one exam.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExaminedSlot {
    /// Nonces expected.
    pub expected: i64,
    /// Nonces computed.
    pub measured: i64,
}

/// State of the golden ConfigMap.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum GoldenSeen {
    /// The spec names none.
    #[default]
    None,
    /// The spec names one that cannot be used.
    #[serde(rename_all = "camelCase")]
    Unusable {
        /// Why, for people.
        detail: String,
    },
    /// Read and understood.
    Artifacts(Golden),
}

/// Golden artifacts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Golden {
    /// Block hash they belong to.
    pub block_hash: String,
    /// Key they belong to.
    pub public_key: String,
    /// Tokens per nonce.
    pub seq_len: i32,
    /// Values per artifact.
    pub k_dim: i32,
    /// Inputs of the stronger generator.
    pub stronger_rng: bool,
    /// Base64 vectors by nonce.
    pub artifacts: BTreeMap<i32, String>,
}

impl Machine {
    /// Somebody works on it, by our leave. A leave ends with the wish, though the answer is taken back seconds later.
    pub fn is_released(&self) -> bool {
        self.leaving && self.maintenance == Some(MaintenanceStage::Released)
    }

    /// Somebody worked on it, and what is on it proves itself first.
    pub fn is_returning(&self) -> bool {
        match self.maintenance {
            Some(MaintenanceStage::Returning) => true,
            Some(MaintenanceStage::Released) => !self.leaving,
            _ => false,
        }
    }
}

impl PodSeen {
    /// Its label says it holds no slot.
    pub fn is_spare_by_label(&self) -> bool {
        self.slot == crds::labels::SLOT_SPARE
    }
}

impl Observed {
    /// Namespace of the object.
    pub fn namespace(&self) -> &str {
        self.deployment.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Name of the object.
    pub fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    /// UID of the object.
    pub fn uid(&self) -> &str {
        self.deployment.metadata.uid.as_deref().unwrap_or_default()
    }

    /// DAPI node id of a slot: an adopted one, or ours.
    pub fn node_id(&self, slot: i32) -> String {
        usize::try_from(slot)
            .ok()
            .and_then(|index| self.deployment.spec.adopt_nodes.get(index).cloned())
            .unwrap_or_else(|| crds::labels::dapi_node_id(&self.install.install_id, self.name(), slot))
    }

    /// Numbers DAPI gave to this deployment's slots.
    pub fn node_nums(&self) -> BTreeMap<i32, i32> {
        let status = self.host.as_ref().and_then(|host| host.status.as_ref());
        status
            .iter()
            .flat_map(|status| &status.registrations)
            .filter(|entry| entry.deployment.name == self.name())
            .filter_map(|entry| Some((entry.slot, entry.node_num?)))
            .collect()
    }
}
