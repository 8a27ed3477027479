//! What a machine has left for slot pods, as far as its Node and the slot pods on it tell. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::model_deployment::ModelDeploymentSpec;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

/// The resource that slot pods ask for.
const GPU: &str = "nvidia.com/gpu";

/// GPUs of one pod.
pub fn of_pod(spec: &ModelDeploymentSpec) -> i64 {
    i64::from(spec.gpus_per_replica.max(0)) * i64::from(spec.replicas_per_slot.max(0))
}

/// The Node has the labels that pods ask for.
pub fn takes(node: &Node, selector: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(key, value)| node.labels().get(key) == Some(value))
}

/// GPUs that no slot pod has; absent where the Node does not tell how many there are.
pub fn left(node: &Node, pods: &[Arc<Pod>]) -> Option<i64> {
    let all: i64 = node.status.as_ref()?.allocatable.as_ref()?.get(GPU)?.0.parse().ok()?;
    let name = node.name_any();
    let here = pods.iter().filter(|pod| {
        let place = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        place == Some(&name) && super::observe::has_not_ended(pod)
    });
    Some(all - here.map(|pod| asked(pod)).sum::<i64>())
}

fn asked(pod: &Pod) -> i64 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let requests = containers.filter_map(|container| container.resources.as_ref()?.requests.as_ref()?.get(GPU));
    requests.filter_map(|quantity| quantity.0.parse::<i64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(machine: &str, phase: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": "tiny-1"},
            "spec": {"nodeName": machine, "containers": [{"name": "slot", "resources": {"requests": {"nvidia.com/gpu": "2"}}}]},
            "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(pod).expect("a Pod"))
    }

    fn node(gpus: Option<&str>) -> Node {
        let allocatable = gpus.map_or_else(|| json!({}), |gpus| json!({"nvidia.com/gpu": gpus}));
        let node = json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}, "status": {"allocatable": allocatable}});
        serde_json::from_value(node).expect("a Node")
    }

    #[test]
    fn gpus_of_pods_that_run_there_are_taken_and_those_of_others_are_not() {
        let pods = [pod("n1", "Running"), pod("n1", "Failed"), pod("n2", "Running")];
        assert_eq!(left(&node(Some("8")), &pods), Some(6));
        assert_eq!(left(&node(None), &pods), None);
    }

    #[test]
    fn a_machine_takes_pods_whose_labels_it_has() {
        let selector = |value: &str| BTreeMap::from([("zone".to_owned(), value.to_owned())]);
        assert!(takes(&node(None), &selector("a")) && !takes(&node(None), &selector("b")));
    }
}
