//! Box 2: all machines, and what runs on them, out of the watch stores. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::gpu_node::{MaintenanceStage, NodeEnrollment};
use crds::labels;
use crds::model_deployment::{SlotState, SlotStatus, SpareState};
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintSchedule};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::DynamicObject;

use super::observed::{Deployment, GpuNodeSeen, HealthCheck, Host, Machine, NodeSeen, Observed, PodHere};
use super::room;
use super::switches::{Place, SWITCHES};
use crate::facts::Facts;
use crate::gate::host::{self, Part};
use crate::model_deployment::decide::assignment;

/// Everything that is read, in any order.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Machines as Kubernetes sees them.
    pub nodes: Vec<Arc<Node>>,
    /// Machines as their agents see them.
    pub gpu_nodes: Vec<Arc<GpuNode>>,
    /// Slot pods.
    pub pods: Vec<Arc<Pod>>,
    /// Slots' EndpointSlices.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Deployments.
    pub deployments: Vec<Arc<ModelDeployment>>,
    /// Hosts.
    pub hosts: Vec<Arc<GonkaHost>>,
    /// Schedules.
    pub schedules: Vec<Arc<SprintSchedule>>,
    /// NodeHealthChecks.
    pub checks: Vec<DynamicObject>,
}

impl Lists {
    /// Where nobody wishes anything the same machines, pods and health checks say the same: the very objects of another look, whose
    /// addresses both keep alive. Hosts, deployments, slices and the chain have a say in wishes alone.
    pub fn has_same_machines(&self, other: &Self) -> bool {
        fn same<K>(some: &[Arc<K>], others: &[Arc<K>]) -> bool {
            some.len() == others.len() && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
        }
        same(&self.nodes, &other.nodes)
            && same(&self.gpu_nodes, &other.gpu_nodes)
            && same(&self.pods, &other.pods)
            && self.checks == other.checks
    }
}

/// The snapshot. Linear in everything that is read.
pub fn assemble(lists: &Lists, facts: &dyn Fn(&str) -> Arc<Facts>, now_ms: i64) -> Observed {
    let checks: Vec<HealthCheck> = lists.checks.iter().map(health_check).collect();
    let keys = label_keys(lists, &checks);
    let mut machines: BTreeMap<String, Machine> = BTreeMap::new();
    for node in &lists.nodes {
        machines.entry(node.name_any()).or_default().node = Some(node_seen(node, &keys));
    }
    for gpu_node in &lists.gpu_nodes {
        machines.entry(gpu_node.name_any()).or_default().gpu_node = Some(gpu_node_seen(gpu_node));
    }
    let holders = holders(&lists.slices);
    let proven = proven(&lists.deployments);
    for pod in lists.pods.iter().filter(|pod| has_not_ended(pod)) {
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let (Some(name), Some(deployment)) = (name, pod.labels().get(labels::DEPLOYMENT)) else {
            continue;
        };
        let uid = pod.uid().unwrap_or_default();
        let deployment = format!("{}/{deployment}", pod.namespace().unwrap_or_default());
        machines.entry(name).or_default().pods.push(PodHere {
            deployment,
            name: pod.name_any(),
            slot: holders.get(&uid).copied(),
            proven: proven.contains(uid.as_str()),
        });
    }
    for machine in machines.values_mut() {
        machine.pods.sort_by(|one, other| one.name.cmp(&other.name));
    }
    let wished = machines.values().any(|machine| machine.is_wished_for(now_ms));
    let deployments = lists.deployments.iter().map(|object| {
        let mut seen = deployment(object);
        seen.is_full = wished && is_full(lists, object, &machines, now_ms);
        (key(object.as_ref()), seen)
    });
    let deployments: BTreeMap<String, Deployment> = deployments.collect();
    let hosts = lists
        .hosts
        .iter()
        .map(|object| (key(object.as_ref()), host_seen(lists, object, &machines, facts)))
        .collect();
    Observed {
        now_ms,
        machines,
        deployments,
        hosts,
        checks,
    }
}

fn key<K: kube::Resource>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// A pod that ended runs nothing; one that is being deleted still does.
pub(super) fn has_not_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Labels of Nodes that anybody here asks for: a Node has dozens more.
fn label_keys<'a>(lists: &'a Lists, checks: &'a [HealthCheck]) -> BTreeSet<&'a str> {
    let domains = lists
        .deployments
        .iter()
        .map(|object| object.spec.placement.failure_domain_key.as_str());
    let selectors = checks.iter().filter_map(|check| check.match_labels.as_ref());
    SWITCHES
        .iter()
        .filter(|switch| switch.place == Place::Label)
        .map(|switch| switch.key)
        .chain(domains)
        .chain(selectors.flat_map(|labels| labels.keys().map(String::as_str)))
        .collect()
}

