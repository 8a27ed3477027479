//! A pod as a decision sees it. Pure.

use std::collections::BTreeSet;

use crds::labels;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;

use crate::model_deployment::decide::DEPLOYMENT_UID;
use crate::model_deployment::observed::{Phase, PodSeen};

/// Reads one pod. `deployment`: UID of the one it is read for.
pub fn seen(pod: &Pod, deployment: &str) -> PodSeen {
    let label = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let condition = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|condition| condition.type_ == "Ready");
    let phase = match status.phase.as_deref() {
        Some("Pending") => Phase::Pending,
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        _ => Phase::Unknown,
    };
    PodSeen {
        uid: pod.uid().unwrap_or_default(),
        revision: label(labels::REVISION),
        slot: label(labels::SLOT),
        protected: label(labels::PROTECTED) == "true",
        node_name: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        // An address of a pod that is not running may be somebody else's already.
        address: if phase == Phase::Running {
            status.pod_ip.unwrap_or_default()
        } else {
            String::new()
        },
        phase,
        ready: condition.as_ref().is_some_and(|condition| condition.status == "True"),
        ready_since_ms: condition
            .and_then(|condition| condition.last_transition_time)
            .map(|time| time.0.as_millisecond())
            .unwrap_or_default(),
        created_ms: pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_millisecond())
            .unwrap_or_default(),
        leaving: pod.metadata.deletion_timestamp.is_some(),
        orphaned: controller(pod).is_some_and(|owner| owner.uid != deployment),
        made_for: made_for(pod)
            .filter(|uid| *uid != deployment)
            .cloned()
            .unwrap_or_default(),
        avoids: avoids(pod),
    }
}

/// Who owns the pod.
pub fn controller(pod: &Pod) -> Option<&OwnerReference> {
    let mut owners = pod.owner_references().iter();
    owners.find(|reference| reference.controller == Some(true))
}

/// UID of a deployment that stands in the pod's environment: it cannot change while the pod lives.
fn made_for(pod: &Pod) -> Option<&String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut variables = containers.flat_map(|container| container.env.iter().flatten());
    variables
        .find(|variable| variable.name == DEPLOYMENT_UID)?
        .value
        .as_ref()
}

/// Machines that a pod on no machine yet was made to stay away from.
fn avoids(pod: &Pod) -> BTreeSet<String> {
    let spec = pod.spec.as_ref().filter(|spec| spec.node_name.is_none());
    let required = spec
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required
        .iter()
        .flat_map(|required| &required.node_selector_terms)
        .flat_map(|term| term.match_fields.iter().flatten())
        .filter(|field| field.key == "metadata.name" && field.operator == "NotIn")
        .flat_map(|field| field.values.iter().flatten().cloned())
        .collect()
}
