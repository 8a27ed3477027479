//! Controller of SprintSchedule: writes what the chain readers know into its status, on the leader.
//!
//! ```text
//! object + facts ─► observe ─► decide (validate, status) ─► apply
//! ```

pub mod decide;
pub mod observe;
pub mod status;
pub mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::{SprintSchedule, SprintScheduleStatus};
use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde::Deserialize as _;

use crate::apply::{self, apply};
use crate::backoff::{self, Failures};
use crate::change::Change;
use crate::context::Context;
use observe::Past;

/// Name in metrics and of the field manager.
pub const CONTROLLER: &str = "sprint-schedule";
/// Facts change by themselves: they are looked at this often.
const EVERY: Duration = Duration::from_secs(1);
/// Schedules reconciled at once.
const CONCURRENCY: u16 = 4;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// A write failed.
    #[error("the status of SprintSchedule {name} was not written; it is tried again")]
    Apply {
        /// Name of the object.
        name: String,
        /// What failed.
        #[source]
        source: apply::Error,
    },
}

struct Shared {
    context: Context,
    past: Mutex<BTreeMap<String, Past>>,
    failures: Failures,
}

impl Shared {
    fn with_past<T>(&self, name: &str, change: impl FnOnce(&mut Past) -> T) -> T {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        change(past.entry(name.to_owned()).or_default())
    }
}

/// Runs the controller until it is dropped. Leader only.
pub async fn run(context: Context) {
    let api: Api<DeserializeGuard<SprintSchedule>> = Api::all(context.client.clone());
    let shared = Arc::new(Shared {
        failures: context.metrics.failures(CONTROLLER),
        context,
        past: Mutex::default(),
    });
    Controller::new(api, watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(reconcile, retry, Arc::clone(&shared))
        .for_each(|result| {
            match &result {
                Err(error @ controller::Error::QueueError(_)) => tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "SprintSchedules cannot be watched; check the operator's role and the CRD"
                ),
                Err(controller::Error::ObjectNotFound(gone)) => shared.failures.over(&gone.name),
                // Failed reconciles are told by `retry`.
                Ok(_) | Err(_) => {}
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile(object: Arc<DeserializeGuard<SprintSchedule>>, shared: Arc<Shared>) -> Result<Action, Error> {
    let name = object.name_any();
    let metrics = &shared.context.metrics;
    let pass = async {
        let past = shared.with_past(&name, |past| past.clone());
        let observed = observe::observe(&object, &shared.context.book, past);
        let changes = decide::decide(&observed);
        let manager = crds::labels::field_manager(CONTROLLER);
        let written = apply(&shared.context.client, &shared.context.recorder(), &manager, &changes).await?;
        Ok((observed.now_ms, changes, written))
    };
    let pass = metrics.timed(CONTROLLER, crate::apply::Error::category, pass).await;
    let (now_ms, changes, written) = pass.map_err(|source| Error::Apply {
        name: name.clone(),
        source,
    })?;
    metrics.wrote(CONTROLLER, written.writes);
    shared.failures.over(&name);
    shared.with_past(&name, |past| {
        if written.writes > 0 {
            past.written_ms = Some(now_ms);
            past.previous = changes.iter().find_map(written_status);
        }
    });
    Ok(Action::requeue(EVERY))
}

/// The status a change writes.
pub fn written_status(change: &Change) -> Option<SprintScheduleStatus> {
    match change {
        Change::Status(object) => SprintScheduleStatus::deserialize(&object.value["status"]).ok(),
        Change::Apply(_) | Change::Create(_) | Change::Merge(_) | Change::Delete(_) | Change::Event(_) => None,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature the controller runtime calls"
)]
fn retry(object: Arc<DeserializeGuard<SprintSchedule>>, error: &Error, shared: Arc<Shared>) -> Action {
    let name = object.name_any();
    let failures = shared.failures.another(&name);
    let wait = backoff::wait(&name, failures);
    tracing::warn!(
        error = error as &dyn std::error::Error,
        schedule = name,
        ?wait,
        "reconcile failed"
    );
    Action::requeue(wait)
}
