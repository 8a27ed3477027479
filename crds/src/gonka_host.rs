//! GonkaHost: one participant account and its network node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::ConditionType;
use crate::references::{ExamKind, LocalReference, SecretKeyReference, Window};

/// One participant and how much of it the operator may touch.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fleet.gonka.ai",
    version = "v1alpha1",
    kind = "GonkaHost",
    namespaced,
    status = "GonkaHostStatus",
    shortname = "gh",
    category = "gonka",
    derive = "PartialEq",
    doc = "GonkaHost is one participant account of the Gonka network and its network node (DAPI). Slots of ModelDeployments that name it are registered there.",
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.managementPolicy"),
    printcolumn(name = "Window", type_ = "string", json_path = ".status.window"),
    printcolumn(
        name = "Sprint Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='SprintReady')].status"
    ),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.weight"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct GonkaHostSpec {
    /// Name of the SprintSchedule (cluster-scoped) of the network this host belongs to. Required; immutable.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("scheduleName is immutable; a host does not change networks"))]
    pub schedule_name: String,
    /// The participant account. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("account is immutable; make a new GonkaHost for another account"))]
    pub account: Account,
    /// URL under which the network reaches this host, as registered on chain, for example `https://gonka.example.org:8443`. Can change.
    #[serde(rename = "publicURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("publicURL must begin with http:// or https://"))]
    pub public_url: String,
    /// `Observe` (default): pods, slots and rehearsals of ours, status, records and alerts, but no write to DAPI. `Manage`: DAPI is kept as the spec says.
    #[serde(default)]
    pub management_policy: ManagementPolicy,
    /// The network node (DAPI) of this host. Required.
    pub network_node: NetworkNode,
    /// Part this host takes in each model's group. Models not named are `Auto`. At most 64, keyed by model id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["modelID".into()]))]
    pub participation: Vec<Participation>,
    /// How much of this host's weight may be out at once.
    #[serde(default)]
    pub disruption: Disruption,
    /// Prices for the money columns of records. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub economics: Option<Economics>,
}

/// The participant account.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Bech32 address, for example `gonka1…`.
    #[schemars(length(min = 1, max = 128))]
    pub address: String,
    /// Lower-case hex of the 33-byte compressed secp256k1 public key of the cold account. Never a private key.
    #[schemars(regex(pattern = "^0[23][0-9a-f]{64}$"))]
    pub cold_public_key: String,
}

/// How much the operator may touch outside the cluster.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize, strum::Display)]
pub enum ManagementPolicy {
    /// Read only.
    #[default]
    Observe,
    /// DAPI's nodes are kept as the spec says.
    Manage,
}

/// The network node of a host.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'External') == has(self.external)").message("external must be set if and only if type is External"))]
pub struct NetworkNode {
    /// `External`: run by somebody else, reached by URL. (`Managed` comes with a later version.)
    #[serde(rename = "type")]
    pub kind: NetworkNodeKind,
    /// How to reach an external network node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalNetworkNode>,
}

/// Who runs the network node.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum NetworkNodeKind {
    /// Run outside this operator.
    #[default]
    External,
}

/// How to reach an external network node.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalNetworkNode {
    /// DAPI's admin API, for example `http://10.0.0.7:9200`. It has no authentication of its own: reach it over a private network or an authenticating proxy.
    #[serde(rename = "adminURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("adminURL must begin with http:// or https://"))]
    pub admin_url: String,
    /// Bearer token for an authenticating proxy in front of the admin API. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_auth_secret_ref: Option<SecretKeyReference>,
    /// PEM certificates that sign the admin API's certificate. Optional; default: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// DAPI's public API inside the site, for example `http://10.0.0.7:9000`.
    #[serde(rename = "publicURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("publicURL must begin with http:// or https://"))]
    pub public_url: String,
    /// Callback base DAPI is expected to hand to ML nodes, for example `http://10.0.0.7:9100`. Slots prove the way to it before an exam.
    #[serde(rename = "expectedCallbackURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("expectedCallbackURL must begin with http:// or https://"))]
    pub expected_callback_url: String,
}

/// Part in one model's group.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.mode == 'Delegate') == has(self.delegateAddress)").message("delegateAddress must be set if and only if mode is Delegate"))]
pub struct Participation {
    /// Model id.
    #[serde(rename = "modelID")]
    #[schemars(length(min = 1, max = 253))]
    pub model_id: String,
    /// What to do about it. Default `Auto`.
    #[serde(default)]
    pub mode: ParticipationMode,
    /// Address that receives the delegation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub delegate_address: Option<String>,
}

