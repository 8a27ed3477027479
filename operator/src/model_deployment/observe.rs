//! Box 2, observe: reads one deployment's world out of the watch stores and the live board. Reads only; the clock is read
//! here and nowhere else.
//!
//! Stores may be behind. A pass that wants to write reads its own children again from the API server first
//! ([`refresh`]), so that nothing is made twice because of an old list.

pub mod golden;
mod live;
mod machines;
mod pods;

pub use live::{of_report, significant};
pub use pods::seen as pod_seen;

use std::collections::{BTreeMap, BTreeSet};

use crds::{GonkaHost, GpuNode, ModelDeployment, SprintSchedule, labels};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::decide::{SLOT_ACCOUNT, TRUST_CONFIG_MAP};
use super::observed::{GoldenSeen, Install, Observed, Schedule};
use crate::context::{Context, Settings};
use crate::facts::Facts;
use crate::slot_door::Doors;

/// What is watched.
#[derive(Clone)]
pub struct Stores {
    /// The objects of this controller.
    pub deployments: Store<ModelDeployment>,
    /// Hosts.
    pub hosts: Store<GonkaHost>,
    /// Schedules.
    pub schedules: Store<SprintSchedule>,
    /// Slot pods.
    pub pods: Store<Pod>,
    /// Slot Services.
    pub services: Store<Service>,
    /// Slot EndpointSlices.
    pub slices: Store<EndpointSlice>,
    /// Disruption budgets of deployments.
    pub budgets: Store<PodDisruptionBudget>,
    /// ServiceAccounts of slot pods.
    pub accounts: Store<ServiceAccount>,
    /// ConfigMaps with keys.
    pub trust: Store<ConfigMap>,
    /// Machines as Kubernetes sees them.
    pub nodes: Store<Node>,
    /// Machines as their agents see them.
    pub gpu_nodes: Store<GpuNode>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Stores")
            .field("deployments", &self.deployments.len())
            .field("pods", &self.pods.len())
            .finish_non_exhaustive()
    }
}

/// The world could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a get or list.
    #[error("{kind} of deployment {deployment} could not be read from the API server")]
    Api {
        /// Plural of the kind.
        kind: String,
        /// Namespace and name.
        deployment: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The watch is behind: what it shows is gone. The watch will tell what is there instead.
    #[error(
        "deployment {deployment} is not the one that is watched any more; nothing is written for the one that is gone"
    )]
    Replaced {
        /// Namespace and name.
        deployment: String,
    },
}

/// Reads the world of one deployment from the stores.
pub fn gather(
    context: &Context,
    stores: &Stores,
    doors: &Doors,
    deployment: &ModelDeployment,
    golden: GoldenSeen,
    trust_keys: Option<String>,
) -> Observed {
    let now_ms = Timestamp::now().as_millisecond();
    let namespace = deployment.namespace().unwrap_or_default();
    let host = stores
        .hosts
        .get(&ObjectRef::new(&deployment.spec.host_ref.name).within(&namespace));
    let schedule = host
        .as_ref()
        .and_then(|host| stores.schedules.get(&ObjectRef::new(&host.spec.schedule_name)));
    let facts = host.as_ref().map_or_else(Facts::default, |host| {
        context.book.facts(&host.spec.schedule_name).as_ref().clone()
    });
    let mut observed = Observed {
        now_ms,
        install: install(&context.settings),
        deployment: deployment.clone(),
        host: host.map(|host| host.as_ref().clone()),
        schedule: schedule.map(|schedule| Schedule {
            chain_id: schedule.spec.chain_id.clone(),
            margins: schedule.spec.margins.clone(),
        }),
        facts,
        pods: BTreeMap::new(),
        left_behind: BTreeMap::new(),
        services: children(&stores.services, deployment),
        slices: children(&stores.slices, deployment),
        budget: stores
            .budgets
            .get(&ObjectRef::new(&deployment.name_any()).within(&namespace))
            .map(|budget| budget.as_ref().clone()),
        account: stores
            .accounts
            .get(&ObjectRef::new(SLOT_ACCOUNT).within(&namespace))
            .map(|account| account.as_ref().clone()),
        trust: stores
            .trust
            .get(&ObjectRef::new(TRUST_CONFIG_MAP).within(&namespace))
            .map(|trust| trust.as_ref().clone()),
        trust_keys,
        golden,
        machines: BTreeMap::new(),
        live: BTreeMap::new(),
        rounds: BTreeMap::new(),
    };
    let pods = stores.pods.state_filter(|pod| is_child(pod, deployment));
    set_pods(&mut observed, pods.iter().map(AsRef::as_ref));
    observed.machines = machines::all(stores, &observed);
    hear(context, doors, &mut observed);
    observed
}

