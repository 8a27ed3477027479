//! The operator door: who holds which slot, how its rounds go, and rehearsals. Every call carries a token; every call
//! that changes something passes the fence.

pub mod rehearsal;

use super::{
    config::Config,
    doors::Doors,
    fence,
    journal::record::End,
    memory::Assignment,
    report,
    round::{self, admission},
    state::{Core, State},
    trust::Trust,
};
use crate::slot::clock::{now_ms, wall_ms};
use futures::Stream;
use proto::v1::{
    DemoteRequest, PromoteRequest, Rehearsal, RehearseRequest, RoundsReply, RoundsRequest, SlotKey, SlotReport,
    SlotWatchRequest, slot_server::Slot,
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

/// Reports follow one another no closer than this, and at the latest after the heartbeat.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Longest drain a demotion may ask for.
const MAX_DRAIN_MS: u32 = 60_000;
/// What was computed may still be delivered this long after the slot was taken away.
const FLUSH_MS: i64 = 2_000;
/// Rounds told when a request names no number.
const DEFAULT_ROUNDS: usize = 16;

/// The service.
#[derive(Debug)]
pub struct Service {
    core: Arc<Core>,
    doors: Arc<Doors>,
    trust: Trust,
    client: reqwest::Client,
    watchers: TaskTracker,
}

impl Service {
    /// Behind the door.
    pub fn new(core: Arc<Core>, doors: Arc<Doors>, trust: Trust, client: reqwest::Client) -> Self {
        Self {
            core,
            doors,
            trust,
            client,
            watchers: TaskTracker::new(),
        }
    }

    fn authorize<T>(&self, request: Request<T>) -> Result<T, Status> {
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        self.trust.check_header(header, wall_ms()).map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "a caller was turned away");
            Status::unauthenticated(error.to_string())
        })?;
        Ok(request.into_inner())
    }

    fn read_key(&self, key: Option<&SlotKey>) -> Result<(), Status> {
        fence::check_pod(&self.core.config.identity, key)?;
        Ok(())
    }

    fn report(&self) -> SlotReport {
        let now = now_ms();
        self.core.read(|state| report::render(state, &self.core.config, now))
    }
}

