//! The operator's process in virtual time: caches that lag, doors, notes and failures of one life, and what outlives it. Every
//! decision is the operator's own; here it is fed, and what it asks for is carried out in its order.

mod answers;
mod deployment;
mod doors;
mod host;
mod machines;
mod protection;
mod records;
mod small;
mod watches;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::sprint_schedule::{EndpointState, SprintScheduleSpec};
use network_simulator::virtual_time::door::Door;
use operator::backoff;
use operator::chain::decide::Memory;
use operator::context::Settings;
use operator::facts::Facts;
use operator::live::Board;
use operator::machine::settled::Settled;
use operator::model_deployment::decide::Revisions;
use operator::model_deployment::{Transition, transition};
use operator::slot_door::States;
use operator::sprint_run::desk::Desk;
use operator::sprint_run::notes::Notes;
use operator::sprint_schedule::observe::Past;
use operator::wake::{Turn, turn};
use strum::VariantArray as _;

use crate::agenda::Event;
use crate::cache::{Caches, list_of};
use crate::chain::Reader;
use crate::ground::Ground;
use crate::store::Kind;

/// A controller.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, strum::Display, strum::VariantArray)]
pub enum Controller {
    /// SprintSchedule.
    Schedule,
    /// GonkaHost.
    Host,
    /// ModelDeployment.
    Deployment,
    /// GpuNode.
    GpuNode,
    /// SprintRun.
    Records,
    /// Protection at rest, and its release.
    Machine,
    /// Marks, and what was set aside for a while.
    Protection,
}

impl Controller {
    /// Each of its passes does; the others say themselves when they do.
    fn asks_the_chain(self) -> bool {
        !matches!(self, Self::Machine | Self::Protection)
    }
}

/// Field managers, as the operator's controllers have them.
pub fn manager(controller: Controller) -> String {
    crds::labels::field_manager(match controller {
        Controller::Schedule => "sprint-schedule",
        Controller::Host => "gonka-host",
        Controller::Deployment => "model-deployment",
        Controller::GpuNode => "gpu-node",
        Controller::Records => "sprint-run",
        Controller::Machine => "machine",
        Controller::Protection => "protection",
    })
}

/// What outlives a process: its volumes.
#[derive(Debug, Default)]
struct Kept {
    chain: Option<Memory>,
    notes: Notes,
    saved_ms: i64,
    rows: BTreeSet<String>,
    spec: Option<SprintScheduleSpec>,
}

/// The process.
#[derive(Debug)]
pub struct Operator {
    /// It runs.
    pub alive: bool,
    /// Counts lives; events of earlier ones are nobody's.
    pub life: u32,
    /// When its controllers began, Unix milliseconds.
    pub started_ms: i64,
    /// Writes after which it ends, and how long it is away then.
    pub dies: Option<(u32, i64)>,
    /// It reads and writes.
    leads: bool,
    settings: Settings,
    kept: Kept,
    caches: Caches,
    told_ms: BTreeMap<Kind, i64>,
    broken: BTreeSet<Kind>,
    reader: Option<Reader>,
    board: Board,
    doors: States,
    dialling: BTreeMap<String, String>,
    desk: Desk,
    past: Past,
    due: BTreeMap<Controller, i64>,
    failures: BTreeMap<Controller, u32>,
    turn: Option<Turn>,
    transition: Option<Transition>,
    endpoints: Vec<EndpointState>,
    jobs: usize,
    read_ms: i64,
    revisions: Revisions,
    report: Option<(i64, operator::dapi::SetupReport)>,
    checks: machines::HealthChecks,
    settled: Settled,
}

/// Why a pass came to nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// It is tried again.
    Again,
    /// The process ended in it.
    Died,
}

/// Notes as they come back from a volume: marks of the process that wrote them are gone.
fn on_disk(notes: &Notes) -> Notes {
    let mut notes = notes.clone();
    for note in notes.open.values_mut() {
        note.created = false;
        note.busy = false;
        note.photographing = false;
        note.failures = 0;
        note.not_before_ms = 0;
    }
    notes
}

