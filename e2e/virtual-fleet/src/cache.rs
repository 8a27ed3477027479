//! What one process believes of the API server: objects as its watches told it, typed, and behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, SprintSchedule, labels};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use operator::model_deployment::decide::{SLOT_ACCOUNT, TRUST_CONFIG_MAP};
use operator::model_deployment::observe::{Children, Objects, is_child};
use operator::model_deployment::{host_part, schedule_part};
use operator::sprint_run::stores::World;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::store::{Id, Kind, Store};

type Place = (String, String);
type Table<K> = BTreeMap<Place, Arc<K>>;

/// The caches of one process.
#[derive(Debug, Default)]
pub struct Caches {
    /// Hosts.
    pub hosts: Table<GonkaHost>,
    /// Deployments.
    pub deployments: Table<ModelDeployment>,
    /// Schedules.
    pub schedules: Table<SprintSchedule>,
    /// Records.
    pub runs: Table<SprintRun>,
    /// Slot pods.
    pub pods: Table<Pod>,
    /// Slots' addresses.
    pub services: Table<Service>,
    /// Slots' assignments.
    pub slices: Table<EndpointSlice>,
    budgets: Table<PodDisruptionBudget>,
    templates: Table<ControllerRevision>,
    accounts: Table<ServiceAccount>,
    config_maps: Table<ConfigMap>,
    /// Machines.
    pub nodes: Table<Node>,
    /// Machines as their agents see them.
    pub gpu_nodes: Table<GpuNode>,
    world: Option<Arc<World>>,
}

/// An object as its type; nothing of what cannot be understood.
fn typed<K: DeserializeOwned>(value: &Value) -> Option<Arc<K>> {
    K::deserialize(value).ok().map(Arc::new)
}

fn set<K: DeserializeOwned>(table: &mut Table<K>, id: &Id, value: Option<&Value>) {
    let place = (id.namespace.clone(), id.name.clone());
    match value.and_then(typed) {
        Some(object) => table.insert(place, object),
        None => table.remove(&place),
    };
}

/// The same; true when the part that matters is another than before.
fn set_part<K: DeserializeOwned, P: PartialEq>(
    table: &mut Table<K>,
    (id, value): (&Id, Option<&Value>),
    part: impl Fn(&K) -> P,
) -> bool {
    let place = (id.namespace.clone(), id.name.clone());
    let before = table.get(&place).map(|object| part(object));
    set(table, id, value);
    let now = table.get(&place).map(|object| part(object));
    now.is_none() || before != now
}

fn place(namespace: &str, name: &str) -> Place {
    (namespace.to_owned(), name.to_owned())
}

impl Caches {
    /// Takes one change in. False: it is a status of which deployments depend on nothing that changed.
    pub fn take(&mut self, id: &Id, value: Option<&Value>) -> bool {
        self.forget_world(id.kind);
        match id.kind {
            Kind::SprintSchedule => return set_part(&mut self.schedules, (id, value), schedule_part),
            Kind::GonkaHost => return set_part(&mut self.hosts, (id, value), host_part),
            Kind::ModelDeployment => set(&mut self.deployments, id, value),
            Kind::GpuNode => set(&mut self.gpu_nodes, id, value),
            Kind::SprintRun => set(&mut self.runs, id, value),
            Kind::Pod => set(&mut self.pods, id, value),
            Kind::Service => set(&mut self.services, id, value),
            Kind::EndpointSlice => set(&mut self.slices, id, value),
            Kind::PodDisruptionBudget => set(&mut self.budgets, id, value),
            Kind::ControllerRevision => set(&mut self.templates, id, value),
            Kind::ServiceAccount => set(&mut self.accounts, id, value),
            Kind::ConfigMap => set(&mut self.config_maps, id, value),
            Kind::Node => set(&mut self.nodes, id, value),
            Kind::NodeHealthCheck => {}
        }
        true
    }

    /// Replaces a kind by a list.
    pub fn replace(&mut self, kind: Kind, list: &[(Id, Arc<Value>)]) {
        self.forget_world(kind);
        match kind {
            Kind::SprintSchedule => self.schedules.clear(),
            Kind::GonkaHost => self.hosts.clear(),
            Kind::ModelDeployment => self.deployments.clear(),
            Kind::GpuNode => self.gpu_nodes.clear(),
            Kind::SprintRun => self.runs.clear(),
            Kind::Pod => self.pods.clear(),
            Kind::Service => self.services.clear(),
            Kind::EndpointSlice => self.slices.clear(),
            Kind::PodDisruptionBudget => self.budgets.clear(),
            Kind::ControllerRevision => self.templates.clear(),
            Kind::ServiceAccount => self.accounts.clear(),
            Kind::ConfigMap => self.config_maps.clear(),
            Kind::Node => self.nodes.clear(),
            Kind::NodeHealthCheck => {}
        }
        for (id, value) in list {
            self.take(id, Some(value));
        }
    }

    /// What records are made from.
    pub fn world(&mut self) -> Arc<World> {
        let made = self.world.take().unwrap_or_else(|| {
            Arc::new(World::new(
                self.hosts.values().cloned().collect(),
                self.deployments.values().cloned().collect(),
                self.runs.values().cloned().collect(),
                self.schedules.values().cloned().collect(),
            ))
        });
        self.world = Some(made.clone());
        made
    }

    fn forget_world(&mut self, kind: Kind) {
        let of_records = [
            Kind::GonkaHost,
            Kind::ModelDeployment,
            Kind::SprintRun,
            Kind::SprintSchedule,
        ];
        if of_records.contains(&kind) {
            self.world = None;
        }
    }

