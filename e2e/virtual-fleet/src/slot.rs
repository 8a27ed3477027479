//! A slot pod's `serve` in virtual time: the node agent's own state, fence, admission and reports, around engines that count.
//! Nonces are places in an enumeration; no vector is computed.

use std::collections::VecDeque;
use std::path::PathBuf;

use network_simulator::event::{Check, Start};
use network_simulator::exam::book::counted::Batch;
use network_simulator::network::Network;
use node_agent::slot::serve::config::Config;
use node_agent::slot::serve::fence::Identity;
use node_agent::slot::serve::jobs::Jobs;
use node_agent::slot::serve::journal::Journal;
use node_agent::slot::serve::journal::record::{End, Record};
use node_agent::slot::serve::memory::{Memory, Rehearsed};
use node_agent::slot::serve::report;
use node_agent::slot::serve::request::RoundRequest;
use node_agent::slot::serve::round::admission::Admission;
use node_agent::slot::serve::signal;
use node_agent::slot::serve::state::{Group, Phase, State};
use node_agent::slot::telemetry::LogFormat;
use proto::v1::{DemoteRequest, Frame, PrepareRequest, PromoteRequest, SlotReport};

/// What every engine of the fleet computes for a nonce of a rehearsal, base64 of two fp16 values.
const VECTOR: &str = "ADwAOA==";
/// Between two deliveries in a hurry.
const HURRIED_MS: i64 = 250;
/// A delivery that was not taken is tried again after this long at most.
const LONGEST_PAUSE_MS: i64 = 4_000;
/// The life of hold in a pod that never restarts it.
const BOOT: u64 = 1;

/// What a slot is made of.
#[derive(Clone, Debug)]
pub struct Make {
    /// UID of the pod.
    pub pod_uid: String,
    /// UID of its deployment.
    pub deployment_uid: String,
    /// Model.
    pub model: String,
    /// Chain that its signal is of.
    pub chain_id: String,
    /// Nonces in 1000 seconds.
    pub rate_milli: u64,
    /// Between callbacks.
    pub callback_ms: i64,
    /// Length of a generation stage.
    pub stage_ms: i64,
}

/// One slot.
#[derive(Debug)]
pub struct Slot {
    /// The node agent's own state.
    pub state: State,
    /// Nonces in 1000 seconds.
    pub rate_milli: u64,
    config: Config,
    chain_id: String,
    /// Since when the round under way is computed, and from where.
    run: Option<Run>,
    failures: u32,
    next_delivery_ms: i64,
}

/// Computing under way.
#[derive(Clone, Debug)]
struct Run {
    id: i64,
    /// Place it began at, or went on from.
    from: u64,
    /// Since when; absent while no engine computes.
    since_ms: Option<i64>,
    /// First place DAPI did not take.
    delivered: u64,
}

/// What DAPI said to artifacts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// All of them.
    Accepted,
    /// Not now, or nobody answered.
    NotNow,
}

impl Slot {
    /// A pod whose engine was just started.
    pub fn new(make: Make) -> Self {
        let config = Config {
            identity: Identity {
                pod_uid: make.pod_uid.clone(),
                deployment_uid: make.deployment_uid,
            },
            pod_name: make.pod_uid,
            run_dir: PathBuf::new(),
            journal_dir: None,
            journal_min_free: 0,
            replicas: 1,
            engine_binary: None,
            prepare: PrepareRequest {
                scheme: "prefill_v2".to_owned(),
                model: make.model,
                max_nonces_per_second: 0,
                ..PrepareRequest::default()
            },
            weights_digest: String::new(),
            callback_interval_ms: make.callback_ms,
            start_stagger: std::time::Duration::ZERO,
            farewell_ms: 15_000,
            stage_ms: make.stage_ms,
            log_format: LogFormat::Json,
        };
        let engine = Group {
            phase: Phase::Loading,
            pid: 1,
            starts: 1,
            boot_id: BOOT,
            ..Group::default()
        };
        Self {
            state: State {
                memory: Memory::default(),
                groups: vec![engine],
                rounds: VecDeque::new(),
                jobs: Jobs::new(1),
                signal: None,
                journal: Journal::nowhere(),
                journal_free: u64::MAX,
                turned_away: None,
                start_times: Vec::new(),
                totals: [0; 3],
                closing: false,
                released_ms: 0,
            },
            rate_milli: make.rate_milli,
            config,
            chain_id: make.chain_id,
            run: None,
            failures: 0,
            next_delivery_ms: 0,
        }
    }

    /// Which start of the engine this is.
    pub fn starts(&self) -> u32 {
        self.state.groups.first().map_or(0, |engine| engine.starts)
    }

    /// The model is loaded, if the engine was not started again meanwhile.
    pub fn loaded(&mut self, starts: u32) -> bool {
        let Some(engine) = self.state.groups.first_mut().filter(|engine| engine.starts == starts) else {
            return false;
        };
        engine.phase = Phase::Ready;
        "sha256:00".clone_into(&mut engine.weights_digest);
        true
    }

