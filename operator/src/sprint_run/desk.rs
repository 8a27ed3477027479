//! Box 3 around many records: which exams are open, what is due for each now, and what came of it. Values in, values out; the
//! requests and writes in between are [`super::job`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{GonkaHost, SprintRun};

use super::examined::{self, Examined, Phase};
use super::gates;
use super::job::{self, Outcome, Work};
use super::notes::{Key, Note, Notes};
use super::observed::HostView;
use super::stores::World;
use super::watch::{self, Seen};
use crate::backoff;
use crate::facts::Facts;
use crate::live::Board;

/// Between attempts to read what is not there yet, for example a settlement.
const RETRY_MILLIS: i64 = 5000;

/// What one look sees.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The clock, Unix milliseconds.
    pub now_ms: i64,
    /// What the chain says, by schedule that is read.
    pub facts: &'a BTreeMap<String, Arc<Facts>>,
    /// The caches.
    pub world: &'a World,
    /// The caches were filled once: an absence means something.
    pub whole: bool,
    /// What slots report.
    pub board: &'a Board,
    /// This installation.
    pub install_id: &'a str,
    /// Jobs that may still be started.
    pub room: usize,
}

/// Something to be done outside.
#[derive(Debug)]
pub enum Task {
    /// Read the commits as they stand.
    Photograph {
        /// Of which record.
        key: Key,
        /// Its schedule.
        schedule: String,
        /// Its exam.
        exam: Examined,
    },
    /// Ask the chain which exams there were.
    Scan {
        /// Of this host.
        host: Arc<GonkaHost>,
        /// What the chain says.
        facts: Arc<Facts>,
    },
    /// Work on a record.
    Work(Box<Work>),
}

impl Task {
    /// Whose chain is asked.
    pub fn schedule(&self) -> &str {
        match self {
            Self::Photograph { schedule, .. } => schedule,
            Self::Scan { facts, .. } => &facts.schedule,
            Self::Work(work) => &work.facts.schedule,
        }
    }
}

/// Everything that is open.
#[derive(Debug, Default)]
pub struct Desk {
    /// What was seen; the part that outlives a process.
    pub notes: Notes,
    clocks: BTreeMap<String, gates::Clock>,
    closed: BTreeSet<Key>,
    /// Closed records as the caches had them at the last look.
    sealed: Option<Arc<Vec<Key>>>,
    scanned: BTreeMap<String, i64>,
    scanning: bool,
}

impl Desk {
    /// Goes on with what an earlier process saw.
    pub fn new(notes: Notes) -> Self {
        Self {
            notes,
            ..Self::default()
        }
    }

    /// One look: sees, then says what is due.
    pub fn look(&mut self, sight: &Sight<'_>) -> Vec<Task> {
        let mut tasks = Vec::new();
        for facts in sight.facts.values() {
            if facts.height == 0 || facts.is_stale(sight.now_ms) {
                continue;
            }
            self.see(facts, sight);
            self.resume(facts, sight.world);
            tasks.extend(self.scan(facts, sight));
        }
        self.forget(sight);
        let room = sight.room.saturating_sub(tasks.len());
        self.due(sight, room, &mut tasks);
        tasks
    }

