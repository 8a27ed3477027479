//! SprintSchedule: the network's clock, as read from the chain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::ConditionType;
use crate::references::{ExamKind, Stage, Window};

/// What to read and how much to trust it. One object per network; every GonkaHost names one.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fleet.gonka.ai",
    version = "v1alpha1",
    kind = "SprintSchedule",
    status = "SprintScheduleStatus",
    shortname = "sprint",
    category = "gonka",
    derive = "PartialEq",
    doc = "SprintSchedule is the clock of one Gonka network: epoch, stage, window and the heights and times of the next exams, as a quorum of endpoints reports them.",
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.stage"),
    printcolumn(name = "Window", type_ = "string", json_path = ".status.window"),
    printcolumn(name = "Next Sprint", type_ = "string", json_path = ".status.nextSprintTime"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.quorum <= self.endpoints.size()").message("quorum cannot be larger than the number of endpoints"))]
pub struct SprintScheduleSpec {
    /// Chain id the endpoints must report, for example `gonka-mainnet`. Required; immutable, since every height of this object belongs to that chain.
    #[serde(rename = "chainID")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("chainID is immutable; make a new SprintSchedule for another chain"))]
    pub chain_id: String,
    /// Chain nodes to read from, 1 to 9; at least 3 for a quorum that survives one of them. Keyed by name; can change at any time.
    #[schemars(length(min = 1, max = 9))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<Endpoint>,
    /// Endpoints that must report the same block before it is believed. Default 2. Below it the window is `Unknown`.
    #[serde(default = "default_quorum")]
    #[schemars(range(min = 1, max = 9))]
    pub quorum: i32,
    /// Lead times before a Sprint. Defaults suit mainnet; short test networks set their own.
    #[serde(default)]
    pub margins: Margins,
}

fn default_quorum() -> i32 {
    2
}

/// One chain node.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Name in status, Events and metrics. Unique in the list.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// CometBFT RPC, for example `http://10.0.0.5:26657`. Required.
    #[serde(rename = "rpcURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("rpcURL must begin with http:// or https://"))]
    pub rpc_url: String,
    /// Cosmos REST, for example `http://10.0.0.5:1317`, or the proxy's `https://host/chain-api`. Required.
    #[serde(rename = "restURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("restURL must begin with http:// or https://"))]
    pub rest_url: String,
    /// Who runs it. `Own` is preferred for early facts, `Foreign` proves that our own is not alone. Default `Foreign`.
    #[serde(default)]
    pub trust: Trust,
}

/// Who runs an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Trust {
    /// Run by the owner of this fleet.
    Own,
    /// Run by somebody else.
    #[default]
    Foreign,
}

/// Lead times, in seconds.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.coldLoadSeconds >= self.readyBySeconds && self.readyBySeconds >= self.drainSeconds").message("margins must satisfy coldLoadSeconds >= readyBySeconds >= drainSeconds"))]
pub struct Margins {
    /// Before a Sprint, from when a slot whose model is not loaded is given to a spare. Seconds, default 1800.
    #[serde(default = "Margins::cold_load")]
    #[schemars(range(min = 0, max = 86400))]
    pub cold_load_seconds: i32,
    /// Before a Sprint, when readiness is judged and the window stops being Green. Seconds, default 600.
    #[serde(default = "Margins::ready_by")]
    #[schemars(range(min = 0, max = 86400))]
    pub ready_by_seconds: i32,
    /// Before a Sprint, from when rollouts are frozen and no long request is let in. Seconds, default 120.
    #[serde(default = "Margins::drain")]
    #[schemars(range(min = 0, max = 86400))]
    pub drain_seconds: i32,
    /// After a Sprint's start, when a slot without a first nonce is taken over. Seconds, default 10.
    #[serde(default = "Margins::first_nonce")]
    #[schemars(range(min = 1, max = 600))]
    pub first_nonce_seconds: i32,
}

impl Margins {
    fn cold_load() -> i32 {
        1800
    }
    fn ready_by() -> i32 {
        600
    }
    fn drain() -> i32 {
        120
    }
    fn first_nonce() -> i32 {
        10
    }
}