/// Part in a model's group.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ParticipationMode {
    /// Prove the model on our own slots.
    Serve,
    /// Delegate to another host.
    Delegate,
    /// Refuse.
    Refuse,
    /// Serve where slots exist; else nothing is sent.
    #[default]
    Auto,
}

/// How much of the weight may be out at once.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Upper bound in basis points of the host's weight, 0 to 909. Default 300. The effective budget also subtracts what is unhealthy already.
    #[serde(default = "Disruption::max_weight")]
    #[schemars(range(min = 0, max = 909))]
    pub max_weight_basis_points: i32,
    /// Whether anything may be disrupted while an exam is possible (window Amber). Default `Never`.
    #[serde(default)]
    pub allow_in_inference: AllowInInference,
}

impl Disruption {
    fn max_weight() -> i32 {
        300
    }
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            max_weight_basis_points: Self::max_weight(),
            allow_in_inference: AllowInInference::default(),
        }
    }
}

/// Whether the free margin may be used outside Green windows.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AllowInInference {
    /// Only in Green windows.
    #[default]
    Never,
    /// Also in Amber, within the budget.
    WithinMargin,
}

/// Prices for the money columns of records.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Economics {
    /// ISO 4217 code, for example `USD`.
    #[schemars(regex(pattern = "^[A-Z]{3}$"))]
    pub currency: String,
    /// Millionths of the currency per GPU hour.
    #[schemars(range(min = 0))]
    pub gpu_hour_price_micro: i64,
    /// Millionths of the currency per kilowatt hour.
    #[serde(rename = "energyPriceMicroPerKWh")]
    #[schemars(range(min = 0))]
    pub energy_price_micro_per_kwh: i64,
}

/// What the host is worth and whether the next exam will be passed. Written by the operator.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GonkaHostStatus {
    /// Generation of the spec this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// First six hex digits of this installation's id, the prefix of DAPI node ids it makes. Never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_id: Option<String>,
    /// Effective window of this host: the schedule's, or `Challenge`.
    #[serde(default)]
    pub window: Window,
    /// Weight in the current epoch, as the chain reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Weight our own slots are expected to prove in the next Sprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_weight: Option<i64>,
    /// Callback base seen in DAPI's configuration or last request.
    #[serde(rename = "callbackURL", default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// Our slots as DAPI knows them. At most 512.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["nodeID".into()]))]
    pub registrations: Vec<Registration>,
    /// Nodes in DAPI that are not ours; never changed. At most 512.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub foreign_nodes: Vec<String>,
    /// Rewards of recent epochs, newest first. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["epoch".into()]))]
    pub claims: Vec<Claim>,
    /// Recent exams, newest first; whole records are SprintRuns. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub last_exams: Vec<ExamSummary>,
    /// See `GonkaHost::CONDITIONS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One slot as DAPI knows it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// DAPI node id, `<installID>-<deployment>-<slot>`.
    #[serde(rename = "nodeID")]
    pub node_id: String,
    /// ModelDeployment the slot belongs to.
    pub deployment: LocalReference,
    /// Index of the slot.
    pub slot: i32,
    /// Number DAPI gave the node; its share of the nonces. Absent until registered; kept when DAPI lost the node (`drift` says
    /// `missing` then), which gets it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_num: Option<i32>,
    /// What DAPI says of it: its `current_status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Names of fields that differ from the spec. Empty when in order. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub drift: Vec<String>,
}

/// Reward of one epoch.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Epoch whose reward this is.
    pub epoch: i64,
    /// What the chain shows.
    pub state: ClaimState,
    /// Amount in ngonka, decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_ngonka: Option<String>,
}

/// State of a reward.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum ClaimState {
    /// Settled, not claimed yet.
    Open,
    /// Claimed.
    Claimed,
    /// The window closed unclaimed.
    Lost,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One exam in a line.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExamSummary {
    /// Name of the SprintRun.
    pub name: String,
    /// Kind of the exam.
    pub kind: ExamKind,
    /// First height of generation.
    pub height: i64,
    /// Nonces expected.
    pub expected: i64,
    /// Nonces on chain.
    pub committed: i64,
    /// When it was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_time: Option<Time>,
}

impl GonkaHost {
    /// Condition types of this kind.
    pub const CONDITIONS: [ConditionType; 15] = [
        ConditionType::Accepted,
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
        ConditionType::SprintReady,
        ConditionType::NetworkNodeSynced,
        ConditionType::NodesRegistered,
        ConditionType::FeesPayable,
        ConditionType::GrantsCurrent,
        ConditionType::CollateralCovered,
        ConditionType::ClaimsCurrent,
        ConditionType::ParticipationApplied,
        ConditionType::PubliclyReachable,
        ConditionType::UpgradeStaged,
        ConditionType::Challenged,
    ];
}
