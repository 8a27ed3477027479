//! GpuNode: one machine with GPUs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::ConditionType;

/// What people decide about a machine. Created by the operator with the Node's name.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fleet.gonka.ai",
    version = "v1alpha1",
    kind = "GpuNode",
    status = "GpuNodeStatus",
    shortname = "gpun",
    category = "gonka",
    derive = "PartialEq",
    doc = "GpuNode is one machine with GPUs. The operator creates it under the Node's name; that node's agent writes its status; only people delete it.",
    printcolumn(name = "GPUs", type_ = "integer", json_path = ".status.gpuCount"),
    printcolumn(name = "Product", type_ = "string", json_path = ".status.product"),
    printcolumn(name = "Driver", type_ = "string", json_path = ".status.driverVersion"),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='GpusHealthy')].status"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Maintenance", type_ = "string", json_path = ".status.maintenance.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeSpec {
    /// `Enrolled` (default): slot pods may run here. `Excluded`: none is placed here; those that run are moved when the gate allows it.
    #[serde(default)]
    pub enrollment: NodeEnrollment,
    /// A person's wish to work on the machine.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Findings a person declared harmless, by GPU and rule. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["gpuUUID".into(), "rule".into()]))]
    pub health_overrides: Vec<HealthOverride>,
}

/// Whether slot pods may run on a machine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum NodeEnrollment {
    /// Slot pods may run here.
    #[default]
    Enrolled,
    /// No slot pod is placed here.
    Excluded,
}

/// A wish to work on the machine; the Window Gate answers it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.state != 'Requested' || (has(self.reason) && self.reason.size() > 0)").message("a maintenance request needs a reason"))]
pub struct Maintenance {
    /// `None` (default) or `Requested`.
    #[serde(default)]
    pub state: MaintenanceState,
    /// Why, for the record and for colleagues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// When the request lapses if it was not granted. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_time: Option<Time>,
    /// How long the work takes, drain and reboot included, minutes, 1 to 10080. Default 30. Shorter work goes first, and it
    /// decides whether a machine whose slots no spare takes over is back in time. Can change.
    #[serde(default = "Maintenance::half_an_hour")]
    #[schemars(range(min = 1, max = 10080))]
    pub expected_minutes: i32,
    /// Hours of the day in which the work is best done. Windows in them go before others; they forbid none: a wish waits for
    /// them for a day at most, and not at all when no window falls into them. Optional. Can change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred: Option<PreferredHours>,
}

/// Hours of every day, on a clock of people.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from != self.until").message("preferred hours begin and end at different times"))]
pub struct PreferredHours {
    /// When they begin, `HH:MM`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// When they end, `HH:MM`; on the next day when it is before `from`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub until: String,
    /// Time zone by its IANA name, for example `Asia/Almaty`. Default `UTC`. With a zone that is not known the hours are left out
    /// of account, and the answer says so.
    #[serde(default = "PreferredHours::utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

impl PreferredHours {
    fn utc() -> String {
        "UTC".to_owned()
    }
}

impl Maintenance {
    fn half_an_hour() -> i32 {
        30
    }
}

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            state: MaintenanceState::None,
            reason: None,
            not_after_time: None,
            expected_minutes: Self::half_an_hour(),
            preferred: None,
        }
    }
}

/// State of a maintenance request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MaintenanceState {
    /// Nobody asks.
    #[default]
    None,
    /// Somebody asks.
    Requested,
}

/// One finding a person declared harmless.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthOverride {
    /// UUID of the GPU.
    #[serde(rename = "gpuUUID")]
    #[schemars(length(min = 1, max = 96))]
    pub gpu_uuid: String,
    /// Name of the rule.
    #[schemars(length(min = 1, max = 63))]
    pub rule: String,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// When the override lapses. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_time: Option<Time>,
}

/// What the node's agent sees, written by that agent alone (fast numbers are metrics, not status); and the operator's answer to
/// a wish for maintenance.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeStatus {
    /// Generation of the spec this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// GPUs NVML reports, those fallen off the bus included when they were seen before.
    #[serde(default)]
    pub gpu_count: i32,
    /// Product of the GPUs, `Mixed` when they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Version of the NVIDIA driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// CUDA version the driver supports, for example `13.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_version: Option<String>,
    /// The GPUs. At most 32, keyed by UUID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uuid".into()]))]
    pub gpus: Vec<Gpu>,
    /// The machine around them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Weights found on the machine. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub weights: Vec<Weights>,
    /// The operator's answer to a wish for maintenance, or to a cordon. Written by the operator, not by the agent. Absent while
    /// nobody wishes anything and the machine is protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceStatus>,
    /// See `GpuNode::CONDITIONS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How a wish for maintenance stands.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceStatus {
    /// Where it stands. Only in `Released` may the machine be drained, upgraded or switched off.
    pub state: MaintenanceStage,
    /// Why not further, or what is waited for, for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When the wish was first seen.
    pub requested_time: Time,
    /// Since when `state` is as it is.
    pub since_time: Time,
    /// When the machine is expected to be released, in `Waiting` and `Draining`. Absent when nobody can tell: see `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_release_time: Option<Time>,
    /// Place in the queue, 1 = next. Absent once released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i32>,
    /// Generation of the spec that this answers. One edit later the wish is the same one; where two or more came between, it may
    /// have been withdrawn and made again, and a machine that was `Released` is asked for anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The stage as it is for the wish at hand. A leave is of the wish that it was given to. Nobody can withdraw a wish and make it again
