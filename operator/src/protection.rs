//! Watches over what protects: whatever slots live by is marked, a glass that was broken is told of and mended, a policy that was
//! removed is an alarm, and so is whoever tried to take a slot pod away.
//!
//! observe ([`observe`]) → decide ([`decide`]) → apply. Policies cannot protect policies: an administrator can remove them, and
//! all that can be done is to say so.

pub mod decide;
pub mod observe;

use std::collections::BTreeSet;
use std::time::Duration;

use self::decide::{Decision, Observed};
use self::observe::Lists;
use crate::apply;
use crate::chain::now_ms;
use crate::context::Context;
use crate::model_deployment::observe::Stores;

/// Field manager and metric label.
const CONTROLLER: &str = "protection";
/// How often. A watch that could be missed would protect no better, and the lists are a handful of objects.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A watch ended for good.
    #[error("a watch of the protection controller ended")]
    Ended,
}

/// Runs on the leader until cancelled.
pub async fn run(context: Context, stores: Stores) -> Result<(), Error> {
    stores.ready().await.map_err(|_| Error::Ended)?;
    let mut known = Known::default();
    loop {
        let observed = look(&context, &stores, &known).await;
        let decision = decide::decide(&observed);
        known = Known {
            missing: decision.missing.clone(),
            targets: observed.targets.iter().map(|target| target.uid.clone()).collect(),
        };
        tell(&context, &observed, &decision);
        write(&context, &decision).await;
        tokio::time::sleep(PERIOD).await;
    }
}

/// What was told already; a new leader tells it once more.
#[derive(Default)]
struct Known {
    missing: BTreeSet<String>,
    targets: BTreeSet<String>,
}

async fn look(context: &Context, stores: &Stores, known: &Known) -> Observed {
    let client = &context.client;
    let lists = Lists::of(stores);
    let mut broken = observe::watched(&lists);
    match observe::listed(client).await {
        Ok(listed) => broken.extend(listed),
        Err(error) => unread(&error, "namespaces and CRDs"),
    }
    let wanted: BTreeSet<String> = context
        .settings
        .admission_policies
        .iter()
        .filter(|name| !name.is_empty())
        .cloned()
        .collect();
    let bound = match observe::bound(client).await {
        Ok(bound) => Some(bound),
        Err(error) => {
            unread(&error, "admission policies");
            None
        }
    };
    Observed {
        now_ms: now_ms(),
        broken_millis: i64::from(context.settings.break_glass_seconds) * 1000,
        broken,
        marks: observe::marks(&lists),
        wanted,
        bound,
        targets: observe::targets(&lists),
        unattended: observe::unattended(&lists),
        missing_before: known.missing.clone(),
        targets_before: known.targets.clone(),
    }
}

fn unread(error: &kube::Error, what: &str) {
    tracing::debug!(
        error = error as &dyn std::error::Error,
        what,
        "cannot be listed; asked again soon"
    );
}

fn tell(context: &Context, observed: &Observed, decision: &Decision) {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let metrics = &context.metrics;
    metrics.broken_glass.set(count(observed.broken.len()));
    metrics.policies_missing.set(count(decision.missing.len()));
    metrics.unattended_pods.set(count(observed.unattended));
    metrics.disruption_targets.reset();
    for target in &observed.targets {
        metrics
            .disruption_targets
            .with_label_values(&[target.reason.as_str()])
            .inc();
    }
    if !decision.missing.is_empty() {
        tracing::error!(missing = ?decision.missing, "admission policies are gone: slots can be deleted; helm upgrade puts them back");
    }
}

async fn write(context: &Context, decision: &Decision) {
    let manager = crds::labels::field_manager(CONTROLLER);
    let recorder = context.recorder();
    let mut failed = 0;
    for change in &decision.changes {
        match apply::apply(&context.client, &recorder, &manager, std::slice::from_ref(change)).await {
            Ok(applied) => context.metrics.wrote(CONTROLLER, applied.writes),
            // Read again in the next pass.
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                failed += 1;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a broken glass is not mended yet"
                );
            }
        }
    }
    context.metrics.failed(CONTROLLER, failed);
}