fn node_seen(node: &Node, keys: &BTreeSet<&str>) -> NodeSeen {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let pick = |values: &BTreeMap<String, String>, wanted: &dyn Fn(&str) -> bool| {
        values
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let ours = |key: &str| {
        key == labels::PREVIOUS_VALUES
            || SWITCHES
                .iter()
                .any(|switch| switch.place == Place::Annotation && switch.key == key)
    };
    NodeSeen {
        uid: node.uid().unwrap_or_default(),
        resource_version: node.resource_version().unwrap_or_default(),
        ready: conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        unschedulable: node
            .spec
            .as_ref()
            .and_then(|spec| spec.unschedulable)
            .unwrap_or_default(),
        labels: pick(node.labels(), &|key| keys.contains(key)),
        annotations: pick(node.annotations(), &ours),
    }
}

fn gpu_node_seen(gpu_node: &GpuNode) -> GpuNodeSeen {
    GpuNodeSeen {
        uid: gpu_node.uid().unwrap_or_default(),
        generation: gpu_node.metadata.generation,
        wish: gpu_node.spec.maintenance.clone(),
        answer: gpu_node.status.as_ref().and_then(|status| status.maintenance.clone()),
    }
}

/// Slot by the UID of the pod that a slice names.
fn holders(slices: &[Arc<EndpointSlice>]) -> BTreeMap<String, i32> {
    slices
        .iter()
        .filter_map(|slice| {
            let slot = slice.labels().get(labels::SLOT)?.parse().ok()?;
            Some((assignment(slice).holder?.uid, slot))
        })
        .collect()
}

/// UIDs of pods that passed a rehearsal since their last start.
fn proven(deployments: &[Arc<ModelDeployment>]) -> BTreeSet<&str> {
    let statuses = deployments.iter().filter_map(|object| object.status.as_ref());
    statuses
        .flat_map(|status| {
            let slots = status.slots.iter().filter(|slot| slot.rehearsed_time.is_some());
            let slots = slots.filter_map(|slot| Some(slot.pod_ref.as_ref()?.uid.as_str()));
            let spares = status.spares.iter().filter(|spare| spare.state == SpareState::Ready);
            slots.chain(spares.map(|spare| spare.pod_uid.as_str()))
        })
        .collect()
}

fn deployment(object: &ModelDeployment) -> Deployment {
    let status = object.status.clone().unwrap_or_default();
    let namespace = object.namespace().unwrap_or_default();
    Deployment {
        host: format!("{namespace}/{}", object.spec.host_ref.name),
        domain_key: object.spec.placement.failure_domain_key.clone(),
        spares: status
            .spares
            .iter()
            .filter(|spare| spare.state == SpareState::Ready)
            .filter_map(|spare| spare.node_name.clone())
            .collect(),
        is_full: false,
        weights: host::weights(object),
    }
}

/// No machine that stays has GPUs left for one more pod of the deployment.
fn is_full(lists: &Lists, object: &ModelDeployment, machines: &BTreeMap<String, Machine>, now_ms: i64) -> bool {
    let excluded = |name: &str| {
        let mut excluded = lists.gpu_nodes.iter();
        excluded.any(|gpu_node| gpu_node.name_any() == name && gpu_node.spec.enrollment == NodeEnrollment::Excluded)
    };
    let (wanted, selector) = (room::of_pod(&object.spec), &object.spec.placement.node_selector);
    !lists.nodes.iter().any(|node| {
        let name = node.name_any();
        let stays = machines.get(&name).is_some_and(|machine| {
            let ready = machine.node.as_ref().is_some_and(|node| node.ready);
            ready && machine.gpu_node.is_some() && !machine.is_wished_for(now_ms)
        });
        stays
            && !excluded(&name)
            && room::takes(node, selector)
            && room::left(node, &lists.pods).is_none_or(|left| left >= wanted)
    })
}

fn host_seen(
    lists: &Lists,
    host: &GonkaHost,
    machines: &BTreeMap<String, Machine>,
    facts: &dyn Fn(&str) -> Arc<Facts>,
) -> Host {
    let schedule = lists
        .schedules
        .iter()
        .find(|schedule| schedule.name_any() == host.spec.schedule_name);
    let margins = schedule
        .map(|schedule| schedule.spec.margins.clone())
        .unwrap_or_default();
    let namespace = host.namespace();
    let released = |node: Option<&String>| {
        node.and_then(|name| machines.get(name))
            .is_some_and(|machine| machine.stage() == Some(MaintenanceStage::Released))
    };
    let parts: Vec<Part> = lists
        .deployments
        .iter()
        .filter(|object| object.namespace() == namespace && object.spec.host_ref.name == host.name_any())
        .flat_map(|object| {
            let slots = object.status.iter().flat_map(|status| &status.slots);
            let slots: BTreeMap<i32, &SlotStatus> = slots.map(|slot| (slot.index, slot)).collect();
            host::weights(object).into_iter().map(move |(index, weight)| {
                let slot = slots.get(&index);
                Part {
                    weight,
                    healthy: slot
                        .is_some_and(|slot| matches!(slot.state, SlotState::SprintReady | SlotState::Generating)),
                    released: released(slot.and_then(|slot| slot.node_name.as_ref())),
                }
            })
        })
        .collect();
    Host {
        facts: facts(&host.spec.schedule_name).as_ref().clone(),
        state: host::state(host, &margins, &parts),
        weight: parts.iter().map(|part| part.weight).sum(),
        load_millis: i64::from(margins.cold_load_seconds) * 1000,
    }
}

fn health_check(object: &DynamicObject) -> HealthCheck {
    let selector = &object.data["spec"]["selector"];
    let expressions = selector["matchExpressions"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    HealthCheck {
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        match_labels: (!expressions).then(|| {
            labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        }),
        pause_requests: object.data["spec"]["pauseRequests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|request| request.as_str().map(str::to_owned))
            .collect(),
    }
}