impl Default for Margins {
    fn default() -> Self {
        Self {
            cold_load_seconds: Self::cold_load(),
            ready_by_seconds: Self::ready_by(),
            drain_seconds: Self::drain(),
            first_nonce_seconds: Self::first_nonce(),
        }
    }
}

/// Where the network stands. Written by the operator on transitions and at most once a minute otherwise; live heights are in FleetSignal and metrics.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SprintScheduleStatus {
    /// Generation of the spec this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Index of the current epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Stage of the current epoch.
    #[serde(default)]
    pub stage: Stage,
    /// What the Window Gate allows, network-wide. `Unknown` blocks disruption and never blocks serving.
    #[serde(default)]
    pub window: Window,
    /// First height of the current epoch's Sprint, as the chain reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poc_start_height: Option<i64>,
    /// First height of the next Sprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_poc_start_height: Option<i64>,
    /// Every stage height of the current epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_heights: Option<StageHeights>,
    /// When the next Sprint is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sprint_time: Option<Time>,
    /// Half width of the interval around `nextSprintTime`, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sprint_error_seconds: Option<i64>,
    /// Moving average of the time between blocks, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_millis: Option<i64>,
    /// Spread (standard deviation) of the time between blocks, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_spread_millis: Option<i64>,
    /// Last height at which the window is still Green. Absent outside Green.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub green_until_height: Option<i64>,
    /// When the next Green window is expected to begin. Absent in Green and when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_green_time: Option<Time>,
    /// Windows of the next seven days, the present one first, ascending and without gaps; at most 64. Confirmations and challenges
    /// come by surprise and are not in it. Empty while the window is `Unknown`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["fromHeight".into()]))]
    pub calendar: Vec<CalendarEntry>,
    /// Protocol parameters as read from the chain at `sourceHeight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<ChainParameters>,
    /// SHA-256 (hex) of the parameters; every derived height belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_hash: Option<String>,
    /// The exam that is announced or running. Absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_exam: Option<ActiveExam>,
    /// The chain's upgrade plan. Absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_plan: Option<UpgradePlan>,
    /// Upgrades that are voted on: nothing is held back for them before they pass. At most 8, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["proposal".into()]))]
    pub upgrade_votes: Vec<UpgradeVote>,
    /// Health of each endpoint of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<EndpointStatus>,
    /// Accepted, Ready, Reconciling, Stalled, Synced, EndpointsAgree, ParametersKnown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One window of the days to come.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CalendarEntry {
    /// What the Window Gate will allow, network-wide.
    pub window: Window,
    /// First height.
    pub from_height: i64,
    /// Last height.
    pub until_height: i64,
    /// When the first height is expected, or was.
    pub from_time: Time,
    /// When the height after the last is expected.
    pub until_time: Time,
    /// Half width of the 99 % interval around `untilTime`, seconds.
    pub error_seconds: i64,
    /// The governance proposal this window hangs on, of `upgradeVotes`: it comes only when that passes. Absent when the window
    /// is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_passed: Option<i64>,
}

/// First height of each stage of one epoch.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageHeights {
    /// Sprint start, P.
    pub poc_start_height: i64,
    /// Validators photograph the early share.
    pub early_share_height: i64,
    /// Wind-down: a node that has not started will not be asked again.
    pub wind_down_height: i64,
    /// Generation ends; the last commit must be in a block.
    pub generation_end_height: i64,
    /// Validation starts; `stop` is sent.
    pub validation_start_height: i64,
    /// Validation winds down.
    pub validation_wind_down_height: i64,
    /// Votes are tallied; the ending epoch is settled.
    pub validation_end_height: i64,
    /// The epoch index flips.
    pub set_new_validators_height: i64,
    /// Claims of the last epoch open.
    pub claim_height: i64,
    /// Nodes leave inference before the next Sprint.
    pub inference_cutoff_height: i64,
    /// The next Sprint's start.
    pub next_poc_start_height: i64,
}

