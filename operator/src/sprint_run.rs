//! SprintRun controller: a record of every exam of every host.
//!
//! ```text
//!  facts, caches, live board ─► watch ─► notes (memory, volume)        no API server, no request
//!                                          │ a phase begins
//!  chain, DAPI ─────────► collect ─► decide ─► create · status · row · seal
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`examined`], [`gates`], [`watch`], [`notes`] | what is seen while an exam goes by |
//! | [`answers`], [`collect`], [`scan`] | what the chain says, of exams nobody watched too |
//! | [`observed`], [`decide`], [`record`], [`cause`] | the record, pure |
//! | [`job`], [`rows`], [`retention`] | writing it |
//!
//! The API server may be away during a whole exam: the notes go on, and the record is made when it is back.

pub mod answers;
pub mod cause;
pub mod collect;
pub mod decide;
pub mod examined;
pub mod gates;
mod job;
pub mod notes;
pub mod observed;
pub mod record;
pub mod retention;
pub mod rows;
mod scan;
mod stores;
pub mod watch;

pub use scan::confirmations;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crds::{GonkaHost, SprintRun};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;

use crate::backoff;
use crate::chain::now_ms;
use crate::context::Context;
use crate::facts::Facts;
use examined::{Examined, Phase};
use job::Outcome;
use notes::{Key, Note, Notes};
use rows::Rows;
use stores::{Stores, World};
use watch::Seen;

/// Field manager and metric label.
const CONTROLLER: &str = "sprint-run";
/// Between looks at the facts; a block of the fastest test network takes longer.
const LOOK: Duration = Duration::from_millis(200);
/// Between attempts to read what is not there yet, for example a settlement.
const RETRY_MILLIS: i64 = 5000;
/// Jobs at once.
const CONCURRENCY: usize = 8;

/// Why the controller ended.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// Every watch ended.
    #[error("the SprintRun controller lost its watches")]
    Ended,
}

/// Keeps records until cancelled.
pub async fn run(context: Context) -> Result<(), Error> {
    let (stores, mut changes) = Stores::start(&context.client);
    let notes = notes::load(&notes_folder(&context)).await;
    let rows = Rows::new(context.settings.records_dir.clone());
    let mut keeper = Keeper::new(context, stores, notes, rows);
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(()) => keeper.stale = true,
                None => return Err(Error::Ended),
            },
            Some(outcome) = keeper.jobs.next(), if !keeper.jobs.is_empty() => keeper.absorb(outcome).await,
            _ = looks.tick() => keeper.look().await,
        }
    }
}

struct Keeper {
    context: Context,
    stores: Stores,
    world: Arc<World>,
    stale: bool,
    notes: Notes,
    saved: Notes,
    rows: Rows,
    clocks: BTreeMap<String, gates::Clock>,
    closed: BTreeSet<Key>,
    scanned: BTreeMap<String, i64>,
    scanning: bool,
    saved_ms: i64,
    jobs: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

impl Keeper {
    fn new(context: Context, stores: Stores, notes: Notes, rows: Rows) -> Self {
        Self {
            context,
            stores,
            world: Arc::default(),
            stale: true,
            saved: notes.clone(),
            notes,
            rows,
            clocks: BTreeMap::new(),
            closed: BTreeSet::new(),
            scanned: BTreeMap::new(),
            scanning: false,
            saved_ms: 0,
            jobs: FuturesUnordered::new(),
        }
    }

    /// One look: sees, then starts what is due.
    async fn look(&mut self) {
        let now = now_ms();
        if std::mem::take(&mut self.stale) {
            self.world = Arc::new(self.stores.world());
        }
        let world = self.world.clone();
        for schedule in self.context.book.schedules() {
            let facts = self.context.book.facts(&schedule);
            if facts.height == 0 || facts.is_stale(now) {
                continue;
            }
            self.see(&facts, &world, now);
            self.resume(&facts, &world);
            self.scan(&facts, &world);
        }
        self.forget(&world);
        self.start_jobs(&world, now);
        self.save(now).await;
    }