/// in one edit, and nobody who looked in between took two edits for one: so a leave outlives every single edit of the spec, whatever
/// it is about, and ends where more than one went unseen. Somebody may be at work then; asked anew, a machine without slots is
/// released again at once between exams.
pub fn stage_now(answer: &MaintenanceStatus, wish: &Maintenance, generation: Option<i64>) -> MaintenanceStage {
    let edits = generation.zip(answer.observed_generation).map(|(now, then)| now - then);
    let renewed = wish.state == MaintenanceState::Requested && edits.is_some_and(|edits| edits > 1);
    match answer.state {
        MaintenanceStage::Released if renewed => MaintenanceStage::Waiting,
        stage => stage,
    }
}

/// Stages of a maintenance.
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
)]
pub enum MaintenanceStage {
    /// In the queue, or held back by the Window Gate.
    Waiting,
    /// Slots move to rehearsed spares on other machines.
    Draining,
    /// Unprotected: drain, upgrade, reboot. Foreign switches have their previous values.
    Released,
    /// The wish is withdrawn; pods on the machine are not proven again yet.
    Returning,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One GPU.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// NVML index.
    pub index: i32,
    /// UUID, `GPU-…`.
    pub uuid: String,
    /// Product name, for example `NVIDIA H200`.
    pub product: String,
    /// Memory in MiB.
    pub memory_mebibytes: i64,
    /// PCI address, for example `00000000:1B:00.0`.
    #[serde(rename = "pciBusID")]
    pub pci_bus_id: String,
    /// Whether MIG is on. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<bool>,
    /// Whether confidential compute is on. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidential_compute: Option<bool>,
    /// Power limit in force, watts: what the GPU draws at most, and draws in a Sprint. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_watts: Option<i32>,
    /// Verdict over the findings.
    pub health: GpuHealth,
    /// What the rules found. At most 16, keyed by rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["rule".into()]))]
    pub findings: Vec<Finding>,
}

/// Verdict over a GPU.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    PartialEq,
    Serialize,
    strum::Display,
    strum::IntoStaticStr,
)]
pub enum GpuHealth {
    /// Nothing found.
    Healthy,
    /// Something found that does not keep it from an exam.
    Degraded,
    /// Must not be examined.
    Unhealthy,
    /// Not readable.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What one rule found.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Name of the rule, for example `EccUncorrectable`.
    pub rule: String,
    /// Whether the GPU must not be examined.
    pub blocking: bool,
    /// What was seen and what to do, for people.
    pub message: String,
    /// Since when.
    pub since_time: Time,
}

/// Rules about clocks, power and heat, as a node's agent names them in `findings`. What they find comes and goes with the load.
pub const CLOCK_RULES: [&str; 9] = [
    "ClocksLimited",
    "HwPowerBrake",
    "HwSlowdown",
    "HwThermalSlowdown",
    "MemoryOverheating",
    "Overheating",
    "PowerLimited",
    "SwThermalSlowdown",
    "SyncBoost",
];

impl Finding {
    /// Whether it is about clocks, power or heat.
    pub fn is_about_clocks(&self) -> bool {
        CLOCK_RULES.contains(&self.rule.as_str())
    }
}

/// The machine around the GPUs.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Kernel release.
    pub kernel: String,
    /// Changes with every boot.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// Logical processors.
    pub cpus: i32,
    /// Memory in MiB.
    pub memory_mebibytes: i64,
}

/// Weights found on a machine.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Weights {
    /// Folder.
    pub path: String,
    /// `sha256:<hex>` over the files' names and digests. Absent while it is computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Size in MiB.
    pub size_mebibytes: i64,
}

impl GpuNode {
    /// Condition types of this kind.
    pub const CONDITIONS: [ConditionType; 10] = [
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
        ConditionType::GpusHealthy,
        ConditionType::ClocksNominal,
        ConditionType::DriverConsistent,
        ConditionType::DiskOk,
        ConditionType::ClockSynced,
        ConditionType::SelfTested,
        ConditionType::WeightsCurrent,
    ];
}
