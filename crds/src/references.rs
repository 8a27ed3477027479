//! References between objects and small shapes that several kinds share.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names an object of a known kind in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// Name of the object. Required.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Names an object and its UID, so that one of the same name made later is not mistaken for it.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UidReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID of the object.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data. Default `token`.
    #[serde(default = "default_secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_secret_key() -> String {
    "token".to_owned()
}

/// Kind of an exam.
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
pub enum ExamKind {
    /// Regular proof of compute, once per epoch.
    Sprint,
    /// Confirmation PoC (cPoC), by surprise.
    Confirmation,
    /// Paid challenge of one host.
    Challenge,
    /// A kind this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What the Window Gate allows at a height.
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
    strum::VariantArray,
)]
pub enum Window {
    /// No exam can be announced before `greenUntilHeight`.
    Green,
    /// Inference, with an exam possible at two blocks' notice; or close before a Sprint.
    Amber,
    /// A confirmation PoC runs, from its trigger until it is cleared.
    Confirmation,
    /// A Sprint generates.
    Sprint,
    /// A Sprint is validated: door, DAPI and artifacts are untouchable.
    Validation,
    /// An upgrade height is near.
    UpgradeFreeze,
    /// The host is under challenge.
    Challenge,
    /// The chain is not known well enough. Blocks every disruption, never serving.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Where an epoch stands.
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
pub enum Stage {
    /// Between two Sprints.
    Inference,
    /// Nonces are generated and retried.
    SprintGeneration,
    /// Nonces are generated, a node that has not started will not be asked again.
    SprintWindDown,
    /// Generation ended, validation has not begun.
    SprintExchange,
    /// Validators recompute samples.
    SprintValidation,
    /// Votes are tallied and weights formed.
    SprintSettling,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}