    fn see(&mut self, facts: &Facts, world: &World, now: i64) {
        let install_id = self.context.settings.install_id.clone();
        let margins = world.margins(&facts.schedule);
        let seen: Vec<Seen<'_>> = world
            .hosts
            .iter()
            .filter(|host| host.spec.schedule_name == facts.schedule)
            .map(|host| Seen {
                host,
                deployments: world.of_host(host),
                margins: &margins,
                install_id: &install_id,
            })
            .collect();
        let clock = self.clocks.entry(facts.schedule.clone()).or_default();
        watch::take_verdicts(&mut self.notes, clock, &seen, facts, now);
        for host in &seen {
            if !self.is_closed(host.host, facts) {
                watch::follow(&mut self.notes, host, facts, &self.context.live, now);
            }
        }
        // Reports may come after the exam left the facts, or after a new leader found slots again.
        for note in self
            .notes
            .open
            .values_mut()
            .filter(|note| note.schedule == facts.schedule)
        {
            if note.exam.phase(facts) > Phase::Weighed {
                continue;
            }
            let host = seen
                .iter()
                .find(|seen| seen.host.metadata.uid.as_deref() == Some(note.host.uid.as_str()));
            if host.is_some_and(|host| watch::catch_up(note, host, &self.context.live, facts)) {
                note.done = None;
            }
            watch::watch_slots(note, &self.context.live, facts);
        }
    }

    fn is_closed(&self, host: &GonkaHost, facts: &Facts) -> bool {
        let Some(exam) = &facts.exam else { return false };
        let name = host.metadata.name.as_deref().unwrap_or_default();
        let key = (
            host.metadata.namespace.clone().unwrap_or_default(),
            examined::run_name(name, exam.kind, exam.trigger_height),
        );
        self.closed.contains(&key)
    }

    /// Records an earlier process left open.
    fn resume(&mut self, facts: &Facts, world: &World) {
        let Some(parameters) = &facts.parameters else { return };
        for run in world.runs.iter().filter(|run| !is_sealed(run)) {
            let host = world
                .host(&run.spec.host_ref.uid)
                .filter(|host| host.spec.schedule_name == facts.schedule);
            let Some(host) = host else { continue };
            let mut note = Note {
                host: job::view(host),
                schedule: facts.schedule.clone(),
                exam: Examined::of_spec(&run.spec, parameters),
                unwatched: true,
                ..Note::default()
            };
            let slots = run.status.iter().flat_map(|status| &status.slots);
            note.exam.preserved = slots
                .filter(|slot| slot.preserved)
                .map(|slot| slot.node_id.clone())
                .collect();
            let key = note.key();
            if !self.closed.contains(&key) {
                self.notes.open.entry(key).or_insert(note);
            }
        }
    }

    /// Once per host and epoch: exams of this epoch and the last that have no record.
    fn scan(&mut self, facts: &Facts, world: &World) {
        let Some(queries) = self.context.book.queries(&facts.schedule) else {
            return;
        };
        if self.scanning || !self.stores.are_ready() {
            return;
        }
        let due = world.hosts.iter().find(|host| {
            let uid = host.metadata.uid.as_deref().unwrap_or_default();
            host.spec.schedule_name == facts.schedule && self.scanned.get(uid) != Some(&facts.epoch)
        });
        if let Some(host) = due {
            self.scanning = true;
            self.jobs
                .push(Box::pin(scan::scan(queries, host.clone(), Arc::new(facts.clone()))));
        }
    }

    /// Notes of hosts that were deleted, and what is known to be closed.
    fn forget(&mut self, world: &World) {
        if !self.stores.are_ready() {
            return;
        }
        let uids: BTreeSet<&str> = world
            .hosts
            .iter()
            .filter_map(|host| host.metadata.uid.as_deref())
            .collect();
        self.notes
            .open
            .retain(|_, note| note.busy || uids.contains(note.host.uid.as_str()));
        self.notes.verdicts.retain(|(uid, _), _| uids.contains(uid.as_str()));
        for run in world.runs.iter().filter(|run| is_sealed(run)) {
            let key = job::key(run);
            self.notes.open.remove(&key);
            self.closed.insert(key);
        }
    }

    fn start_jobs(&mut self, world: &World, now: i64) {
        for (key, note) in &mut self.notes.open {
            let facts = self.context.book.facts(&note.schedule);
            let Some(queries) = self.context.book.queries(&note.schedule) else {
                continue;
            };
            if note.exam.is_photo_time(facts.height) && note.watched.early.is_empty() && !note.photographing {
                note.photographing = true;
                self.jobs.push(Box::pin(job::photograph(
                    key.clone(),
                    queries.clone(),
                    note.exam.clone(),
                )));
            }
            let phase = note.exam.phase(&facts);
            // A record of the same name may be that of a host that is gone.
            let run = world
                .runs
                .iter()
                .find(|run| job::key(run) == *key && run.spec.host_ref.uid == note.host.uid);
            note.created |= run.is_some();
            if note.busy || now < note.not_before_ms || self.jobs.len() >= CONCURRENCY || !is_due(note, phase) {
                continue;
            }
            note.busy = true;
            let host = world.host(&note.host.uid).cloned();
            let models = host.as_ref().map(|host| models(world, host)).unwrap_or_default();
            let work = job::Work {
                key: key.clone(),
                note: note.clone(),
                phase,
                facts,
                run: run.cloned(),
                host,
                models,
                reference: job::reference(&world.runs, &note.host.uid, note.exam.start_height),
            };
            self.jobs.push(Box::pin(job::work(self.context.clone(), queries, work)));
        }
    }

