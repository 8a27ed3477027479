//! Machine controller: protection at rest, and its release one failure domain at a time.
//!
//! ```text
//! observe  stores ──────► Observed   (every machine, what it carries, what people wish)
//! decide   Observed ────► Decision   (pure: whose turn it is, what is held)
//! apply    per machine: the answer in GpuNode.status.maintenance, then the Node's switches
//! ```
//! A wish is `GpuNode.spec.maintenance`, or a cordon: `kubectl drain` cordons first. Slots of the machine whose turn it is move
//! to rehearsed spares (that is the deployment's controller, which reads the answer); then the machine is released: its pods
//! lose their mark, foreign switches get their previous values, a drain that waited goes on.

pub mod decide;
pub mod hours;
pub mod observe;
pub mod observed;
pub mod queue;
pub mod room;
pub mod settled;
pub mod switches;

use std::time::Duration;

use kube::api::{Api, DynamicObject, ListParams};

use self::decide::Decision;
use self::observe::Lists;
use self::settled::Settled;
use crate::chain::now_ms;
use crate::context::Context;
use crate::model_deployment::observe::Stores;
use crate::{apply, backoff};

/// Field manager and metric label.
const CONTROLLER: &str = "machine";
/// How often stores are looked at: it costs no request.
pub const PERIOD: Duration = Duration::from_secs(5);
/// While somebody waits for a machine.
pub const WAITING_PERIOD: Duration = Duration::from_secs(1);
/// How often NodeHealthChecks are listed; at once after one was written.
pub const CHECKS_PERIOD: Duration = Duration::from_secs(60);

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A watch ended for good.
    #[error("a watch of the machine controller ended")]
    Ended,
}

/// Runs on the leader until cancelled. One pass covers the fleet: linear in machines and pods.
pub async fn run(context: Context, stores: Stores) -> Result<(), Error> {
    stores.ready().await.map_err(|_| Error::Ended)?;
    let mut checks = Checks::default();
    let mut settled = Settled::default();
    let mut failures = 0;
    loop {
        checks.refresh(&context).await;
        let decision = look(&context, &stores, &checks, &mut settled);
        let period = if decision.waiting { WAITING_PERIOD } else { PERIOD };
        if decision.writes_checks() {
            // What is known of them is what was there before the write.
            checks.read = None;
        }
        let failed = write(&context, decision).await;
        context.metrics.failed(CONTROLLER, failed);
        failures = if failed > 0 { failures + 1 } else { 0 };
        let pause = if failed > 0 {
            backoff::wait(CONTROLLER, failures)
        } else {
            period
        };
        tokio::time::sleep(pause).await;
    }
}

/// What the cluster's NodeHealthChecks are; none where the kind is not installed.
#[derive(Default)]
struct Checks {
    known: Vec<DynamicObject>,
    read: Option<tokio::time::Instant>,
}

impl Checks {
    async fn refresh(&mut self, context: &Context) {
        if self.read.is_some_and(|read| read.elapsed() < CHECKS_PERIOD) {
            return;
        }
        self.read = Some(tokio::time::Instant::now());
        let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &switches::health_check_resource());
        match api.list(&ListParams::default()).await {
            Ok(list) => self.known = list.items,
            Err(kube::Error::Api(status)) if status.code == 404 => self.known.clear(),
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "NodeHealthChecks cannot be listed; those known stand"
            ),
        }
    }
}

fn look(context: &Context, stores: &Stores, checks: &Checks, settled: &mut Settled) -> Decision {
    let timer = context
        .metrics
        .reconcile_duration
        .with_label_values(&[CONTROLLER])
        .start_timer();
    let lists = Lists {
        nodes: stores.nodes.state(),
        gpu_nodes: stores.gpu_nodes.state(),
        pods: stores.pods.state(),
        slices: stores.slices.state(),
        deployments: stores.deployments.state(),
        hosts: stores.hosts.state(),
        schedules: stores.schedules.state(),
        checks: checks.known.clone(),
    };
    let facts = |schedule: &str| context.book.facts(schedule);
    let decision = settled.decide(lists, &facts, now_ms());
    timer.observe_duration();
    decision
}

/// Writes what was decided, machine by machine. How many failed.
async fn write(context: &Context, decision: Decision) -> usize {
    let metrics = &context.metrics;
    metrics.machines.reset();
    for (stage, count) in &decision.stages {
        metrics
            .machines
            .with_label_values(&[<&str>::from(stage)])
            .set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    let manager = crds::labels::field_manager(CONTROLLER);
    let recorder = context.recorder();
    let mut failed = 0;
    for (what, changes) in &decision.writes {
        match apply::apply(&context.client, &recorder, &manager, changes).await {
            Ok(applied) => {
                metrics.wrote(CONTROLLER, applied.writes);
                metrics.ended(CONTROLLER, "ok");
            }
            // The store was behind: what it shows by the next pass decides.
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                failed += 1;
                metrics.ended(CONTROLLER, error.category());
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    what,
                    "a machine is not as it should be yet"
                );
            }
        }
    }
    failed
}

#[cfg(test)]
mod tests;
