//! Box 2: caches of the kinds records are made from. They keep what they know while the API server is away.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::sprint_schedule::Margins;
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, SprintSchedule};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::job;
use super::notes::Key;

type Guarded<K> = Store<DeserializeGuard<K>>;

/// The caches.
#[expect(missing_debug_implementations, reason = "stores of guarded objects have none")]
pub struct Stores {
    hosts: Guarded<GonkaHost>,
    deployments: Guarded<ModelDeployment>,
    runs: Guarded<SprintRun>,
    schedules: Guarded<SprintSchedule>,
    machines: Guarded<GpuNode>,
}

impl Stores {
    /// The caches, and the stream that fills them while it is polled.
    pub fn start(client: &Client) -> (Self, SelectAll<BoxStream<'static, ()>>) {
        let mut watches = SelectAll::new();
        let stores = Self {
            hosts: watched(client, &mut watches),
            deployments: watched(client, &mut watches),
            runs: watched(client, &mut watches),
            schedules: watched(client, &mut watches),
            machines: watched(client, &mut watches),
        };
        (stores, watches)
    }

    /// Everything that can be read, as it is now.
    pub fn world(&self) -> World {
        World::new(
            readable(&self.hosts),
            readable(&self.deployments),
            readable(&self.runs),
            readable(&self.schedules),
        )
        .with_machines(
            self.machines
                .state()
                .iter()
                .filter_map(|guarded| guarded.0.as_ref().ok()),
        )
    }

    /// Whether hosts and records were listed once: before that, an absence means nothing.
    pub fn are_ready(&self) -> bool {
        use futures::FutureExt as _;
        self.hosts.wait_until_ready().now_or_never().is_some() && self.runs.wait_until_ready().now_or_never().is_some()
    }
}

/// The caches' contents at one moment.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Every GonkaHost.
    pub hosts: Vec<Arc<GonkaHost>>,
    /// Every ModelDeployment.
    pub deployments: Vec<Arc<ModelDeployment>>,
    /// Every record.
    pub runs: Vec<Arc<SprintRun>>,
    /// Every SprintSchedule.
    pub schedules: Vec<Arc<SprintSchedule>>,
    /// What holds clocks of a machine's GPUs back, by the machine's name; those of which nothing is found are not in it.
    pub held_back: BTreeMap<String, Vec<String>>,
    /// Records that are closed: all but the newest, as a rule, so that nobody goes through them at every look.
    pub(super) sealed: Arc<Vec<Key>>,
    /// The others.
    pub(super) open: Vec<Arc<SprintRun>>,
}

impl World {
    /// Contents of caches.
    pub fn new(
        hosts: Vec<Arc<GonkaHost>>,
        deployments: Vec<Arc<ModelDeployment>>,
        runs: Vec<Arc<SprintRun>>,
        schedules: Vec<Arc<SprintSchedule>>,
    ) -> Self {
        let (sealed, open): (Vec<_>, Vec<_>) = runs.iter().partition(|run| is_sealed(run));
        Self {
            sealed: Arc::new(sealed.into_iter().map(|run| job::key(run)).collect()),
            open: open.into_iter().cloned().collect(),
            hosts,
            deployments,
            runs,
            schedules,
            held_back: BTreeMap::new(),
        }
    }

    /// The same, with what agents find about clocks.
    #[must_use]
    pub fn with_machines<'a>(mut self, machines: impl Iterator<Item = &'a GpuNode>) -> Self {
        self.held_back = machines
            .filter_map(|machine| {
                let found: Vec<String> = clock_findings(machine).collect();
                Some((machine.metadata.name.clone()?, found)).filter(|(_, found)| !found.is_empty())
            })
            .collect();
        self
    }

    /// Lead times of a schedule; the defaults when it is not known.
    pub fn margins(&self, schedule: &str) -> Margins {
        self.schedules
            .iter()
            .find(|one| one.metadata.name.as_deref() == Some(schedule))
            .map(|one| one.spec.margins.clone())
            .unwrap_or_default()
    }

    /// Deployments of a host.
    pub fn of_host(&self, host: &GonkaHost) -> Vec<&ModelDeployment> {
        self.deployments
            .iter()
            .map(AsRef::as_ref)
            .filter(|deployment| deployment.metadata.namespace == host.metadata.namespace)
            .filter(|deployment| Some(&deployment.spec.host_ref.name) == host.metadata.name.as_ref())
            .collect()
    }

    /// A host by UID.
    pub fn host(&self, uid: &str) -> Option<&Arc<GonkaHost>> {
        self.hosts.iter().find(|host| host.metadata.uid.as_deref() == Some(uid))
    }
}

/// `GPU 3 HwPowerBrake`, for each GPU and rule.
fn clock_findings(machine: &GpuNode) -> impl Iterator<Item = String> {
    let gpus = machine.status.iter().flat_map(|status| &status.gpus);
    gpus.flat_map(|gpu| {
        let found = gpu.findings.iter().filter(|finding| finding.is_about_clocks());
        found.map(|finding| format!("GPU {} {}", gpu.index, finding.rule))
    })
}

/// The record is closed.
fn is_sealed(run: &SprintRun) -> bool {
    run.status.as_ref().is_some_and(|status| status.sealed_time.is_some())
}

fn watched<K>(client: &Client, watches: &mut SelectAll<BoxStream<'static, ()>>) -> Guarded<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let events = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .map(|_| ());
    watches.push(events.boxed());
    store
}

fn readable<K>(store: &Guarded<K>) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .state()
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok())
        .map(|object| Arc::new(object.clone()))
        .collect()
}