    /// Takes a finished job's result.
    async fn absorb(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Photo { key, counts } => {
                if let Some(note) = self.notes.open.get_mut(&key) {
                    note.photographing = false;
                    if let Some(mut counts) = counts {
                        // A host without a commit has an early share too: none.
                        counts.entry(note.host.address.clone()).or_insert(0);
                        note.watched.early = counts;
                    }
                }
            }
            Outcome::Scanned { uid, epoch, missing } => {
                self.scanning = false;
                for note in missing.unwrap_or_default() {
                    let key = note.key();
                    if !self.closed.contains(&key) {
                        self.notes.open.entry(key).or_insert(note);
                    }
                }
                self.scanned.insert(uid, epoch);
            }
            Outcome::Worked { key, phase, result } => self.worked(key, phase, result).await,
        }
    }

    async fn worked(&mut self, key: Key, phase: Phase, result: Result<job::Done, job::Error>) {
        let Some(note) = self.notes.open.get_mut(&key) else {
            return;
        };
        note.busy = false;
        match result {
            Ok(done) => {
                note.failures = 0;
                note.created = true;
                note.not_before_ms = now_ms() + if done.complete { 0 } else { RETRY_MILLIS };
                if done.complete {
                    note.done = Some(phase);
                }
                if done.sealed {
                    let host = note.host.clone();
                    self.notes.open.remove(&key);
                    self.rows.add(&host.name, &key.0, &key.1);
                    self.closed.insert(key);
                    self.retain(&host).await;
                }
            }
            Err(error) => {
                note.failures += 1;
                let delay = backoff::delay(note.failures.min(6), backoff::jitter(&key.1, note.failures));
                note.not_before_ms = now_ms() + i64::try_from(delay.as_millis()).unwrap_or(RETRY_MILLIS);
                let category: &str = (&error).into();
                self.context
                    .metrics
                    .reconcile_total
                    .with_label_values(&[CONTROLLER, category])
                    .inc();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    category,
                    record = key.1,
                    failures = note.failures,
                    "a record was not written"
                );
            }
        }
    }

    /// Deletes the oldest records of a host beyond the limit, if their lines are on the volume.
    async fn retain(&mut self, host: &observed::HostView) {
        let names = match self.rows.names(&host.name).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old records are kept");
                return;
            }
        };
        let runs = &self.world.runs;
        let of_host: Vec<&SprintRun> = runs
            .iter()
            .map(AsRef::as_ref)
            .filter(|run| run.spec.host_ref.uid == host.uid)
            .collect();
        let surplus: Vec<SprintRun> = retention::surplus(&of_host, names).into_iter().cloned().collect();
        if let Err(error) = job::delete(&self.context, &surplus).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old records are kept");
        }
    }

    /// Keeps notes on disk, at most once a second and only when they changed.
    async fn save(&mut self, now: i64) {
        if now - self.saved_ms < 1000 || self.notes == self.saved {
            return;
        }
        self.saved_ms = now;
        match notes::save(&notes_folder(&self.context), &self.notes).await {
            Ok(()) => self.saved = self.notes.clone(),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "notes of open exams were not saved"
            ),
        }
    }
}

/// Notes are with the records where there is a volume, since another replica may need them; else they outlive this process.
fn notes_folder(context: &Context) -> PathBuf {
    context
        .settings
        .records_dir
        .clone()
        .unwrap_or_else(|| context.settings.cache_dir.clone())
}

/// Whether a note has work in this phase.
fn is_due(note: &Note, phase: Phase) -> bool {
    match phase {
        // The record is made as soon as its seed is known, and nothing else is written then.
        Phase::Generating => !note.created && !note.exam.seed.is_empty(),
        _ => note.done.is_none_or(|done| done < phase),
    }
}

fn is_sealed(run: &SprintRun) -> bool {
    run.status.as_ref().is_some_and(|status| status.sealed_time.is_some())
}

fn models(world: &World, host: &GonkaHost) -> BTreeSet<String> {
    world
        .of_host(host)
        .into_iter()
        .map(|deployment| deployment.spec.model.id.clone())
        .collect()
}

#[cfg(test)]
mod tests;
