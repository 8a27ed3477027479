//! The API contract of gonka-fleet: group `fleet.gonka.ai`, version `v1alpha1`, category `gonka`.
//!
//! | kind | scope | short | what it is | written by |
//! |---|---|---|---|---|
//! | [`SprintSchedule`] | cluster | `sprint` | the network's clock | spec: people; status: operator |
//! | [`GonkaHost`] | namespace | `gh` | one participant account and its network node | spec: people; status: operator |
//! | [`ModelDeployment`] | namespace | `gmd` | a model on slots | spec: people; status: operator |
//! | [`GpuNode`] | cluster | `gpun` | one machine | spec: people and operator; status: that node's agent |
//! | [`SprintRun`] | namespace | `srun` | the record of one exam of one host | operator, once |
//!
//! A doc comment here *is* what `kubectl explain` prints. Types only: no client, no clock, no I/O.
//! `tests/generated.rs` keeps `crds/yaml` and the CRD chart equal to these types.

#![allow(
    clippy::duplicated_attributes,
    reason = "clippy reads two print columns of one type as one attribute written twice"
)]
#![allow(
    clippy::struct_field_names,
    reason = "the API's conventions put the unit or the kind into the name"
)]

pub mod conditions;
pub mod gonka_host;
pub mod gpu_node;
pub mod labels;
pub mod model_deployment;
pub mod references;
pub mod sprint_run;
pub mod sprint_schedule;
pub mod sprint_view;

pub use gonka_host::{GonkaHost, GonkaHostSpec, GonkaHostStatus};
pub use gpu_node::{GpuNode, GpuNodeSpec, GpuNodeStatus};
pub use model_deployment::{ModelDeployment, ModelDeploymentSpec, ModelDeploymentStatus};
pub use sprint_run::{SprintRun, SprintRunSpec, SprintRunStatus};
pub use sprint_schedule::{SprintSchedule, SprintScheduleSpec, SprintScheduleStatus};

/// API group of every kind.
pub const GROUP: &str = "fleet.gonka.ai";
/// API version of every kind.
pub const VERSION: &str = "v1alpha1";

/// Every CRD of the project, in the order in which they are installed.
pub fn all_crds() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::core::CustomResourceExt as _;
    [
        SprintSchedule::crd(),
        GonkaHost::crd(),
        ModelDeployment::crd(),
        GpuNode::crd(),
        SprintRun::crd(),
    ]
    .into_iter()
    .map(labels::protect_crd)
    .collect()
}