impl Operator {
    /// A program that has not begun.
    pub fn new(settings: Settings) -> Self {
        Self {
            alive: false,
            life: 0,
            started_ms: 0,
            dies: None,
            leads: false,
            settings,
            kept: Kept::default(),
            caches: Caches::default(),
            told_ms: BTreeMap::new(),
            broken: BTreeSet::new(),
            reader: None,
            board: Board::default(),
            doors: States::default(),
            dialling: BTreeMap::new(),
            desk: Desk::default(),
            past: Past::default(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
            turn: None,
            transition: None,
            endpoints: Vec::new(),
            jobs: 0,
            read_ms: 0,
            revisions: Revisions::default(),
            report: None,
            checks: machines::HealthChecks::default(),
            settled: Settled::default(),
        }
    }

    /// Its flags.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// It has the lease.
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// What is believed of the chain.
    pub fn facts(&self) -> Option<&Arc<Facts>> {
        self.reader.as_ref().map(Reader::facts)
    }

    /// The program begins. Without the API server it reads the chain and waits.
    pub fn start(&mut self, ground: &mut Ground, door: &mut Door<'_>) {
        let now_ms = Ground::now(door);
        if !self.alive {
            let settings = self.settings.clone();
            let kept = std::mem::take(&mut self.kept);
            *self = Self {
                alive: true,
                life: self.life + 1,
                started_ms: now_ms,
                desk: Desk::new(on_disk(&kept.notes)),
                ..Self::new(settings)
            };
            if let Some(spec) = &kept.spec {
                self.reader = Some(Reader::new(crate::SCHEDULE, spec.clone(), kept.chain.as_ref()));
            }
            self.kept = kept;
            ground.note(door, &format!("operator begins life {}", self.life));
            self.read(ground, door);
        }
        if !ground.api_answers() {
            ground.agenda.after(door, 1_000, Event::OperatorStarts);
            return;
        }
        if self.leads {
            return;
        }
        self.leads = true;
        // Controllers begin with the lease, and wait for first words from then on.
        self.started_ms = Ground::now(door);
        ground.checks.unheard.clear();
        let at = ground.list_version();
        for kind in Kind::watched() {
            self.caches.replace(kind, &list_of(&ground.store, kind, at));
        }
        if at.is_some() {
            // A watch goes on where its list ended, and hears of all that came since.
            for kind in Kind::watched() {
                let life = self.life;
                ground.agenda.after(door, 3_000, Event::Relist { life, kind });
            }
        }
        self.take_spec();
        self.read(ground, door);
        for controller in Controller::VARIANTS {
            self.wake(ground, door, *controller, 10);
        }
    }

    /// The program ends, wherever it is.
    pub fn die(&mut self, ground: &mut Ground, door: &mut Door<'_>, away_ms: i64) {
        if !self.alive {
            return;
        }
        ground.note(door, "operator ends");
        self.alive = false;
        self.leads = false;
        self.dies = None;
        ground.agenda.after(door, away_ms.max(1), Event::OperatorStarts);
    }

    /// A spec of the schedule is read on while the API server is away.
    fn take_spec(&mut self) {
        let spec = self
            .caches
            .schedules
            .values()
            .next()
            .map(|schedule| schedule.spec.clone());
        if let Some(spec) = spec.filter(|spec| self.kept.spec.as_ref() != Some(spec)) {
            self.reader = Some(Reader::new(crate::SCHEDULE, spec.clone(), self.kept.chain.as_ref()));
            self.kept.spec = Some(spec);
        }
    }

    /// A controller should pass within so many milliseconds.
    pub fn wake(&mut self, ground: &mut Ground, door: &mut Door<'_>, controller: Controller, ms: i64) {
        let at = Ground::now(door) + ms.max(1);
        if !self.leads || self.due.get(&controller).is_some_and(|due| *due <= at) {
            return;
        }
        self.due.insert(controller, at);
        let life = self.life;
        ground.agenda.after(door, ms.max(1), Event::Pass { life, controller });
    }

    /// A controller's time has come.
    pub fn pass(&mut self, ground: &mut Ground, door: &mut Door<'_>, controller: Controller) {
        let now_ms = Ground::now(door);
        if !self.leads || self.due.get(&controller) != Some(&now_ms) {
            return;
        }
        self.due.remove(&controller);
        *ground.checks.passes.entry(controller).or_default() += 1;
        if controller.asks_the_chain() {
            self.read_before(ground, door, now_ms);
        }
        let again = match controller {
            Controller::Schedule => self.pass_schedule(ground, door),
            Controller::Host => self.pass_host(ground, door),
            Controller::Deployment => self.pass_deployment(ground, door),
            Controller::GpuNode => self.pass_gpu_nodes(ground, door),
            Controller::Records => Ok(self.pass_records(ground, door)),
            Controller::Machine => self.pass_machines(ground, door),
            Controller::Protection => self.pass_protection(ground, door),
        };
        match again {
            Ok(ms) => {
                self.failures.remove(&controller);
                self.wake(ground, door, controller, ms);
            }
            Err(Failure::Again) => {
                let failures = self.failures.entry(controller).or_default();
                *failures += 1;
                let failures = *failures;
                let delay = backoff::delay(failures, backoff::jitter(crate::DEPLOYMENT, failures));
                let longest = operator::model_deployment::pass::LONGEST_WAIT;
                let delay = if controller == Controller::Deployment {
                    delay.min(longest)
                } else {
                    delay
                };
                ground.note(door, &format!("{controller} failed {failures} times"));
                self.wake(ground, door, controller, delay.as_millis() as i64);
            }
            Err(Failure::Died) => {}
        }
    }

    /// It works as it is meant to: it leads, and none of its controllers waits after a failure.
    pub fn is_well(&self) -> bool {
        self.alive && self.leads && self.failures.is_empty()
    }

    /// Where the chain is not read at every block it is read before somebody decides by it.
    fn read_before(&mut self, ground: &mut Ground, door: &mut Door<'_>, now_ms: i64) {
        if !ground.plan.every_block && now_ms - self.read_ms > ground.block_ms {
            self.read(ground, door);
        }
    }

    /// The chain is read, and whoever waits for a turn of it is woken.
    pub fn read(&mut self, ground: &mut Ground, door: &mut Door<'_>) {
        if !self.alive {
            return;
        }
        let now_ms = Ground::now(door);
        self.read_ms = now_ms;
        let Some(reader) = &mut self.reader else { return };
        let changed = reader.read(door, now_ms);
        self.kept.chain = Some(reader.memory().clone());
        let facts = reader.facts().clone();
        self.follow_chain(ground, door, &facts, changed);
        if changed {
            ground.signal(door, &facts);
        }
    }

    /// Facts age while no block comes.
    pub fn judge_chain(&mut self, ground: &mut Ground, door: &mut Door<'_>) {
        let Some(reader) = self.reader.as_mut().filter(|_| self.alive) else {
            return;
        };
        reader.decide(Ground::now(door));
        let facts = reader.facts().clone();
        self.follow_chain(ground, door, &facts, true);
    }

    fn follow_chain(&mut self, ground: &mut Ground, door: &mut Door<'_>, facts: &Facts, changed: bool) {
        if !self.leads || !changed {
            return;
        }
        let turned = turn(facts);
        if self.turn.as_ref() != Some(&turned) {
            self.turn = Some(turned);
            self.wake(ground, door, Controller::Host, 300);
        }
        let moved = transition(facts);
        if self.transition.as_ref() != Some(&moved) {
            ground.note(door, &format!("height {} window {}", facts.height, facts.window));
            self.transition = Some(moved);
            self.wake(ground, door, Controller::Deployment, 50);
            self.wake(ground, door, Controller::Schedule, 100);
        }
        let states: Vec<EndpointState> = facts.endpoints.iter().map(|endpoint| endpoint.state).collect();
        if self.endpoints != states {
            self.endpoints = states;
            self.wake(ground, door, Controller::Schedule, 100);
        }
        self.wake(ground, door, Controller::Records, 150);
    }
}
