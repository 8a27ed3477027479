//! What wakes a deployment: its own objects, its host, its machines, and the chain. One watch per kind, kept in stores.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use crds::gonka_host::Registration;
use crds::references::{Stage, Window};
use crds::{GonkaHost, ModelDeployment, SprintRun, SprintSchedule, labels};
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
        (
            move |object: Option<&ModelDeployment>| match object {
                Some(object) => itself.wake(ObjectRef::from_obj(object)),
                None => itself.wake_all(),
            },
            |_: &ModelDeployment| true,
        ),
    ));
    let pods = cached(client, with_role(labels::ROLE_SLOT_POD), watches.child(), tasks);
    let stores = Stores {
        deployments,
        hosts: cached_for(client, (all(), watches.neighbours()), news(host_part), tasks),
        schedules: cached_for(client, (all(), watches.everybody()), news(schedule_part), tasks),
        services: cached(client, with_role(labels::ROLE_SLOT), watches.child(), tasks),
        slices: cached(client, with_role(labels::ROLE_SLOT), watches.child(), tasks),
        budgets: cached(client, with_role(labels::ROLE_SLOT_POD), watches.child(), tasks),
        templates: cached(client, with_role(labels::ROLE_SLOT_POD), watches.child(), tasks),
        runs: cached_for(client, (all(), watches.examined()), news(run_part), tasks),
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

/// What a deployment depends on of its host: a status that says something else wakes nobody.
pub type HostPart = (
    Option<String>,
    Option<i64>,
    Option<BTreeMap<String, String>>,
    Option<(Vec<Registration>, Option<String>, Window)>,
);

/// What a deployment depends on of its host.
pub fn host_part(host: &GonkaHost) -> HostPart {
    let status = host.status.as_ref();
    let said = status.map(|status| (status.registrations.clone(), status.callback_url.clone(), status.window));
    let metadata = &host.metadata;
    (
        metadata.uid.clone(),
        metadata.generation,
        metadata.annotations.clone(),
        said,
    )
}

/// What a deployment depends on of its host's schedule: the spec.
pub fn schedule_part(schedule: &SprintSchedule) -> (Option<String>, Option<i64>) {
    (schedule.metadata.uid.clone(), schedule.metadata.generation)
}

/// What a rollout depends on of a record: what each slot should have computed, and did.
pub type RunPart = Vec<(String, bool, Option<i64>, Option<i64>)>;

/// What a deployment depends on of an exam's record.
pub fn run_part(run: &SprintRun) -> RunPart {
    let rows = run.status.iter().flat_map(|status| &status.slots);
    rows.map(|row| (row.node_id.clone(), row.preserved, row.expected, row.measured))
        .collect()
}

/// Whether an object differs from the last of its name in the part that matters.
fn news<K: Resource, P: PartialEq>(part: impl Fn(&K) -> P) -> impl FnMut(&K) -> bool {
    let mut known = BTreeMap::new();
    move |object| {
        let now = part(object);
        let place = (object.namespace(), object.name_any());
        let is_news = known.get(&place) != Some(&now);
        known.insert(place, now);
        is_news
    }
}

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
    cached_for(client, (config, touched), |_: &K| true, tasks)
}

/// The same, where not every change matters.
fn cached_for<K>(
    client: &Client,
    (config, touched): (Config, impl Fn(Option<&K>) + Send + 'static),
    matters: impl FnMut(&K) -> bool + Send + 'static,
    tasks: &mut JoinSet<&'static str>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (objects, writer) = store();
    tasks.spawn(keep(Api::all(client.clone()), config, writer, (touched, matters)));
    objects
}

/// One watch for ever; `touched` hears of each object that `matters` or is gone, and of `None` when the whole list was read
/// again.
async fn keep<K>(
    api: Api<K>,
    config: Config,
    writer: Writer<K>,
    (touched, mut matters): (
        impl Fn(Option<&K>) + Send + 'static,
        impl FnMut(&K) -> bool + Send + 'static,
    ),
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
            Ok(Event::Apply(object)) => {
                if matters(&object) {
                    touched(Some(&object));
                }
            }
            Ok(Event::Delete(object)) => touched(Some(&object)),
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

    /// Every deployment of the host that a record is of, if a rollout waits there: nobody else asks for records.
    fn examined(&self) -> impl Fn(Option<&SprintRun>) + Send + 'static {
        let this = self.clone();
        move |run| {
            for deployment in this.deployments.state() {
                let is_examined = |run: &SprintRun| {
                    run.namespace() == deployment.namespace() && run.spec.host_ref.name == deployment.spec.host_ref.name
                };
                let waits = deployment
                    .status
                    .as_ref()
                    .is_some_and(|status| status.rollout.is_some());
                if waits && run.is_none_or(is_examined) {
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

/// What of the chain changes decisions by itself: the last is whether an exam's generation began, and whether it is over.
pub type Transition = (Window, Stage, Option<Exam>, (bool, bool));

/// What wakes the deployments of a schedule when it changes.
pub fn transition(facts: &Facts) -> Transition {
    let exam = facts.exam.as_ref();
    let generation = exam.map_or((false, false), |exam| {
        let (start, end) = (exam.generation_start_height, exam.validation_start_height);
        (facts.height >= start, end > 0 && facts.height >= end)
    });
    (facts.window, facts.stage, facts.exam.clone(), generation)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_status_is_news_only_where_a_deployment_depends_on_it() {
        let mut host = GonkaHost::new("ours", crds::GonkaHostSpec::default());
        host.metadata.generation = Some(1);
        let mut is_news = news(host_part);
        assert!(is_news(&host) && !is_news(&host));
        host.status = Some(crds::GonkaHostStatus {
            window: Window::Amber,
            ..crds::GonkaHostStatus::default()
        });
        assert!(is_news(&host));
        if let Some(status) = &mut host.status {
            status.expected_weight = Some(7);
        }
        assert!(!is_news(&host), "nobody asks for it");
        if let Some(status) = &mut host.status {
            status.callback_url = Some("http://10.0.0.9:9100".to_owned());
        }
        assert!(is_news(&host));
        host.metadata.uid = Some("another".to_owned());
        assert!(is_news(&host), "another object of the name");
    }

    #[test]
    fn the_beginning_and_the_end_of_a_confirmations_generation_wake_and_blocks_between_them_do_not() {
        let at = |height| {
            transition(&Facts {
                height,
                exam: Some(Exam {
                    trigger_height: 100,
                    generation_start_height: 102,
                    validation_start_height: 110,
                    ..Exam::default()
                }),
                ..Facts::default()
            })
        };
        let edges: Vec<i64> = (101..=120).filter(|height| at(*height) != at(height - 1)).collect();
        assert_eq!(edges, [102, 110]);
    }
}
