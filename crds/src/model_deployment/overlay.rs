//! What a user may add to slot pods. Narrow on purpose: nothing here can reach the host or another pod's secrets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Additions to slot pods. There is no hostPath, no secret and no security context: slot pods are untrusted.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodOverlay {
    /// Labels to add. Keys of `fleet.gonka.ai/` are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to add. Keys of `fleet.gonka.ai/` are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Tolerations to add; every NoExecute taint is tolerated already. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// CPU and memory of the engine container; limits must equal requests. GPUs are set by `gpusPerReplica`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Literal environment of the engines. At most 64, keyed by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// Volumes to add. At most 16, keyed by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub volumes: Vec<OverlayVolume>,
    /// Where to mount them, read-only. At most 16, keyed by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    pub volume_mounts: Vec<OverlayMount>,
}

/// One literal environment variable.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Value. Default empty.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// One volume.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'EmptyDir') || has(self.source)").message("source must be set unless type is EmptyDir")
)]
pub struct OverlayVolume {
    /// Name in `volumeMounts`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: VolumeKind,
    /// Name of the ConfigMap or claim, or reference of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub source: Option<String>,
    /// Upper bound of an EmptyDir in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub size_mebibytes: Option<i32>,
}

/// Kinds of volumes a slot pod may have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum VolumeKind {
    /// Scratch space.
    #[default]
    EmptyDir,
    /// An image, read-only.
    Image,
    /// A PersistentVolumeClaim.
    #[serde(rename = "PVC")]
    Pvc,
    /// A ConfigMap.
    ConfigMap,
}

/// Where a volume is mounted.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayMount {
    /// Name in `volumes`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Absolute path in the container.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.startsWith('/run/gonka') && !self.startsWith('/gonka')").message("mountPath must be absolute and outside /gonka and /run/gonka"))]
    pub mount_path: String,
}