/// Protocol parameters, read from the chain and never compiled in. Fractions are decimal strings.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainParameters {
    /// Height the parameters were read at.
    pub source_height: i64,
    /// Blocks from one Sprint to the next.
    pub epoch_length: i64,
    /// Blocks of generation.
    pub poc_stage_duration: i64,
    /// Blocks between generation end and the last commit.
    pub poc_exchange_duration: i64,
    /// Blocks between exchange and validation.
    pub poc_validation_delay: i64,
    /// Blocks of validation.
    pub poc_validation_duration: i64,
    /// Blocks from validation end to the new validators.
    pub set_new_validators_delay: i64,
    /// Blocks of notice before an exam.
    pub inference_validation_cutoff: i64,
    /// Blocks before a Sprint in which no confirmation can start.
    pub confirmation_poc_safety_window: i64,
    /// Share of weight left on inference in an exam, decimal.
    pub poc_slot_allocation: String,
    /// Expected confirmations per epoch.
    pub expected_confirmations_per_epoch: i64,
    /// Ratio below which a confirmation is failed, decimal.
    pub alpha_threshold: String,
    /// Blocks around an upgrade in which no confirmation starts.
    pub upgrade_protection_window: i64,
    /// Votes needed, basis points of voting power.
    pub validation_vote_threshold_basis_points: i64,
    /// Nonces a validator samples.
    pub validation_sample_size: i64,
    /// Whether inputs come from the stronger generator.
    pub stronger_rng: bool,
    /// Models that earn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["modelID".into()]))]
    pub models: Vec<ChainModel>,
}

/// Proof parameters of one model.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainModel {
    /// Model id.
    #[serde(rename = "modelID")]
    pub model_id: String,
    /// Tokens per nonce.
    pub seq_len: i64,
    /// L2 distance above which a vector is a mismatch, decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dist_threshold: Option<String>,
    /// Mismatch probability of an honest host, decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_mismatch: Option<String>,
    /// p-value below which a host is voted down, decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value_threshold: Option<String>,
    /// Weight per nonce, decimal; absent where the chain moves it per epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_scale_factor: Option<String>,
}

/// An exam that is announced or running.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveExam {
    /// Sprint or Confirmation.
    pub kind: ExamKind,
    /// Block that announced it; the Sprint's own start height for a Sprint.
    pub trigger_height: i64,
    /// First height of generation.
    pub generation_start_height: i64,
    /// Last height of generation.
    pub end_height: i64,
    /// The exam's block hash as received, case kept. Absent until known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
}

/// A planned upgrade of the chain.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePlan {
    /// Name of the upgrade.
    pub name: String,
    /// Height at which the binaries change.
    pub height: i64,
}

/// An upgrade of the chain that hosts still vote on.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeVote {
    /// Id of the governance proposal.
    pub proposal: i64,
    /// Name of the upgrade.
    pub name: String,
    /// Height at which the binaries would change.
    pub height: i64,
    /// When voting ends. Absent when the chain does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voting_end_time: Option<Time>,
}

/// Health of one endpoint.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Name in the spec.
    pub name: String,
    /// What it is good for now.
    pub state: EndpointState,
    /// What failed, for people. Absent when up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when it has this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_time: Option<Time>,
}

/// State of an endpoint.
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
pub enum EndpointState {
    /// Answers, agrees, is not behind.
    Up,
    /// Does not answer.
    Unreachable,
    /// Serves another chain.
    WrongChain,
    /// Behind the others.
    Lagging,
    /// Reports another block at a height the quorum agrees on.
    Disagrees,
    /// Answers in a shape this version does not know.
    ShapeUnknown,
    /// Not read yet.
    #[default]
    #[serde(other)]
    Unknown,
}

impl SprintSchedule {
    /// Condition types of this kind.
    pub const CONDITIONS: [ConditionType; 7] = [
        ConditionType::Accepted,
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
        ConditionType::Synced,
        ConditionType::EndpointsAgree,
        ConditionType::ParametersKnown,
    ];
}
