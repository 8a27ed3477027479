//! Everything `serve` knows, as one value behind one lock, and the few ways in which it changes.

use super::{
    config::Config,
    jobs::Jobs,
    journal::{
        Journal,
        record::{End, Record},
    },
    memory::{EngineLives, Memory},
    request::{RoundKey, RoundRequest},
    round::{
        Round,
        admission::{self, Admission, Situation},
        ending::{self, Ends},
    },
    signal::View,
};
use proto::v1::{ArtifactBatch, EngineStart, ValidateRequest};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Rounds remembered.
const HISTORY: usize = 17;
/// Routes to a pod that lost or gained an address are right within a second; whoever still asks after this time means us.
const WAYS_MENDED_MS: i64 = 3_000;

/// Where a replica group stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// No process, or none that answers.
    #[default]
    Down,
    /// Loads the model.
    Loading,
    /// Model loaded.
    Ready,
}

/// One replica group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Where it stands.
    pub phase: Phase,
    /// Its process, as hold says; 0 = none.
    pub pid: i32,
    /// Times hold started it.
    pub starts: u32,
    /// Life of hold that counted them.
    pub boot_id: u64,
    /// Digest of the weights it loaded.
    pub weights_digest: String,
    /// The round it computes.
    pub round: Option<i64>,
    /// What went wrong last.
    pub error: String,
}

/// What a replica group should do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Compute this round.
    Round(i64, EngineStart),
    /// Compute a chunk of this job.
    Chunk(String, ValidateRequest),
    /// Wait.
    Nothing,
}

/// How long parts of a start took, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum StartPhase {
    /// Request of DAPI to the first engine's word.
    RequestToEngine,
    /// Request to first artifact.
    FirstNonce,
    /// Request to first accepted callback.
    FirstCallback,
}

/// Everything.
#[derive(Debug)]
pub struct State {
    /// What survives a restart of `serve`.
    pub memory: Memory,
    /// Replica groups.
    pub groups: Vec<Group>,
    /// Rounds, oldest first; only the last can be active.
    pub rounds: VecDeque<Round>,
    /// Validation.
    pub jobs: Jobs,
    /// The chain, if anybody tells.
    pub signal: Option<View>,
    /// The journal.
    pub journal: Journal,
    /// Room left for it; unknown at first, which is no red light.
    pub journal_free: u64,
    /// A start that was turned away as another node's, and when it first was.
    pub turned_away: Option<(RoundKey, i64)>,
    /// Measured since the last scrape.
    pub start_times: Vec<(StartPhase, f64)>,
    /// Sums over all rounds of this process: generated, accepted, refused.
    pub totals: [u64; 3],
    /// This process is about to end: what waits must leave now.
    pub closing: bool,
    /// When the slot was given up last, Unix milliseconds; 0 = not in this life.
    pub released_ms: i64,
}

impl State {
    /// The newest round.
    pub fn newest(&self) -> Option<&Round> {
        self.rounds.back()
    }

    /// The round under way.
    pub fn active(&self) -> Option<&Round> {
        self.newest().filter(|round| round.is_active())
    }

    /// Whether this round is under way.
    pub fn is_active(&self, id: i64) -> bool {
        self.active().is_some_and(|round| round.id == id)
    }

    /// Holds the engines of the newest round back for a moment. One that was under way before goes on at once.
    pub fn hold_back(&mut self, delay_ms: i64) {
        if let Some(round) = self.rounds.back_mut()
            && round.next.iter().all(|next| *next == 0)
        {
            round.begins_ms = round.id.saturating_add(delay_ms);
        }
    }

    /// How long the engines of a round are still held back.
    pub fn held_back_ms(&self, id: i64, now_ms: i64) -> i64 {
        let begins = self
            .active()
            .filter(|round| round.id == id)
            .map(|round| round.begins_ms);
        begins.map_or(0, |begins| (begins - now_ms).max(0))
    }

    /// Whether nothing is under way that a step of the clock could disturb.
    pub fn is_quiet(&self, now_ms: i64) -> bool {
        self.newest().is_none_or(|round| !round.may_send(now_ms)) && !self.jobs.is_busy()
    }

    /// Engines with the model loaded.
    pub fn ready(&self) -> usize {
        self.groups.iter().filter(|group| group.phase == Phase::Ready).count()
    }

