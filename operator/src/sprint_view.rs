//! `/fleet/v1/sprint`: countdown, stage, window and every slot's progress, as this replica sees them now. Read by `kubectl gonka sprint`.
//!
//! Only the leader watches slots; a follower says so in `leader: false` and shows the chain alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crds::ModelDeployment;
use crds::sprint_view::{ExamView, GateHistory, ScheduleView, SlotView, View};

use crate::chain::now_ms;
use crate::context::Book;
use crate::facts::Facts;
use crate::gate::history::History;
use crate::live::Board;

/// Makes the view. Holds what the controllers last knew of deployments.
#[derive(Debug)]
pub struct SprintView {
    replica: String,
    book: Arc<Book>,
    live: Arc<Board>,
    gate: Arc<History>,
    leading: AtomicBool,
    deployments: RwLock<BTreeMap<(String, String), ModelDeployment>>,
}

impl SprintView {
    /// A view of `book` and `live`.
    pub fn new(replica: String, book: Arc<Book>, live: Arc<Board>, gate: Arc<History>) -> Self {
        Self {
            replica,
            book,
            live,
            gate,
            leading: AtomicBool::new(false),
            deployments: RwLock::default(),
        }
    }

    /// This replica leads from now on.
    pub fn lead(&self) {
        self.leading.store(true, Ordering::Relaxed);
    }

    /// What the gate answered whom.
    pub fn gate(&self) -> GateHistory {
        GateHistory {
            leader: self.leading.load(Ordering::Relaxed),
            lines: self.gate.lines(),
        }
    }

    /// Replaces what is known of deployments.
    pub fn set_deployments(&self, deployments: impl IntoIterator<Item = ModelDeployment>) {
        let keyed = deployments
            .into_iter()
            .map(|deployment| {
                let metadata = &deployment.metadata;
                (
                    (
                        metadata.namespace.clone().unwrap_or_default(),
                        metadata.name.clone().unwrap_or_default(),
                    ),
                    deployment,
                )
            })
            .collect();
        *self.deployments.write().unwrap_or_else(PoisonError::into_inner) = keyed;
    }

    /// The view as it stands now.
    pub fn render(&self) -> View {
        let now_ms = now_ms();
        let schedules = self
            .book
            .schedules()
            .iter()
            .map(|name| schedule(&self.book.facts(name), now_ms))
            .collect();
        let deployments = self.deployments.read().unwrap_or_else(PoisonError::into_inner);
        let slots = deployments
            .iter()
            .flat_map(|(key, deployment)| slots(key, deployment, &self.live))
            .collect();
        View {
            replica: self.replica.clone(),
            leader: self.leading.load(Ordering::Relaxed),
            time_ms: now_ms,
            schedules,
            slots,
        }
    }
}

fn schedule(facts: &Facts, now_ms: i64) -> ScheduleView {
    let next = facts.next_poc_start();
    ScheduleView {
        name: facts.schedule.clone(),
        chain_id: facts.chain_id.clone(),
        height: facts.height,
        age_ms: if facts.observed_ms == 0 {
            0
        } else {
            now_ms - facts.observed_ms
        },
        agreeing: facts.agreeing,
        endpoints: facts.endpoints.len(),
        epoch: facts.epoch,
        stage: facts.stage,
        window: facts.window,
        next_poc_start_height: next,
        millis_to_sprint: next.and_then(|height| facts.millis_until(height, now_ms)),
        error_ms: next
            .and_then(|height| facts.predict(height))
            .map(|prediction| prediction.error_ms),
        exam: facts.exam.as_ref().map(|exam| ExamView {
            kind: exam.kind,
            generation_start_height: exam.generation_start_height,
            generation_end_height: exam.generation_end_height,
        }),
        problems: facts.problems.clone(),
    }
}

fn slots(key: &(String, String), deployment: &ModelDeployment, live: &Board) -> Vec<SlotView> {
    let Some(status) = &deployment.status else {
        return Vec::new();
    };
    let base = || SlotView {
        namespace: key.0.clone(),
        host: deployment.spec.host_ref.name.clone(),
        deployment: key.1.clone(),
        ..SlotView::default()
    };
    let assigned = status.slots.iter().map(|slot| {
        let pod = slot.pod_ref.clone().unwrap_or_default();
        let view = SlotView {
            slot: slot.index,
            pod: pod.name,
            node: slot.node_name.clone().unwrap_or_default(),
            state: slot.state.to_string(),
            reasons: slot.reasons.clone(),
            generation: slot.generation,
            ..base()
        };
        with_progress(view, live, &pod.uid)
    });
    let spares = status.spares.iter().map(|spare| {
        let view = SlotView {
            slot: -1,
            pod: spare.pod_name.clone(),
            node: spare.node_name.clone().unwrap_or_default(),
            state: spare.state.to_string(),
            ..base()
        };
        with_progress(view, live, &spare.pod_uid)
    });
    assigned.chain(spares).collect()
}

fn with_progress(mut view: SlotView, live: &Board, pod_uid: &str) -> SlotView {
    let Some(seen) = live.pod(pod_uid) else { return view };
    view.connected = seen.connected;
    if let Some(round) = seen.report.round {
        view.generated = round.generated;
        view.accepted = round.accepted;
        view.nonces_per_second_milli = round.nonces_per_second_milli;
        view.first_nonce_ms = (round.first_nonce_ms > 0).then(|| round.first_nonce_ms - round.started_ms);
    }
    view
}