    /// The engine's process ends; hold starts another.
    pub fn engine_dies(&mut self, now_ms: i64) {
        self.advance(now_ms);
        if let Some(engine) = self.state.groups.first_mut() {
            engine.phase = Phase::Loading;
            engine.starts += 1;
        }
        if let Some(run) = &mut self.run {
            run.since_ms = None;
        }
    }

    /// Model loaded.
    pub fn is_loaded(&self) -> bool {
        self.state.ready() > 0
    }

    /// The slot it holds: index and generation.
    pub fn held(&self) -> Option<(i32, i64)> {
        let held = self.state.memory.assignment.as_ref()?;
        Some((held.slot, held.generation))
    }

    /// The model that its engine loads.
    pub fn model(&self) -> &str {
        &self.config.prepare.model
    }

    /// UID of its deployment.
    pub fn deployment_uid(&self) -> &str {
        &self.config.identity.deployment_uid
    }

    /// DAPI's id of the node it holds.
    pub fn node_id(&self) -> Option<&str> {
        self.state.memory.assignment.as_ref().map(|held| held.node_id.as_str())
    }

    /// A round is under way.
    pub fn is_active(&self) -> bool {
        self.state.active().is_some()
    }

    /// Something is computed, or waits to be delivered.
    pub fn has_work(&self, now_ms: i64) -> bool {
        self.state.newest().is_some_and(|round| round.may_send(now_ms))
    }

    /// What the operator is told.
    pub fn report(&mut self, now_ms: i64) -> SlotReport {
        self.advance(now_ms);
        let mut report = report::render(&self.state, &self.config, now_ms);
        if let (Some(round), Some(run)) = (&mut report.round, &self.run) {
            for resume in &mut round.next {
                // What DAPI does not have must be computed again elsewhere.
                resume.next_index = run.delivered;
            }
        }
        report
    }

    /// The operator opens the door. `Err`: the generation it has seen, 0 when it refused for another reason.
    pub fn promote(&mut self, request: PromoteRequest, now_ms: i64) -> Result<(), i64> {
        self.advance(now_ms);
        let generation = request.key.as_ref().map_or(0, |key| key.generation);
        let seen = self.seen(&request);
        node_agent::slot::serve::operator::promote(&self.config, &mut self.state, request, now_ms)
            .map_err(|_| if seen > generation { seen } else { 0 })?;
        self.follow_round(now_ms);
        Ok(())
    }

    fn seen(&self, request: &PromoteRequest) -> i64 {
        let key = request.key.as_ref();
        key.and_then(|key| {
            self.state
                .memory
                .seen
                .get(&(key.deployment_uid.clone(), key.slot))
                .copied()
        })
        .unwrap_or_default()
    }

    /// The operator closes the door. False: it was not meant, or is over.
    pub fn demote(&mut self, request: &DemoteRequest, now_ms: i64) -> bool {
        use node_agent::slot::serve::operator::{demote, may_demote};
        self.advance(now_ms);
        let Ok(key) = may_demote(&self.config, &self.state, request.key.as_ref()).cloned() else {
            return false;
        };
        demote(&mut self.state, &key, request.superseded, now_ms);
        true
    }

    /// DAPI asks to generate: the status of the answer.
    pub fn start(&mut self, start: &Start, net: &Network, now_ms: i64) -> u16 {
        self.advance(now_ms);
        let request = request(start, net, &self.config.prepare.scheme);
        match self.state.admit(&request, &self.config, now_ms) {
            Admission::Start(resume) => {
                let resume = self.undelivered(&request, resume);
                self.state.begin_round(request, resume, now_ms);
                self.state.memory.stopped = false;
                self.state.note(&Record::Answered {
                    body: serde_json::Value::Null,
                });
                self.follow_round(now_ms);
                200
            }
            Admission::Repeat(_) => 200,
            Admission::Conflict | Admission::WrongModel => 409,
            Admission::NoBackend | Admission::NoSlot | Admission::OtherNode(_) => 503,
        }
    }

    /// The same exam once more goes on where DAPI's artifacts end.
    fn undelivered(&self, request: &RoundRequest, resume: Vec<u64>) -> Vec<u64> {
        let same = self.state.newest().filter(|round| round.request.key() == request.key());
        match (&self.run, same) {
            (Some(run), Some(round)) if run.id == round.id => vec![run.delivered],
            _ => resume,
        }
    }

    /// DAPI says stop.
    pub fn stop(&mut self, now_ms: i64) {
        self.advance(now_ms);
        self.state.end_round(End::Stopped, 0, now_ms);
        self.state.jobs.cancel_all(now_ms);
    }

    /// How long it takes to recompute a sample.
    pub fn check_ms(&self, check: &Check) -> i64 {
        (u64::from(check.total) * 1_000_000).div_ceil(self.rate_milli.max(1)) as i64
    }

    /// A frame of the signal.
    pub fn hear(&mut self, frame: Frame, now_ms: i64) {
        self.advance(now_ms);
        if let Some(view) = signal::accept(self.state.signal.as_ref(), frame, &self.chain_id, now_ms) {
            self.state.take_view(view);
        }
    }