/// Reads the children again, from the API server itself. An error when the deployment itself is another by now: its
/// children would be made for an owner that is gone, or those of its successor be taken for old ones.
pub async fn refresh(context: &Context, doors: &Doors, observed: &mut Observed) -> Result<(), Error> {
    let client = &context.client;
    let deployment = observed.deployment.clone();
    still_there(client, &deployment).await?;
    let pods: Vec<Pod> = list(client, &deployment).await?;
    let services: Vec<Service> = list(client, &deployment).await?;
    let slices: Vec<EndpointSlice> = list(client, &deployment).await?;
    let budgets: Vec<PodDisruptionBudget> = list(client, &deployment).await?;
    set_pods(observed, pods.iter().filter(|pod| is_child(*pod, &deployment)));
    observed.services = by_name(services.into_iter().filter(|item| is_child(item, &deployment)));
    observed.slices = by_name(slices.into_iter().filter(|item| is_child(item, &deployment)));
    observed.budget = budgets
        .into_iter()
        .find(|budget| budget.name_any() == deployment.name_any());
    observed.now_ms = Timestamp::now().as_millisecond();
    hear(context, doors, observed);
    Ok(())
}

async fn still_there(client: &Client, deployment: &ModelDeployment) -> Result<(), Error> {
    let namespace = deployment.namespace().unwrap_or_default();
    let name = deployment.name_any();
    let known = Api::<ModelDeployment>::namespaced(client.clone(), &namespace)
        .get_metadata_opt(&name)
        .await
        .map_err(|source| Error::Api {
            kind: ModelDeployment::plural(&()).into_owned(),
            deployment: format!("{namespace}/{name}"),
            source: Box::new(source),
        })?;
    if known.is_some_and(|known| known.metadata.uid == deployment.metadata.uid) {
        return Ok(());
    }
    Err(Error::Replaced {
        deployment: format!("{namespace}/{name}"),
    })
}

fn set_pods<'a>(observed: &mut Observed, pods: impl Iterator<Item = &'a Pod>) {
    let owner = observed.uid().to_owned();
    let name = observed.name().to_owned();
    let (mut children, mut left_behind) = (BTreeMap::new(), BTreeMap::new());
    for pod in pods {
        let Some(reference) = pod
            .owner_references()
            .iter()
            .find(|reference| reference.controller == Some(true))
        else {
            continue;
        };
        if reference.uid == owner {
            children.insert(pod.name_any(), pods::seen(pod));
        } else if reference.kind == ModelDeployment::kind(&()) && reference.name == name {
            left_behind.insert(pod.name_any(), pods::seen(pod));
        }
    }
    observed.pods = children;
    observed.left_behind = left_behind;
}

/// What the slots say, and what they did in the exam at hand.
fn hear(context: &Context, doors: &Doors, observed: &mut Observed) {
    observed.live = observed
        .pods
        .values()
        .filter_map(|pod| Some((pod.uid.clone(), live::hear(&context.live, doors, &pod.uid)?)))
        .collect();
    let running = observed.facts.exam.as_ref().map(|exam| exam.generation_start_height);
    let active = observed
        .live
        .values()
        .filter_map(|live| live.round.as_ref())
        .filter(|round| round.active)
        .map(|round| round.height)
        .max();
    observed.rounds = BTreeMap::new();
    if let Some(height) = running.or(active) {
        let slots = 0..observed.deployment.spec.slots;
        let ids: BTreeSet<String> = slots.map(|slot| observed.node_id(slot)).collect();
        for id in ids {
            let rounds: Vec<_> = context.live.rounds(&id, height).iter().map(live::round).collect();
            if !rounds.is_empty() {
                observed.rounds.insert(id, rounds);
            }
        }
    }
}

fn install(settings: &Settings) -> Install {
    Install {
        namespace: settings.namespace.clone(),
        install_id: settings.install_id.clone(),
        slot_image: settings.slot_image.clone(),
        image_pull_policy: settings.image_pull_policy.clone(),
        signal_service: settings.signal_service.clone(),
        priority_class: settings.slot_priority_class.clone(),
        callback_interval_seconds: settings.callback_interval_seconds,
    }
}

/// Same namespace, and our label with the deployment's name.
fn is_child<K: Resource>(object: &K, deployment: &ModelDeployment) -> bool {
    object.namespace() == deployment.namespace()
        && object.labels().get(labels::DEPLOYMENT) == deployment.metadata.name.as_ref()
}

fn children<K>(store: &Store<K>, deployment: &ModelDeployment) -> BTreeMap<String, K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    by_name(
        store
            .state_filter(|object| is_child(object, deployment))
            .into_iter()
            .map(|object| object.as_ref().clone()),
    )
}

fn by_name<K: Resource>(objects: impl Iterator<Item = K>) -> BTreeMap<String, K> {
    objects.map(|object| (object.name_any(), object)).collect()
}

async fn list<K>(client: &Client, deployment: &ModelDeployment) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let namespace = deployment.namespace().unwrap_or_default();
    let name = deployment.name_any();
    let parameters = ListParams::default().labels(&format!("{}={name}", labels::DEPLOYMENT));
    Api::<K>::namespaced(client.clone(), &namespace)
        .list(&parameters)
        .await
        .map(|list| list.items)
        .map_err(|source| Error::Api {
            kind: K::plural(&()).into_owned(),
            deployment: format!("{namespace}/{name}"),
            source: Box::new(source),
        })
}
