//! What wakes a deployment: its own objects, its host, its machines, and the chain. One watch per kind, kept in stores.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use crds::references::{Stage, Window};
use crds::{ModelDeployment, labels};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use crate::context::{Book, Context};
use crate::facts::{Exam, Facts};
use crate::model_deployment::decide::{SLOT_ACCOUNT, TRUST_CONFIG_MAP};
use crate::model_deployment::observe::Stores;

/// Where woken deployments go.
pub type Wake = UnboundedSender<ObjectRef<ModelDeployment>>;

/// How often the chain's window and exam are compared with the last.
const CHAIN_PERIOD: Duration = Duration::from_millis(200);

/// Starts every watch.
pub fn start(context: &Context, wake: &Wake, tasks: &mut JoinSet<&'static str>) -> Stores {
    let client = &context.client;
    let all = Config::default;
    let with_role = |role: &str| all().labels(&format!("{}={role}", labels::ROLE));
    let named = |name: &str| all().fields(&format!("metadata.name={name}"));
    let (deployments, writer) = store::<ModelDeployment>();
    let watches = Watches {
        wake: wake.clone(),
        deployments: deployments.clone(),
    };
    let itself = watches.clone();
    tasks.spawn(keep(
        Api::all(client.clone()),
        all(),
        writer,
        move |object| match object {
            Some(object) => itself.wake(ObjectRef::from_obj(object)),
            None => itself.wake_all(),
        },
    ));
    let pods = cached(client, with_role(labels::ROLE_SLOT_POD), watches.child(), tasks);
    let stores = Stores {
        deployments,
        hosts: cached(client, all(), watches.neighbours(), tasks),
        schedules: cached(client, all(), watches.everybody(), tasks),
        services: cached(client, with_role(labels::ROLE_SLOT), watches.child(), tasks),
        slices: cached(client, with_role(labels::ROLE_SLOT), watches.child(), tasks),
        budgets: cached(client, with_role(labels::ROLE_SLOT_POD), watches.child(), tasks),
        accounts: cached(client, named(SLOT_ACCOUNT), watches.neighbours(), tasks),
        trust: cached(client, named(TRUST_CONFIG_MAP), watches.neighbours(), tasks),
        nodes: cached(client, all(), watches.on_machine(&pods), tasks),
        gpu_nodes: cached(client, all(), watches.on_machine(&pods), tasks),
        pods,
    };
    tasks.spawn(follow_chain(context.book.clone(), stores.clone(), wake.clone()));
    stores
}

/// Wakes every deployment.
pub fn all(stores: &Stores, wake: &Wake) {
    let watches = Watches {
        wake: wake.clone(),
        deployments: stores.deployments.clone(),
    };
    watches.wake_all();
}

/// One watch for ever; `touched` hears of each object, and of `None` when the whole list was read again.
/// One kind in a store that a watch of its own keeps.
fn cached<K>(
    client: &Client,
    config: Config,
    touched: impl Fn(Option<&K>) + Send + 'static,
    tasks: &mut JoinSet<&'static str>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (objects, writer) = store();
    tasks.spawn(keep(Api::all(client.clone()), config, writer, touched));
    objects
}

async fn keep<K>(
    api: Api<K>,
    config: Config,
    writer: Writer<K>,
    touched: impl Fn(Option<&K>) + Send + 'static,
) -> &'static str
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut events = watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => touched(Some(&object)),
            Ok(Event::InitDone) => touched(None),
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                kind = %K::kind(&()),
                "watch broke; it is made again"
            ),
        }
    }
    "a watch"
}

#[derive(Clone)]
struct Watches {
    wake: Wake,
    deployments: Store<ModelDeployment>,
}

impl Watches {
    fn wake(&self, deployment: ObjectRef<ModelDeployment>) {
        // Fails only when the controller has ended.
        let _ending = self.wake.send(deployment);
    }

    fn wake_all(&self) {
        for deployment in self.deployments.state() {
            self.wake(ObjectRef::from_obj(deployment.as_ref()));
        }
    }

    /// A child names its deployment in a label.
    fn child<K: Resource>(&self) -> impl Fn(Option<&K>) + Send + 'static {
        let this = self.clone();
        move |object| match object {
            Some(object) => {
                if let (Some(name), Some(namespace)) = (object.labels().get(labels::DEPLOYMENT), object.namespace()) {
                    this.wake(ObjectRef::new(name).within(&namespace));
                }
            }
            None => this.wake_all(),
        }
    }

    /// Every deployment of the object's namespace.
    fn neighbours<K: Resource>(&self) -> impl Fn(Option<&K>) + Send + 'static {
        let this = self.clone();
        move |object| {
            let namespace = object.and_then(ResourceExt::namespace);
            for deployment in this.deployments.state() {
                if object.is_none() || deployment.namespace() == namespace {
                    this.wake(ObjectRef::from_obj(deployment.as_ref()));
                }
            }
        }
    }

    fn everybody<K>(&self) -> impl Fn(Option<&K>) + Send + 'static {
        let this = self.clone();
        move |_| this.wake_all()
    }

    /// Every deployment with a pod on the machine.
    fn on_machine<K: Resource>(&self, pods: &Store<Pod>) -> impl Fn(Option<&K>) + Send + 'static + use<K> {
        let (this, pods) = (self.clone(), pods.clone());
        move |object| {
            let Some(object) = object else {
                this.wake_all();
                return;
            };
            let name = object.name_any();
            let here = pods.state_filter(|pod| {
                pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(name.as_str())
            });
            for pod in here {
                if let (Some(owner), Some(namespace)) = (pod.labels().get(labels::DEPLOYMENT), pod.namespace()) {
                    this.wake(ObjectRef::new(owner).within(&namespace));
                }
            }
        }
    }
}

/// What of the chain changes decisions by itself.
pub type Transition = (Window, Stage, Option<Exam>, bool);

/// What wakes the deployments of a schedule when it changes.
pub fn transition(facts: &Facts) -> Transition {
    let started = facts
        .exam
        .as_ref()
        .is_some_and(|exam| facts.height >= exam.generation_start_height);
    (facts.window, facts.stage, facts.exam.clone(), started)
}

/// Wakes the deployments of a schedule when its window, stage or exam changes.
async fn follow_chain(book: std::sync::Arc<Book>, stores: Stores, wake: Wake) -> &'static str {
    let mut known: BTreeMap<String, Transition> = BTreeMap::new();
    let mut period = tokio::time::interval(CHAIN_PERIOD);
    loop {
        period.tick().await;
        if wake.is_closed() {
            return "the chain's watch";
        }
        for schedule in book.schedules() {
            let now = transition(&book.facts(&schedule));
            if known.get(&schedule) == Some(&now) {
                continue;
            }
            known.insert(schedule.clone(), now);
            for deployment in stores.deployments.state() {
                let namespace = deployment.namespace().unwrap_or_default();
                let host = stores
                    .hosts
                    .get(&ObjectRef::new(&deployment.spec.host_ref.name).within(&namespace));
                if host.is_some_and(|host| host.spec.schedule_name == schedule) {
                    // Fails only when the controller has ended.
                    let _ending = wake.send(ObjectRef::from_obj(deployment.as_ref()));
                }
            }
        }
    }
}
