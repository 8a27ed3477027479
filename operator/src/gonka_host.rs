//! GonkaHost controller: one participant account and its network node (DAPI).
//!
//! observe ([`observe`]: object, deployments, Services, DAPI, chain) → decide ([`decide`]: nodes by [`plan`], status) →
//! apply ([`apply`]: DAPI first, then status and Events). DAPI is a cache of our desired state: POST, then PUT, never DELETE.
//! A pass is made on every change of the host or its deployments, on every change of the window, and each resync interval.

pub mod account;
pub mod apply;
mod contradiction;
pub mod decide;
pub mod observe;
pub mod observed;
pub mod plan;
pub mod readiness;
pub mod slots;
pub mod status;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use crds::conditions::ConditionType;
use crds::{GonkaHost, ModelDeployment, SprintRun};
use futures::StreamExt as _;
use kube::api::{Api, ResourceExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};

pub use account::{Group, Member, group, settlement, summary};

use crate::backoff::{self, Failures};
use crate::context::Context;
use crate::metrics::Metrics;
use crate::wake;

/// Field manager and metric label.
const CONTROLLER: &str = "gonka-host";
/// Hosts worked on at once.
const CONCURRENCY: u16 = 4;

/// Why a pass failed, or why the controller ended.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The world could not be read.
    #[error("what a GonkaHost needs could not be read")]
    Observe(#[source] observe::Error),
    /// Status could not be written.
    #[error("the status of a GonkaHost could not be written")]
    Apply(#[source] crate::apply::Error),
    /// DAPI refused a write; status says which.
    #[error("the network node refused a write: {0}")]
    Refused(String),
    /// Every stream the controller lives on ended.
    #[error("the GonkaHost controller lost its streams")]
    Ended,
}

impl Error {
    /// Label of metrics.
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

struct State {
    context: Context,
    runs: Store<SprintRun>,
    failures: Failures,
}

/// Keeps every GonkaHost until cancelled.
pub async fn run(context: Context) -> Result<(), Error> {
    let client = context.client.clone();
    let (runs, writer) = reflector::store();
    let records = watcher(Api::<SprintRun>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .filter_map(|event| async move { event.ok().map(|_| ()) });
    let state = Arc::new(State {
        context: context.clone(),
        runs,
        failures: context.metrics.failures(CONTROLLER),
    });
    let hosts: Api<DeserializeGuard<GonkaHost>> = Api::all(client.clone());
    let deployments: Api<DeserializeGuard<ModelDeployment>> = Api::all(client);
    let config = Config::default()
        .concurrency(CONCURRENCY)
        .debounce(Duration::from_millis(300));
    Controller::new(hosts, watcher::Config::default())
        .with_config(config)
        .watches(deployments, watcher::Config::default(), |deployment| {
            let namespace = deployment.namespace().unwrap_or_default();
            let host = deployment
                .0
                .as_ref()
                .ok()
                .map(|deployment| deployment.spec.host_ref.name.clone());
            host.map(|host| ObjectRef::new(&host).within(&namespace))
        })
        .reconcile_all_on(records)
        .reconcile_all_on(wake::on_windows(context.book.clone()))
        .run(reconcile, on_error, Arc::clone(&state))
        .for_each(|pass| {
            // Failed passes are told by `on_error`; an object that is gone fails no more.
            if let Err(controller::Error::ObjectNotFound(gone)) = pass {
                let namespace = gone.namespace.unwrap_or_default();
                state.failures.over(&format!("{namespace}/{}", gone.name));
            }
            std::future::ready(())
        })
        .await;
    Err(Error::Ended)
}

async fn reconcile(object: Arc<DeserializeGuard<GonkaHost>>, state: Arc<State>) -> Result<Action, Error> {
    let host = match &object.0 {
        Ok(host) => host,
        Err(error) => {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "a GonkaHost cannot be read; its CRD may be older"
            );
            return Ok(Action::await_change());
        }
    };
    let pass = pass(&state, host);
    let millis = state.context.metrics.timed(CONTROLLER, Error::category, pass).await?;
    state.failures.over(&key(&object));
    Ok(Action::requeue(Duration::from_millis(millis)))
}

/// One observe → decide → apply. Returns when to look again.
async fn pass(state: &State, host: &GonkaHost) -> Result<u64, Error> {
    let context = &state.context;
    let exams = observe::records(state.runs.state().iter(), host);
    let (observed, dapi) = observe::observe(context, host, exams).await.map_err(Error::Observe)?;
    let desired = decide::decide(&observed);
    show(&context.metrics, host);
    apply::apply(context, dapi.as_ref(), &observed, &desired).await?;
    Ok(desired.requeue_millis)
}

/// Whether the host will pass, as its status says.
fn show(metrics: &Metrics, host: &GonkaHost) {
    let mut conditions = host.status.iter().flat_map(|status| &status.conditions);
    let kind = ConditionType::SprintReady.to_string();
    let status = conditions
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.as_str());
    let labels = [host.namespace().unwrap_or_default(), host.name_any()];
    match status {
        Some("True") => metrics.sprint_ready.with_label_values(&labels).set(1),
        Some("False") => metrics.sprint_ready.with_label_values(&labels).set(0),
        // There may be no line yet.
        _ => drop(metrics.sprint_ready.remove_label_values(&labels)),
    }
}

fn key(host: &DeserializeGuard<GonkaHost>) -> String {
    format!("{}/{}", host.namespace().unwrap_or_default(), host.name_any())
}

#[expect(clippy::needless_pass_by_value, reason = "the signature kube's Controller calls")]
fn on_error(host: Arc<DeserializeGuard<GonkaHost>>, error: &Error, state: Arc<State>) -> Action {
    let name = key(&host);
    let failures = state.failures.another(&name);
    tracing::warn!(
        error = error as &dyn std::error::Error,
        category = error.category(),
        host = name,
        failures,
        "GonkaHost pass failed"
    );
    Action::requeue(backoff::wait(&name, failures))
}

#[cfg(test)]
mod tests;
