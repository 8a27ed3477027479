//! Box 4, apply: carries out what a decision asks for, in its order, and makes no choice. Slots side by side, the steps of
//! one slot one after another.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::Recorder;

use super::decide::{Desired, Promote, SlotSteps, Step, Takeover};
use crate::apply::{self, Applied};
use crate::change::Change;
use crate::context::Context;
use crate::live::TakeoverEvent;
use crate::slot_door::{self, Doors, Promoted};

/// How long the API server is waited for, and per write on top.
const PATIENCE: Duration = Duration::from_secs(5);
const PER_WRITE: Duration = Duration::from_millis(500);
/// Slots that change hands at the same time.
const SIDE_BY_SIDE: usize = 32;

/// What went wrong.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The API server refused a write or did not answer.
    #[error("the API server took not all of what a ModelDeployment needs")]
    Write(#[source] apply::Error),
    /// The API server took too long.
    #[error("the API server does not answer a write; what runs is left as it is")]
    Silent,
    /// A pod was not promoted; the slice names it already, and the promote is repeated.
    #[error("slot {slot} is pod {pod}'s, which does not know it yet")]
    Promote {
        /// Slot.
        slot: i32,
        /// Pod.
        pod: String,
        /// Why.
        #[source]
        source: slot_door::Error,
    },
}

impl Error {
    /// Label of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Write(error) => error.category(),
            Self::Silent => self.into(),
            Self::Promote { source, .. } => source.category(),
        }
    }
}

/// The first error of all, after everything that does not depend on it was done.
pub async fn apply(
    context: &Context,
    doors: &Doors,
    recorder: &Recorder,
    manager: &str,
    desired: Desired,
) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let mut failed = None;
    let lists: Vec<_> = desired
        .slots
        .iter()
        .map(|slot| carry_out(context, doors, recorder, manager, slot))
        .collect();
    let results: Vec<(Applied, Option<Error>)> = futures::stream::iter(lists)
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    for (done, error) in results {
        applied.writes += done.writes;
        failed = failed.or(error);
    }
    match write(context, recorder, manager, &desired.changes).await {
        Ok(done) => applied.writes += done.writes,
        Err(error) => failed = failed.or(Some(error)),
    }
    for rehearsal in desired.rehearsals {
        doors.rehearse(rehearsal);
    }
    failed.map_or(Ok(applied), Err)
}

/// The steps of one slot, up to the first that fails.
async fn carry_out(
    context: &Context,
    doors: &Doors,
    recorder: &Recorder,
    manager: &str,
    slot: &SlotSteps,
) -> (Applied, Option<Error>) {
    let mut applied = Applied::default();
    record(context, slot, None);
    for step in &slot.steps {
        match step {
            Step::Demote(demote) => {
                if let Err(error) = doors.demote(demote).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        pod = demote.pod,
                        slot = demote.slot,
                        generation = demote.generation,
                        "pod was not demoted; the generation fences it"
                    );
                }
            }
            Step::Change(change) => match write(context, recorder, manager, std::slice::from_ref(change)).await {
                Ok(done) => applied.writes += done.writes,
                Err(error) => {
                    count(context, slot.takeover.as_ref(), "failed");
                    return (applied, Some(error));
                }
            },
            Step::Promote(promote) => {
                if let Err(error) = promote_pod(context, doors, slot, promote).await {
                    return (applied, Some(error));
                }
            }
        }
    }
    (applied, None)
}

async fn write(context: &Context, recorder: &Recorder, manager: &str, changes: &[Change]) -> Result<Applied, Error> {
    let patience = PATIENCE + PER_WRITE * u32::try_from(changes.len()).unwrap_or(u32::MAX);
    tokio::time::timeout(patience, apply::apply(&context.client, recorder, manager, changes))
        .await
        .map_err(|_| Error::Silent)?
        .map_err(Error::Write)
}

async fn promote_pod(context: &Context, doors: &Doors, slot: &SlotSteps, promote: &Promote) -> Result<(), Error> {
    match doors.promote(promote).await {
        Ok(Promoted::Done) => {
            let now_ms = Timestamp::now().as_millisecond();
            tracing::info!(
                pod = promote.pod,
                slot = promote.slot,
                generation = promote.generation,
                running = promote.running.is_some(),
                "pod holds the slot"
            );
            if let Some(takeover) = &slot.takeover {
                let seconds = (now_ms - takeover.decided_ms).max(0) as f64 / 1000.0;
                context
                    .metrics
                    .takeover_duration
                    .with_label_values::<&str>(&[])
                    .observe(seconds);
            }
            count(context, slot.takeover.as_ref(), "ok");
            record(context, slot, Some(now_ms));
            Ok(())
        }
        Ok(Promoted::Fenced(seen)) => {
            tracing::warn!(
                pod = promote.pod,
                slot = promote.slot,
                seen,
                "pod has seen a higher generation"
            );
            count(context, slot.takeover.as_ref(), "fenced");
            Ok(())
        }
        Err(source) => {
            count(context, slot.takeover.as_ref(), "failed");
            Err(Error::Promote {
                slot: promote.slot,
                pod: promote.pod.clone(),
                source,
            })
        }
    }
}

fn count(context: &Context, takeover: Option<&Takeover>, result: &str) {
    if let Some(takeover) = takeover.filter(|takeover| !takeover.to.is_empty()) {
        context
            .metrics
            .takeovers_total
            .with_label_values(&[takeover.cause.as_str(), result])
            .inc();
    }
}

fn record(context: &Context, slot: &SlotSteps, promoted_ms: Option<i64>) {
    if let Some(event) = TakeoverEvent::of(slot, promoted_ms) {
        context.live.takeover(event);
    }
}
