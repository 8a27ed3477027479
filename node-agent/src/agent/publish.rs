//! Box 4, the one write of the agent: its own `GpuNode`'s status, by server-side apply, only when it changed.
//!
//! The agent may do nothing else (no get, no list, no watch): the object's spec comes back with every answer, and between
//! writes with a dry run of the same write, which stores nothing. The operator makes the object; until then the answer is
//! 404 and the agent asks again.

pub mod client;
pub mod pace;

use std::time::Duration;

use crds::GpuNodeStatus;
use crds::gpu_node::HealthOverride;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::observe::{self, ClockReading};
use client::{Answer, Client};
use pace::{Next, Pace};

/// What the API server said last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Overrides of the spec.
    pub overrides: Vec<HealthOverride>,
    /// Its clock against ours.
    pub clock: Option<ClockReading>,
    /// How often what came out, for metrics.
    pub outcomes: Outcomes,
}

/// Writes by what came of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outcomes {
    /// Accepted.
    pub written: u64,
    /// Spec read with a dry run.
    pub read: u64,
    /// The object was not there.
    pub absent: u64,
    /// Anything else.
    pub failed: u64,
}

/// Publishes what `desired` holds until its sender is gone. What comes back goes to `known`.
pub async fn run(client: Client, mut desired: watch::Receiver<Option<GpuNodeStatus>>, known: watch::Sender<Known>) {
    let mut pace = Pace::new(client.node_name());
    loop {
        let status = desired.borrow_and_update().clone();
        let wait = match pace.next(status.as_ref(), observe::now().0) {
            Next::Write => {
                turn(&client, &mut pace, &known, status.as_ref(), false).await;
                continue;
            }
            Next::ReadSpec => {
                turn(&client, &mut pace, &known, status.as_ref(), true).await;
                continue;
            }
            Next::Wait(until) => until,
        };
        let pause = until(wait);
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn turn(
    client: &Client,
    pace: &mut Pace,
    known: &watch::Sender<Known>,
    status: Option<&GpuNodeStatus>,
    dry_run: bool,
) {
    let Some(status) = status else { return };
    let answer = client.apply(status, dry_run).await;
    let now = observe::now().0;
    let mut outcomes = known.borrow().outcomes;
    match answer {
        Ok(Answer::Accepted(seen)) => {
            if dry_run {
                outcomes.read += 1;
                pace.spec_read(seen.uid.as_deref(), now);
            } else {
                outcomes.written += 1;
                pace.written(status.clone(), seen.uid, now);
                tracing::info!(node = client.node_name(), "status written");
            }
            known.send_replace(Known {
                generation: seen.generation,
                overrides: seen.overrides,
                clock: seen.clock,
                outcomes,
            });
        }
        Ok(Answer::Absent) => {
            outcomes.absent += 1;
            if pace.absent(now) {
                tracing::info!(
                    node = client.node_name(),
                    "no GpuNode of this name yet; the operator makes it"
                );
            }
            known.send_modify(|known| known.outcomes = outcomes);
        }
        Err(error) => {
            outcomes.failed += 1;
            if pace.refused(now) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the status could not be written"
                );
            }
            known.send_modify(|known| known.outcomes = outcomes);
        }
    }
}

fn until(time: Timestamp) -> Duration {
    let millis = time.as_millisecond() - observe::now().0.as_millisecond();
    Duration::from_millis(millis.clamp(10, 60_000) as u64)
}
