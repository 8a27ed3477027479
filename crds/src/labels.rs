//! Label and annotation keys, field managers and the names derived from them: one place for what several parts write.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// Name of the GonkaHost an object serves.
pub const HOST: &str = "fleet.gonka.ai/host";
/// Name of the ModelDeployment an object belongs to.
pub const DEPLOYMENT: &str = "fleet.gonka.ai/deployment";
/// Index of the slot a Service or slice is for. On a pod: the slot it holds, or `spare`.
pub const SLOT: &str = "fleet.gonka.ai/slot";
/// Value of [`SLOT`] on a pod that holds none.
pub const SLOT_SPARE: &str = "spare";
/// Ten hex digits of the pod template's hash.
pub const REVISION: &str = "fleet.gonka.ai/revision";
/// What the object is: see the `ROLE_*` values.
pub const ROLE: &str = "fleet.gonka.ai/role";
/// A pod with engines.
pub const ROLE_SLOT_POD: &str = "slot-pod";
/// A slot's Service or EndpointSlice.
pub const ROLE_SLOT: &str = "slot";
/// The node agent.
pub const ROLE_AGENT: &str = "agent";
/// The operator itself.
pub const ROLE_OPERATOR: &str = "operator";
/// `"true"`: admission policies let only the operator delete this object.
pub const PROTECTED: &str = "fleet.gonka.ai/protected";

/// On a slot's EndpointSlice: the assignment's generation, a decimal `int64`.
pub const GENERATION: &str = "fleet.gonka.ai/generation";
/// On every object that owns something outside the cluster; the prefix of DAPI node ids.
pub const INSTALL_ID: &str = "fleet.gonka.ai/install-id";
/// JSON of foreign switches as they were, to be restored.
pub const PREVIOUS_VALUES: &str = "fleet.gonka.ai/previous-values";
/// Why a protected object may be deleted after all; only subjects with the verb `breakglass` may set it.
pub const BREAK_GLASS: &str = "fleet.gonka.ai/break-glass";
/// When [`BREAK_GLASS`] is taken off again, RFC 3339; written by the operator when it first sees the reason.
pub const BREAK_GLASS_UNTIL: &str = "fleet.gonka.ai/break-glass-until";
/// On a GonkaHost: closes a tripped circuit breaker for a while; the value is the reason.
pub const REARM: &str = "fleet.gonka.ai/rearm";
/// When [`REARM`] is taken off again, RFC 3339; written by the operator when it first sees the reason.
pub const REARM_UNTIL: &str = "fleet.gonka.ai/rearm-until";

/// `endpointslice.kubernetes.io/managed-by` of the slices the operator writes.
pub const SLICE_MANAGED_BY: &str = "fleet.gonka.ai";

/// Prefix of slot Services; admission policies know a slot Service by it.
pub const SLOT_SERVICE_PREFIX: &str = "slot-";

/// Field manager of one controller of the operator, for example `gonka-fleet/model-deployment`.
pub fn field_manager(controller: &str) -> String {
    format!("gonka-fleet/{controller}")
}

/// Name of a slot's Service and of its EndpointSlice.
pub fn slot_service_name(deployment: &str, slot: i32) -> String {
    format!("{SLOT_SERVICE_PREFIX}{deployment}-{slot}")
}

/// DAPI id of a slot's ML node.
pub fn dapi_node_id(install_id: &str, deployment: &str, slot: i32) -> String {
    format!("{install_id}-{deployment}-{slot}")
}

/// A CRD whose deletion would take every slot with it carries the protection label.
pub(crate) fn protect_crd(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata
        .labels
        .get_or_insert_default()
        .insert(PROTECTED.to_owned(), "true".to_owned());
    crd.metadata
        .annotations
        .get_or_insert_default()
        .insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    crd
}