    /// Which lives of the engines these are; a rehearsal counts for exactly one such value.
    pub fn engine_lives(&self) -> EngineLives {
        EngineLives {
            boot_id: self.groups.iter().map(|group| group.boot_id).max().unwrap_or(0),
            starts: self.groups.iter().map(|group| group.starts).sum(),
        }
    }

    /// What a start of DAPI meets.
    pub fn admit(&mut self, request: &RoundRequest, config: &Config, now_ms: i64) -> Admission {
        let key = request.key();
        let since = self.turned_away.as_ref().filter(|(turned, _)| *turned == key);
        let since_ms = since.map(|(_, at)| *at);
        let admission = admission::decide(
            request,
            &Situation {
                node_num: self.memory.assignment.as_ref().map(|held| held.node_num),
                insisted: since_ms.is_some_and(|at| now_ms - at >= WAYS_MENDED_MS),
                newest: self.newest(),
                model: config.model(),
                scheme: &config.prepare.scheme,
                ready: self.ready(),
                groups: self.groups.len() as u32,
            },
        );
        if matches!(admission, Admission::OtherNode(_)) {
            self.turned_away = Some((key, since_ms.unwrap_or(now_ms)));
        }
        admission
    }

    /// Begins a round, which ends the one under way; answers its id.
    pub fn begin_round(&mut self, request: RoundRequest, resume: Vec<u64>, now_ms: i64) -> i64 {
        self.end_round(End::Stopped, 0, now_ms);
        let id = self.newest().map_or(now_ms, |newest| now_ms.max(newest.id + 1));
        let started = Record::Started {
            request,
            at: id,
            groups: self.groups.len() as u32,
            resume,
        };
        self.journal.begin(id, &started);
        if let Some(mut round) = Round::begin(&started) {
            round.ends = self.ends_of(&round.request);
            self.rounds.push_back(round);
        }
        while self.rounds.len() > HISTORY {
            self.rounds.pop_front();
        }
        id
    }

    /// Writes down and takes in what happened in the newest round.
    pub fn note(&mut self, record: &Record) {
        let Some(round) = self.rounds.back_mut() else { return };
        self.journal.append(record);
        let before = (
            round.generated,
            round.accepted,
            round.refused,
            round.first_nonce_ms,
            round.first_callback_ms,
        );
        round.apply(record);
        self.totals[0] += round.generated - before.0;
        self.totals[1] += round.accepted - before.1;
        self.totals[2] += round.refused - before.2;
        let seconds = |at: i64| (at - round.id) as f64 / 1_000.0;
        if before.3 == 0 && round.first_nonce_ms != 0 {
            self.start_times
                .push((StartPhase::FirstNonce, seconds(round.first_nonce_ms)));
        }
        if before.4 == 0 && round.first_callback_ms != 0 {
            self.start_times
                .push((StartPhase::FirstCallback, seconds(round.first_callback_ms)));
        }
    }

    /// Ends the round under way. What waits may still leave for `flush_ms`, else it is given up at once.
    pub fn end_round(&mut self, end: End, flush_ms: i64, now_ms: i64) {
        if self.active().is_none() {
            return;
        }
        self.note(&Record::Ended { at: now_ms, end });
        if let Some(round) = self.rounds.back_mut() {
            round.flush_until_ms = now_ms + flush_ms;
            tracing::info!(
                height = round.request.height,
                ?end,
                generated = round.generated,
                accepted = round.accepted,
                waiting = round.outbox.len(),
                "round ended"
            );
        }
        self.drop_late(now_ms);
    }

    /// Gives up what may no longer leave.
    pub fn drop_late(&mut self, now_ms: i64) {
        let Some(round) = self.rounds.back_mut().filter(|round| !round.may_send(now_ms)) else {
            return;
        };
        let before = round.refused;
        round.drop_outbox();
        self.totals[2] += round.refused - before;
    }

    /// Takes in a batch, if its round is still under way.
    pub fn take_batch(&mut self, id: i64, group: u32, batch: ArtifactBatch, now_ms: i64) {
        if !self.is_active(id) {
            return;
        }
        let confirmed = self.signal.as_ref().filter(|view| view.confirmed);
        let height = confirmed.map(|view| view.expected_height(now_ms));
        if self.active().is_some_and(|round| ending::is_over(round.ends, height)) {
            self.note_stage_end(true, now_ms);
        }
        if batch.rejected_non_finite > 0 {
            tracing::warn!(
                group,
                count = batch.rejected_non_finite,
                "the engine computed what is not finite"
            );
        }
        self.note(&Record::Batch {
            at: now_ms,
            group,
            next: batch.next_index,
            count: batch.artifacts.len() as u32,
            artifacts: batch
                .artifacts
                .into_iter()
                .map(|artifact| (artifact.nonce, kernels::artifact::to_base64(&artifact.vector)))
                .collect(),
        });
    }