    /// What passes by itself: nonces are computed, a round nobody ended ends.
    pub fn tick(&mut self, now_ms: i64) {
        self.advance(now_ms);
        self.state.tick(self.config.stage_ms, now_ms);
    }

    /// What is to be delivered now, and to which exam; absent while nothing is due.
    pub fn delivery(&self, now_ms: i64) -> Option<(i64, Batch)> {
        let run = self.run.as_ref()?;
        let round = self.state.newest().filter(|round| round.id == run.id)?;
        let computed = round.next.first().copied().unwrap_or_default();
        let due = now_ms >= self.next_delivery_ms || self.state.must_hurry(self.config.stage_ms, now_ms);
        (due && round.may_send(now_ms) && computed > run.delivered).then(|| {
            let batch = Batch {
                node_num: round.request.node_num.max(0).unsigned_abs(),
                group: 0,
                places: run.delivered..computed,
            };
            (round.request.height, batch)
        })
    }

    /// What became of it.
    pub fn delivered(&mut self, batch: &Batch, taken: Taken, now_ms: i64) {
        let count = batch.places.end - batch.places.start;
        match taken {
            Taken::Accepted => {
                self.failures = 0;
                if let Some(run) = &mut self.run {
                    run.delivered = batch.places.end;
                }
                self.state.note(&Record::Sent {
                    at: now_ms,
                    accepted: count,
                    refused: 0,
                });
                self.state.memory.callback_proven = true;
                self.next_delivery_ms = now_ms + self.config.callback_interval_ms;
            }
            Taken::NotNow => {
                self.failures += 1;
                let pause = HURRIED_MS << self.failures.min(4);
                self.next_delivery_ms = now_ms + pause.min(LONGEST_PAUSE_MS);
            }
        }
    }

    /// When it should be looked at again while it has work.
    pub fn next_tick_ms(&self, now_ms: i64) -> i64 {
        let hurry = self.state.must_hurry(self.config.stage_ms, now_ms);
        if hurry { HURRIED_MS } else { 1_000 }
    }

    /// A rehearsal is over. False: a round began meanwhile.
    pub fn rehearsed(&mut self, nonces: &[i32], callback_answers: bool, now_ms: i64) -> bool {
        if self.is_active() || !self.is_loaded() {
            return false;
        }
        self.state.memory.rehearsed = Rehearsed {
            time_ms: now_ms,
            lives: self.state.engine_lives(),
            artifacts: nonces.iter().map(|nonce| (*nonce, VECTOR.to_owned())).collect(),
            nonces_per_second_milli: self.rate_milli,
            error: if callback_answers {
                String::new()
            } else {
                "DAPI's callback port does not answer".to_owned()
            },
        };
        self.state.memory.callback_proven = callback_answers;
        true
    }

    /// Brings what was computed up to now.
    fn advance(&mut self, now_ms: i64) {
        let Some(run) = self.run.clone() else { return };
        if !self.state.is_active(run.id) || !self.is_loaded() {
            return;
        }
        let Some(since_ms) = run.since_ms else { return };
        let elapsed = (now_ms - since_ms).max(0).unsigned_abs();
        let next = run.from + self.rate_milli * elapsed / 1_000_000;
        let known = self.state.active().and_then(|round| round.next.first().copied());
        let count = next.saturating_sub(known.unwrap_or_default());
        if count > 0 {
            self.state.note(&Record::Batch {
                at: now_ms,
                group: 0,
                next,
                count: u32::try_from(count).unwrap_or(u32::MAX),
                artifacts: Vec::new(),
            });
        }
    }

    /// A round that began, or goes on after the engine came back, is computed from now on.
    pub fn follow_round(&mut self, now_ms: i64) {
        let Some(round) = self.state.active() else { return };
        if !self.is_loaded() {
            return;
        }
        let from = round.next.first().copied().unwrap_or_default();
        match self.run.as_mut().filter(|run| run.id == round.id) {
            Some(run) if run.since_ms.is_some() => {}
            Some(run) => {
                run.from = from;
                run.since_ms = Some(now_ms);
            }
            None => {
                self.run = Some(Run {
                    id: round.id,
                    from,
                    since_ms: Some(now_ms),
                    delivered: from,
                });
                self.failures = 0;
                self.next_delivery_ms = now_ms;
            }
        }
    }
}

/// DAPI's start request as the slot reads it.
fn request(start: &Start, net: &Network, scheme: &str) -> RoundRequest {
    let seed = net.exam.as_ref().map(|exam| exam.seed.clone()).unwrap_or_default();
    let host = net.hosts.get(net.ours);
    RoundRequest {
        height: start.stage_height,
        seed,
        public_key: host.map(|host| host.public_key.clone()).unwrap_or_default(),
        node_num: start.node_num as i32,
        node_count: start.node_count as i32,
        model: start.model.clone(),
        seq_len: 256,
        k_dim: 12,
        batch_size: 32,
        stronger_rng: false,
        callback_url: format!("{}/v2/poc-batches/m", net.dapi.callback_base),
        scheme: scheme.to_owned(),
    }
}

#[cfg(test)]
mod tests;
