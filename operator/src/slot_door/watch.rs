//! One watcher per followed pod: connects, hears reports, connects again. Tasks live in one set and end with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio::task::{AbortHandle, JoinSet};

use super::{Doors, Error, Rehearsals, Target, client};
use crate::backoff;
use crate::model_deployment::observed::Link;

/// A report or a heartbeat comes at least every five seconds; a stream silent for longer is broken.
const SILENCE: Duration = Duration::from_secs(12);
/// Longest pause between two attempts: a pod that comes back is wanted soon.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keeps one task per followed pod until cancelled.
pub(super) async fn run(doors: Arc<Doors>, mut rehearsals: Rehearsals) {
    let mut changed = doors.targets.subscribe();
    let mut tasks = JoinSet::new();
    let mut watched: BTreeMap<(String, String), AbortHandle> = BTreeMap::new();
    loop {
        let wanted: BTreeMap<(String, String), Target> = doors
            .lock()
            .states
            .targets()
            .map(|target| ((target.pod_uid.clone(), target.address.clone()), target.clone()))
            .collect();
        watched.retain(|key, task| {
            let keep = wanted.contains_key(key);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, target) in wanted {
            watched
                .entry(key)
                .or_insert_with(|| tasks.spawn(keep(Arc::clone(&doors), target)));
        }
        wait(&doors, &mut changed, &mut rehearsals, &mut tasks).await;
    }
}

/// Until the set of pods changes; starts rehearsals and reaps tasks meanwhile.
async fn wait(
    doors: &Arc<Doors>,
    changed: &mut channel::Receiver<u64>,
    rehearsals: &mut Rehearsals,
    tasks: &mut JoinSet<()>,
) {
    loop {
        tokio::select! {
            _ = changed.changed() => return,
            Some(step) = rehearsals.recv() => {
                let doors = Arc::clone(doors);
                tasks.spawn(async move { doors.run_rehearsal(step).await });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Watches one pod for ever.
async fn keep(doors: Arc<Doors>, target: Target) {
    let mut failures = 0;
    loop {
        match hear(&doors, &target, &mut failures).await {
            Ok(()) => tracing::debug!(address = target.address, "operator door closed its stream"),
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                address = target.address,
                "operator door is not heard"
            ),
        }
        failures += 1;
        doors.link(&target.pod_uid, Link::Broken, None);
        let pause = backoff::wait(&target.pod_uid, failures);
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
    }
}

/// Hears one stream to its end.
async fn hear(doors: &Doors, target: &Target, failures: &mut u32) -> Result<(), Error> {
    let channel = client::connect(&target.address).await?;
    let mut reports = client::watch(&doors.token_file, channel.clone(), target).await?;
    while let Ok(next) = tokio::time::timeout(SILENCE, reports.message()).await {
        let Some(report) = next.map_err(|status| Error::Call {
            address: target.address.clone(),
            source: Box::new(status),
        })?
        else {
            return Ok(());
        };
        *failures = 0;
        // The slot may have changed hands since the stream began.
        let node_id = doors
            .lock()
            .states
            .target(&target.pod_uid)
            .and_then(|target| target.node_id.clone());
        doors.hear(&target.pod_uid, node_id.as_deref(), report);
        doors.link(&target.pod_uid, Link::Connected, Some(channel.clone()));
    }
    Ok(())
}