    /// Names of machines with GPUs, and of those that have an object.
    pub fn machines(&self) -> (Vec<&String>, Vec<&String>) {
        let with_gpus = self.nodes.iter().filter(|(_, node)| {
            let labels = node.metadata.labels.as_ref();
            labels.is_some_and(|labels| labels.contains_key("nvidia.com/gpu.present"))
        });
        (
            with_gpus.map(|((_, name), _)| name).collect(),
            self.gpu_nodes.keys().map(|(_, name)| name).collect(),
        )
    }
}

/// Objects of a kind as a list request returns them. One that the cache has in the same version is not parsed again.
fn listed<K>(known: &Table<K>, list: &[(Id, Arc<Value>)]) -> Vec<Arc<K>>
where
    K: DeserializeOwned + kube::Resource,
{
    let mut known = known.iter().peekable();
    let mut parsed = |(id, value): &(Id, Arc<Value>)| {
        let before = |(namespace, name): &Place| (namespace, name) < (&id.namespace, &id.name);
        while known.next_if(|(place, _)| before(place)).is_some() {}
        let same = known.peek().filter(|((namespace, name), object)| {
            let version = object.meta().resource_version.as_deref();
            (namespace, name) == (&id.namespace, &id.name)
                && version == value["metadata"]["resourceVersion"].as_str()
                && object.meta().uid.as_deref() == value["metadata"]["uid"].as_str()
        });
        same.map(|(_, object)| Arc::clone(object)).or_else(|| typed(value))
    };
    list.iter().filter_map(&mut parsed).collect()
}

/// Objects of a kind as they are, or were at a version.
pub fn list_of(store: &Store, kind: Kind, at: Option<u64>) -> Vec<(Id, Arc<Value>)> {
    match at {
        Some(version) => store.list_at(kind, version),
        None => store
            .list(kind)
            .map(|(id, value)| (id.clone(), value.clone()))
            .collect(),
    }
}

impl Caches {
    /// A deployment's children as lists show them.
    pub fn list_children(&self, store: &Store, at: Option<u64>) -> Children {
        let list = |kind| list_of(store, kind, at);
        Children {
            pods: listed(&self.pods, &list(Kind::Pod)),
            services: listed(&self.services, &list(Kind::Service)),
            slices: listed(&self.slices, &list(Kind::EndpointSlice)),
            budgets: listed(&self.budgets, &list(Kind::PodDisruptionBudget)),
            templates: listed(&self.templates, &list(Kind::ControllerRevision)),
        }
    }

    /// What a pass over a host lists.
    pub fn list_for_host(&self, store: &Store, at: Option<u64>) -> (Hosts, Deployments, Services) {
        let list = |kind| list_of(store, kind, at);
        (
            listed(&self.hosts, &list(Kind::GonkaHost)),
            listed(&self.deployments, &list(Kind::ModelDeployment)),
            listed(&self.services, &list(Kind::Service)),
        )
    }
}

type Hosts = Vec<Arc<GonkaHost>>;
type Deployments = Vec<Arc<ModelDeployment>>;
type Services = Vec<Arc<Service>>;

fn of<K: kube::Resource>(table: &Table<K>, deployment: &ModelDeployment) -> Vec<Arc<K>> {
    table
        .values()
        .filter(|object| is_child(object.as_ref(), deployment))
        .cloned()
        .collect()
}

impl Objects for Caches {
    fn host(&self, namespace: &str, name: &str) -> Option<Arc<GonkaHost>> {
        self.hosts.get(&place(namespace, name)).cloned()
    }

    fn schedule(&self, name: &str) -> Option<Arc<SprintSchedule>> {
        self.schedules.get(&place("", name)).cloned()
    }

    fn pods(&self, deployment: &ModelDeployment) -> Vec<Arc<Pod>> {
        of(&self.pods, deployment)
    }

    fn all_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.values().cloned().collect()
    }

    fn services(&self, deployment: &ModelDeployment) -> Vec<Arc<Service>> {
        of(&self.services, deployment)
    }

    fn slices(&self, deployment: &ModelDeployment) -> Vec<Arc<EndpointSlice>> {
        of(&self.slices, deployment)
    }

    fn budget(&self, namespace: &str, name: &str) -> Option<Arc<PodDisruptionBudget>> {
        self.budgets.get(&place(namespace, name)).cloned()
    }

    fn templates(&self, deployment: &ModelDeployment) -> Vec<Arc<ControllerRevision>> {
        of(&self.templates, deployment)
    }

    fn runs(&self, namespace: &str, host: &str) -> Vec<Arc<SprintRun>> {
        let of_host = |run: &&Arc<SprintRun>| {
            run.metadata.namespace.as_deref() == Some(namespace) && run.spec.host_ref.name == host
        };
        self.runs.values().filter(of_host).cloned().collect()
    }

    fn account(&self, namespace: &str) -> Option<Arc<ServiceAccount>> {
        self.accounts.get(&place(namespace, SLOT_ACCOUNT)).cloned()
    }

    fn trust(&self, namespace: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(&place(namespace, TRUST_CONFIG_MAP)).cloned()
    }

    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.get(&place("", name)).cloned()
    }

    fn gpu_node(&self, name: &str) -> Option<Arc<GpuNode>> {
        self.gpu_nodes.get(&place("", name)).cloned()
    }

    fn gpu_nodes(&self) -> Vec<Arc<GpuNode>> {
        self.gpu_nodes.values().cloned().collect()
    }
}

/// The deployment a pod's label names.
pub fn deployment_of(pod: &Pod) -> Option<&String> {
    pod.metadata.labels.as_ref()?.get(labels::DEPLOYMENT)
}
