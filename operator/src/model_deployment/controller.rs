//! The process around one pass: what is watched, what wakes a deployment, how failures wait.

mod wake;

pub use wake::{Transition, host_part, schedule_part, transition};

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::ModelDeployment;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::controller::{Action, Error as ApplierError};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Config, applier};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::decide;
use super::observe::{self, Believed, Stores, golden};
use super::observed::{GoldenSeen, Observed};
use super::{apply, pass};
use crate::backoff::{self, Failures};
use crate::context::Context;
use crate::gate;
use crate::slot_door::Doors;

/// Metric label and the last part of the field manager.
const CONTROLLER: &str = "model-deployment";
/// Deployments that are reconciled at the same time.
const CONCURRENCY: u16 = 8;
/// How long the API server is waited for: a pass that hangs watches no slot.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a golden ConfigMap is believed.
const GOLDEN_SECONDS: u64 = 60;

/// Why the controller, or one pass, failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The world could not be read.
    #[error("the world of a ModelDeployment could not be read")]
    Observe(#[source] observe::Error),
    /// Not everything was done.
    #[error("a ModelDeployment is not as it should be yet")]
    Apply(#[source] apply::Error),
    /// The API server took too long. Assignments stay as they are.
    #[error("the API server does not answer {0}; what runs is left as it is")]
    Silent(&'static str),
    /// A watch ended for good.
    #[error("the controller of ModelDeployments ended: {0}")]
    Ended(&'static str),
}

impl Error {
    /// Label of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Observe(_) | Self::Silent(_) | Self::Ended(_) => self.into(),
            Self::Apply(error) => error.category(),
        }
    }
}

type Trust = Box<dyn Fn() -> Believed + Send + Sync>;

struct Reconciler {
    context: Context,
    stores: Stores,
    doors: Arc<Doors>,
    recorder: Recorder,
    manager: String,
    trust: Trust,
    started: Instant,
    golden: Mutex<BTreeMap<(String, String), (Instant, GoldenSeen)>>,
    failures: Failures,
    revisions: Mutex<decide::Revisions>,
}

/// The watches of this controller, begun: others read their stores too.
#[derive(Debug)]
pub struct Watching {
    stores: Stores,
    wake: wake::Wake,
    woken: mpsc::UnboundedReceiver<ObjectRef<ModelDeployment>>,
    tasks: JoinSet<&'static str>,
}

/// Begins to watch.
pub fn watch(context: &Context) -> Watching {
    let (wake, woken) = mpsc::unbounded_channel();
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    let stores = wake::start(context, &wake, &mut tasks);
    Watching {
        stores,
        wake,
        woken,
        tasks,
    }
}

impl Watching {
    /// What is watched.
    pub fn stores(&self) -> Stores {
        self.stores.clone()
    }
}

/// Runs on the leader until cancelled. `trust` says what slot pods are to believe.
pub async fn run(
    context: Context,
    watching: Watching,
    trust: impl Fn() -> Believed + Send + Sync + 'static,
) -> Result<(), Error> {
    let Watching {
        stores,
        wake,
        woken,
        mut tasks,
    } = watching;
    let (doors, rehearsals) = Doors::new(
        Arc::clone(&context.live),
        context.settings.slot_token_file.clone(),
        wake.clone(),
    );
    {
        let doors = Arc::clone(&doors);
        tasks.spawn(async move {
            doors.run(rehearsals).await;
            "slot doors"
        });
    }
    stores.ready().await.map_err(|_| Error::Ended("a watch"))?;
    let reconciler = Arc::new(Reconciler {
        recorder: context.recorder(),
        manager: crds::labels::field_manager(CONTROLLER),
        stores: stores.clone(),
        doors: Arc::clone(&doors),
        trust: Box::new(trust),
        started: Instant::now(),
        golden: Mutex::default(),
        failures: context.metrics.failures(CONTROLLER),
        revisions: Mutex::default(),
        context,
    });
    wake::all(&stores, &wake);
    let known = Arc::clone(&reconciler);
    let queue = UnboundedReceiverStream::new(woken).map(Ok::<ObjectRef<ModelDeployment>, Infallible>);
    let passes = applier(
        |deployment, reconciler: Arc<Reconciler>| reconcile(deployment, reconciler).boxed(),
        after_failure,
        reconciler,
        stores.deployments.clone(),
        queue,
        Config::default().concurrency(CONCURRENCY).debounce(pass::DEBOUNCE),
    )
    .for_each(|pass| {
        // An object that is gone has no doors to watch; other failures were told where they happened.
        if let Err(ApplierError::ObjectNotFound(gone)) = pass {
            let deployment = ObjectRef::new(&gone.name).within(gone.namespace.as_deref().unwrap_or_default());
            doors.follow(&deployment, Vec::new());
            known
                .failures
                .over(&format!("{}/{}", gone.namespace.unwrap_or_default(), gone.name));
        }
        std::future::ready(())
    });
    tokio::select! {
        () = passes => Err(Error::Ended("the queue")),
        Some(ended) = tasks.join_next() => Err(Error::Ended(ended.unwrap_or("a task"))),
    }
}

fn key(deployment: &ModelDeployment) -> (String, String) {
    (deployment.namespace().unwrap_or_default(), deployment.name_any())
}

fn name_of(deployment: &ModelDeployment) -> String {
    let (namespace, name) = key(deployment);
    format!("{namespace}/{name}")
}

async fn reconcile(deployment: Arc<ModelDeployment>, reconciler: Arc<Reconciler>) -> Result<Action, Error> {
    let pass = reconciler.pass(&deployment);
    let metrics = &reconciler.context.metrics;
    let action = metrics.timed(CONTROLLER, Error::category, pass).await?;
    reconciler.failures.over(&name_of(&deployment));
    Ok(action)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the controller runtime's")]
fn after_failure(deployment: Arc<ModelDeployment>, error: &Error, reconciler: Arc<Reconciler>) -> Action {
    let name = name_of(&deployment);
    let failures = reconciler.failures.another(&name);
    tracing::warn!(
        error = error as &dyn std::error::Error,
        category = error.category(),
        object = name,
        failures,
        "pass failed"
    );
    let wait = backoff::wait(&name, failures);
    Action::requeue(wait.min(pass::LONGEST_WAIT))
}

impl Reconciler {
    /// One observe → decide → apply.
    async fn pass(&self, deployment: &ModelDeployment) -> Result<Action, Error> {
        let golden = self.golden(deployment).await;
        let mut observed = observe::gather(
            &self.context,
            &self.stores,
            &self.doors,
            deployment,
            golden,
            (self.trust)(),
        );
        let revision = self
            .revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .of(&observed);
        observed.revision = Some(revision);
        self.follow(&observed);
        let link = |uid: &str| self.doors.state(uid).map(|door| door.link);
        if self.started.elapsed() < pass::FIRST_WORDS && pass::awaits_words(&observed, link) {
            return Ok(Action::requeue(pass::LISTENING));
        }
        let mut desired = decide::decide(&observed);
        if desired.writes() {
            let refresh = observe::refresh(&self.context, &self.doors, &mut observed);
            tokio::time::timeout(PATIENCE, refresh)
                .await
                .map_err(|_| Error::Silent("lists"))?
                .map_err(Error::Observe)?;
            self.follow(&observed);
            desired = decide::decide(&observed);
        }
        let (namespace, name) = key(deployment);
        for (action, verdict) in &desired.asked {
            let who = format!("{namespace}/{name}");
            self.context.gate.tell(&who, *action, *verdict, observed.now_ms);
            gate::count(&self.context.metrics, *action, *verdict);
        }
        let again = pass::again(&desired, self.context.settings.resync_seconds);
        let applied = apply::apply(&self.context, &self.doors, &self.recorder, &self.manager, desired)
            .await
            .map_err(Error::Apply)?;
        self.context.metrics.wrote(CONTROLLER, applied.writes);
        Ok(Action::requeue(again))
    }

    /// Tells the watchers of doors which pods there are and what they hold.
    fn follow(&self, observed: &Observed) {
        let deployment = ObjectRef::from_obj(&observed.deployment);
        self.doors.follow(&deployment, pass::targets(observed));
    }

    /// The golden ConfigMap, read at most once a minute. While the API server is away the last reading stands.
    async fn golden(&self, deployment: &ModelDeployment) -> GoldenSeen {
        let Some(reference) = &deployment.spec.golden else {
            return GoldenSeen::None;
        };
        let key = (
            deployment.namespace().unwrap_or_default(),
            reference.config_map_ref.name.clone(),
        );
        let known = self
            .golden
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some((read, golden)) = &known
            && read.elapsed() < Duration::from_secs(GOLDEN_SECONDS)
        {
            return golden.clone();
        }
        let config_maps: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), &key.0);
        let golden = match tokio::time::timeout(PATIENCE, config_maps.get_opt(&key.1)).await {
            Ok(Ok(Some(config_map))) => golden::read(&config_map),
            Ok(Ok(None)) => golden::unusable(format!("there is no ConfigMap {}", key.1)),
            Ok(Err(_)) | Err(_) => match known {
                Some((_, golden)) => golden,
                None => return golden::unusable(format!("ConfigMap {} could not be read", key.1)),
            },
        };
        self.golden
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, (Instant::now(), golden.clone()));
        golden
    }
}
