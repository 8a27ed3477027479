//! Box 2, observe: which SprintSchedules there are. Every replica watches; the readers go on when the watch cannot.

use std::sync::Arc;

use crds::SprintSchedule;
use futures::TryStreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use super::Readers;
use crate::sprint_schedule::validate::reasons;

/// Keeps `readers` at what the SprintSchedules say, until `stop`. An invalid spec changes nothing; only an observed
/// deletion stops a reader, never an error and never an absence.
pub async fn watch_schedules(client: Client, readers: Arc<Readers>, stop: CancellationToken) {
    let api: Api<DeserializeGuard<SprintSchedule>> = Api::all(client);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.try_next() => event,
        };
        match event {
            Ok(Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => apply(&readers, object),
            Ok(Some(watcher::Event::Delete(object))) => readers.remove(&object.name_any()),
            Ok(Some(watcher::Event::Init | watcher::Event::InitDone)) => {}
            Ok(None) => return,
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "SprintSchedules cannot be watched; readers go on with the last valid specs"
            ),
        }
    }
}

fn apply(readers: &Readers, object: DeserializeGuard<SprintSchedule>) {
    match object.0 {
        Ok(schedule) if schedule.metadata.deletion_timestamp.is_some() => {}
        Ok(schedule) => {
            let reasons = reasons(&schedule.spec);
            if reasons.is_empty() {
                readers.set(&schedule.name_any(), &schedule.spec);
            } else {
                tracing::warn!(
                    schedule = schedule.name_any(),
                    ?reasons,
                    "invalid spec, the last valid one is read on"
                );
            }
        }
        Err(invalid) => tracing::warn!(
            schedule = invalid.metadata.name,
            error = invalid.error,
            "a SprintSchedule cannot be understood, the last valid spec is read on"
        ),
    }
}