    /// What a replica group should do now: a round first, then validation.
    pub fn wanted(&self, group: u32) -> Wanted {
        if let Some(round) = self.active() {
            if !round.has_work(group) {
                return Wanted::Nothing;
            }
            return Wanted::Round(
                round.id,
                EngineStart {
                    request: Some(round.request.clone().into()),
                    group,
                    groups: round.groups,
                    first_index: round.next[group as usize],
                },
            );
        }
        self.jobs
            .next_chunk(group as usize)
            .map_or(Wanted::Nothing, |(job, nonces)| {
                Wanted::Chunk(
                    job.id.clone(),
                    ValidateRequest {
                        request: Some(job.request.clone().into()),
                        nonces: nonces.iter().map(|nonce| *nonce as i32).collect(),
                        ..ValidateRequest::default()
                    },
                )
            })
    }

    /// Heights of a round's stage, if known.
    pub fn ends_of(&self, request: &RoundRequest) -> Option<Ends> {
        self.signal.as_ref().and_then(|view| ending::ends_of(request, view))
    }

    /// Takes in a frame's view; a round under way learns its stage from it.
    pub fn take_view(&mut self, view: View) {
        if let Some(round) = self.rounds.back_mut().filter(|round| round.is_active()) {
            round.ends = ending::ends_of(&round.request, &view).or(round.ends);
            if round.ends.is_some() && view.confirmed {
                let is_over = ending::is_over(round.ends, Some(view.height));
                self.note_stage_end(is_over, view.seen_ms);
            }
        }
        self.signal = Some(view);
    }

    /// Notes whether generation is over on the chain, when that is news.
    fn note_stage_end(&mut self, reached: bool, now_ms: i64) {
        if self.active().is_some_and(|round| round.in_time.is_some() != reached) {
            self.note(&Record::StageEnd { at: now_ms, reached });
        }
    }

    /// Whether what waits should leave at once.
    pub fn must_hurry(&self, stage_ms: i64, now_ms: i64) -> bool {
        let view = self.signal.as_ref();
        self.newest().is_some_and(|round| {
            self.closing || !round.is_active() || ending::must_hurry(round.id, round.ends, view, now_ms, stage_ms)
        })
    }

    /// Ends a round that nobody ended, gives up what is late, forgets old results. True: a round ended.
    pub fn tick(&mut self, stage_ms: i64, now_ms: i64) -> bool {
        let view = self.signal.as_ref();
        let height = view.filter(|view| view.confirmed).map(|view| view.height);
        let overdue = self.active().is_some_and(|round| {
            let (id, ends) = (round.id, round.ends);
            view.is_some_and(|view| ending::is_superseded(&round.request, ends, view))
                || (ending::is_overdue(id, ends, height, now_ms, stage_ms)
                    && !ending::is_held_open(id, ends, view, now_ms, stage_ms))
        });
        if overdue {
            self.end_round(End::StoppedBySelf, 0, now_ms);
        }
        self.drop_late(now_ms);
        self.jobs.expire(now_ms);
        overdue
    }
}

/// The state, its lock and the bell that rings at every change.
#[derive(Debug)]
pub struct Core {
    /// Settings.
    pub config: Config,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Core {
    /// Around a first state.
    pub fn new(config: Config, state: State) -> Self {
        Self {
            config,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug; the numbers it left are still the best there are.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock())
    }

    /// Changes, and rings.
    pub fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.ring();
        result
    }

    /// Changes without ringing: for what only the caller looks at.
    pub fn plan<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.lock())
    }

    /// Changes what must survive a restart, and writes it down.
    pub fn remember<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        self.update(|state| {
            let result = change(state);
            if let Err(error) = state
                .memory
                .save(&self.config.state_path(), &self.config.identity.pod_uid)
            {
                tracing::error!(%error, "a restart of serve would not know its assignment");
            }
            result
        })
    }

    /// Rings for a change made by [`Self::plan`].
    pub fn ring(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// The bell.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until something holds.
    pub async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut changed = self.subscribe();
        while !self.read(&holds) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