    fn see(&mut self, facts: &Facts, sight: &Sight<'_>) {
        let world = sight.world;
        let margins = world.margins(&facts.schedule);
        let seen: Vec<Seen<'_>> = world
            .hosts
            .iter()
            .filter(|host| host.spec.schedule_name == facts.schedule)
            .map(|host| Seen {
                host,
                deployments: world.of_host(host),
                margins: &margins,
                install_id: sight.install_id,
                held_back: &world.held_back,
            })
            .collect();
        let clock = self.clocks.entry(facts.schedule.clone()).or_default();
        watch::take_verdicts(&mut self.notes, clock, &seen, facts, sight.now_ms);
        for host in &seen {
            if !self.is_closed(host.host, facts) {
                watch::follow(&mut self.notes, host, facts, sight.board, sight.now_ms);
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
            if host.is_some_and(|host| watch::catch_up(note, host, sight.board, facts)) {
                note.done = None;
            }
            watch::watch_slots(note, sight.board, facts);
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
        for run in &world.open {
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
    fn scan(&mut self, facts: &Arc<Facts>, sight: &Sight<'_>) -> Option<Task> {
        if self.scanning || !sight.whole {
            return None;
        }
        let host = sight.world.hosts.iter().find(|host| {
            let uid = host.metadata.uid.as_deref().unwrap_or_default();
            host.spec.schedule_name == facts.schedule && self.scanned.get(uid) != Some(&facts.epoch)
        })?;
        self.scanning = true;
        Some(Task::Scan {
            host: host.clone(),
            facts: facts.clone(),
        })
    }

    /// Notes of hosts that were deleted, and what is known to be closed.
    fn forget(&mut self, sight: &Sight<'_>) {
        if !sight.whole {
            return;
        }
        let uids: BTreeSet<&str> = sight
            .world
            .hosts
            .iter()
            .filter_map(|host| host.metadata.uid.as_deref())
            .collect();
        self.notes
            .open
            .retain(|_, note| note.busy || uids.contains(note.host.uid.as_str()));
        self.notes.verdicts.retain(|(uid, _), _| uids.contains(uid.as_str()));
        // A look at caches in which nothing happened since closes nothing more.
        let sealed = &sight.world.sealed;
        if self.sealed.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, sealed)) {
            return;
        }
        self.sealed = Some(sealed.clone());
        for key in sealed
            .iter()
            .filter(|key| !self.closed.contains(*key))
            .cloned()
            .collect::<Vec<Key>>()
        {
            self.notes.open.remove(&key);
            self.closed.insert(key);
        }
    }

    fn due(&mut self, sight: &Sight<'_>, mut room: usize, tasks: &mut Vec<Task>) {
        let world = sight.world;
        for (key, note) in &mut self.notes.open {
            let Some(facts) = sight.facts.get(&note.schedule) else {
                continue;
            };
            if note.exam.is_photo_time(facts.height) && note.watched.early.is_empty() && !note.photographing {
                note.photographing = true;
                room = room.saturating_sub(1);
                tasks.push(Task::Photograph {
                    key: key.clone(),
                    schedule: note.schedule.clone(),
                    exam: note.exam.clone(),
                });
            }
            let phase = note.exam.phase(facts);
            let waits = note.busy || sight.now_ms < note.not_before_ms || room == 0;
            if note.created && (waits || !is_due(note, phase)) {
                continue;
            }
            // A record of the same name may be that of a host that is gone.
            let run = world
                .runs
                .iter()
                .find(|run| is_named(run, key) && run.spec.host_ref.uid == note.host.uid);
            note.created |= run.is_some();
            if waits || !is_due(note, phase) {
                continue;
            }
            note.busy = true;
            room -= 1;
            let host = world.host(&note.host.uid).cloned();
            tasks.push(Task::Work(Box::new(Work {
                key: key.clone(),
                note: note.clone(),
                phase,
                facts: facts.clone(),
                run: run.cloned(),
                models: host.as_ref().map(|host| models(world, host)).unwrap_or_default(),
                host,
                reference: job::reference(&world.runs, &note.host.uid, note.exam.start_height),
            })));
        }
    }

    /// Takes a finished job's result. A record that was closed is told, with its host.
    pub fn absorb(&mut self, outcome: Outcome, now_ms: i64) -> Option<(HostView, Key)> {
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
                None
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
                None
            }
            Outcome::Worked { key, phase, result } => self.worked(key, phase, &result, now_ms),
        }
    }

    /// Records whose newest write failed.
    pub fn failing(&self) -> usize {
        self.notes.open.values().filter(|note| note.failures > 0).count()
    }

    fn worked(
        &mut self,
        key: Key,
        phase: Phase,
        result: &Result<job::Done, job::Error>,
        now_ms: i64,
    ) -> Option<(HostView, Key)> {
        let note = self.notes.open.get_mut(&key)?;
        note.busy = false;
        let Ok(done) = result else {
            note.failures += 1;
            let delay = backoff::delay(note.failures.min(6), backoff::jitter(&key.1, note.failures));
            note.not_before_ms = now_ms + i64::try_from(delay.as_millis()).unwrap_or(RETRY_MILLIS);
            return None;
        };
        note.failures = 0;
        note.created = true;
        note.not_before_ms = now_ms + if done.complete { 0 } else { RETRY_MILLIS };
        if done.complete {
            note.done = Some(phase);
        }
        if !done.sealed {
            return None;
        }
        let host = note.host.clone();
        self.notes.open.remove(&key);
        self.closed.insert(key.clone());
        Some((host, key))
    }

    /// When the next note that waits may be worked on again; absent when none waits.
    pub fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let waiting = self.notes.open.values().map(|note| note.not_before_ms);
        waiting.filter(|at| *at > now_ms).min()
    }
}

fn is_named(run: &SprintRun, (namespace, name): &Key) -> bool {
    let metadata = &run.metadata;
    metadata.name.as_ref() == Some(name) && metadata.namespace.as_ref() == Some(namespace)
}

/// Whether a note has work in this phase.
fn is_due(note: &Note, phase: Phase) -> bool {
    match phase {
        // The record is made as soon as its seed is known, and nothing else is written then.
        Phase::Generating => !note.created && !note.exam.seed.is_empty(),
        _ => note.done.is_none_or(|done| done < phase),
    }
}

fn models(world: &World, host: &GonkaHost) -> BTreeSet<String> {
    world
        .of_host(host)
        .into_iter()
        .map(|deployment| deployment.spec.model.id.clone())
        .collect()
}