impl From<fence::Refusal> for Status {
    fn from(refusal: fence::Refusal) -> Self {
        match refusal {
            fence::Refusal::NoKey => Self::invalid_argument(refusal.to_string()),
            _ => Self::failed_precondition(refusal.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Slot for Service {
    async fn promote(&self, request: Request<PromoteRequest>) -> Result<Response<SlotReport>, Status> {
        let request = self.authorize(request)?;
        let now = now_ms();
        self.core
            .remember(|state| promote(&self.core.config, state, request, now))?;
        self.doors.open();
        Ok(Response::new(self.report()))
    }

    async fn demote(&self, request: Request<DemoteRequest>) -> Result<Response<SlotReport>, Status> {
        let request = self.authorize(request)?;
        let now = now_ms();
        let closing = self.core.remember(|state| {
            let key = may_demote(&self.core.config, state, request.key.as_ref())?;
            // Before anything changes: an answer that the change brings about says that its connection ends.
            let closing = self.doors.shut();
            demote(state, key, request.superseded, now);
            Ok::<_, Status>(closing)
        })?;
        let drain = Duration::from_millis(u64::from(request.drain_millis.min(MAX_DRAIN_MS)));
        closing.drain(drain).await;
        Ok(Response::new(self.report()))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<SlotReport, Status>> + Send>>;

    async fn watch(&self, request: Request<SlotWatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = self.authorize(request)?;
        self.read_key(request.key.as_ref())?;
        let (out, reports) = mpsc::channel(1);
        self.watchers.spawn(tell(Arc::clone(&self.core), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(reports))))
    }

    async fn rounds(&self, request: Request<RoundsRequest>) -> Result<Response<RoundsReply>, Status> {
        let request = self.authorize(request)?;
        self.read_key(request.key.as_ref())?;
        let limit = match request.limit as usize {
            0 => DEFAULT_ROUNDS,
            limit => limit,
        };
        let now = now_ms();
        let rounds = self.core.read(|state| {
            state
                .rounds
                .iter()
                .rev()
                .take(limit)
                .map(|round| report::progress(round, now))
                .collect()
        });
        Ok(Response::new(RoundsReply { rounds }))
    }

    async fn rehearse(&self, request: Request<RehearseRequest>) -> Result<Response<Rehearsal>, Status> {
        let request = self.authorize(request)?;
        self.core.read(|state| {
            fence::check(&self.core.config.identity, &state.memory.seen, request.key.as_ref()).map(|_| ())
        })?;
        let rehearsal = rehearsal::run(&self.core, &self.client, request).await?;
        Ok(Response::new(rehearsal))
    }
}

/// Whether a demotion is meant for this pod, now, and for the slot it holds.
pub fn may_demote<'a>(config: &Config, state: &State, key: Option<&'a SlotKey>) -> Result<&'a SlotKey, Status> {
    let key = fence::check(&config.identity, &state.memory.seen, key)?;
    check_held(state, key)?;
    Ok(key)
}

/// Whether the slot that is to be given up is the one held, if any is.
fn check_held(state: &State, key: &SlotKey) -> Result<(), Status> {
    match &state.memory.assignment {
        Some(held) if held.deployment_uid != key.deployment_uid || held.slot != key.slot => {
            Err(Status::failed_precondition(format!(
                "this pod holds slot {} at generation {}, not slot {}",
                held.slot, held.generation, key.slot
            )))
        }
        _ => Ok(()),
    }
}

/// Gives the slot up. What was computed still leaves, unless another pod has gone on with the round meanwhile: the operator says so.
/// Generations do not tell: they count the assignments of all slots of a deployment.
pub fn demote(state: &mut State, key: &SlotKey, superseded: bool, now_ms: i64) {
    state.memory.assignment = None;
    state.released_ms = now_ms;
    state.memory.note(key);
    state.end_round(End::Stopped, if superseded { 0 } else { FLUSH_MS }, now_ms);
    state.jobs.cancel_all(now_ms);
    tracing::info!(slot = key.slot, generation = key.generation, superseded, "demoted");
}

/// Takes the slot over; a round that runs goes on here.
pub fn promote(config: &Config, state: &mut State, request: PromoteRequest, now_ms: i64) -> Result<(), Status> {
    let key = fence::check(&config.identity, &state.memory.seen, request.key.as_ref())?;
    if key.slot < 0 {
        return Err(Status::invalid_argument(
            "a spare holds no slot: name the slot it is to hold",
        ));
    }
    if let Some(held) = &state.memory.assignment
        && (held.deployment_uid != key.deployment_uid || held.slot != key.slot)
    {
        return Err(Status::failed_precondition(format!(
            "this pod holds slot {} at generation {}: demote it first",
            held.slot, held.generation
        )));
    }
    let running = request
        .running
        .map(round::admission::from_operator)
        .transpose()
        .map_err(Status::invalid_argument)?;
    if let Some(running) = &running
        && (running.model != config.model() || running.scheme != config.prepare.scheme)
    {
        return Err(Status::failed_precondition(format!(
            "the running round is of {} by {}: this pod has {}",
            running.model,
            running.scheme,
            config.model()
        )));
    }
    state.memory.note(key);
    state.memory.assignment = Some(Assignment {
        deployment_uid: key.deployment_uid.clone(),
        slot: key.slot,
        generation: key.generation,
        node_id: request.node_id,
        node_num: request.node_num,
        callback_base: request.callback_base,
    });
    state.memory.stopped = false;
    tracing::info!(
        slot = key.slot,
        generation = key.generation,
        running = running.is_some(),
        "promoted"
    );
    let Some(running) = running else { return Ok(()) };
    if state.active().is_some_and(|round| admission::outlasts(round, &running)) {
        return Ok(());
    }
    let groups = state.groups.len() as u32;
    let resume = admission::resume_indices(groups, request.resume.iter().map(|r| (r.group, r.next_index)));
    state.begin_round(running, resume, now_ms);
    Ok(())
}

/// Reports on change, never too often, never too rarely.
async fn tell(core: Arc<Core>, out: mpsc::Sender<Result<SlotReport, Status>>) {
    let mut changed = core.subscribe();
    loop {
        let now = now_ms();
        let report = core.read(|state| report::render(state, &core.config, now));
        if out.send(Ok(report)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(REPORT_PAUSE) => {}
            () = out.closed() => return,
        }
        tokio::select! {
            rung = changed.changed() => if rung.is_err() { return },
            () = tokio::time::sleep(HEARTBEAT.saturating_sub(REPORT_PAUSE)) => {}
            () = out.closed() => return,
        }
    }
}
