//! The driver in virtual time: the state machine of [`crate::step`] between a queue of moments and an [`Outside`] that
//! plays our host's ML nodes. No sockets, no threads, no clock: a run is a function of its scenario, to the byte.
//!
//! | module | what |
//! |---|---|
//! | [`queue`] | what happens when; of two things at one moment the one that was thought of first |
//! | [`door`] | what the outside may do to the network: answer, call back, register nodes, wake itself |
//! | [`counting`] | the outside unless somebody brings another: ML nodes that count |
//! | [`record`], [`history`], [`facts`], [`summary`] | a whole run and what it leaves behind |
//! | [`compare`] | whether two histories are the same |

pub mod answers;
pub mod compare;
pub mod counting;
pub mod door;
pub mod facts;
pub mod history;
pub mod queue;
pub mod record;
pub mod summary;

use crate::{
    blocks::Block,
    event::{Answer, Call, Command, Effect, Event, Work},
    exam::book::Proof,
    identity, ledger,
    network::Network,
    scenario::Scenario,
    step::step,
    truth::Unit,
    views::control,
};
use door::Door;
use queue::{Item, Queue};
use std::sync::Arc;

/// When runs begin unless they say otherwise: 2026-01-01T00:00:00Z.
pub const BEGINNING_MS: u64 = 1_767_225_600_000;
/// From the request for a sample's verdict to the verdict.
const JUDGE_MS: u64 = 1;
/// Blocks that are remembered unless somebody wants more: queries look at the newest, exams at the one before.
pub const KEPT_BLOCKS: usize = 1000;
/// FNV-1a, over numbers in place of bytes.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
/// Epochs that are remembered when the finished ones are taken: rewards are claimed in the epoch after.
const KEPT_EPOCHS: u64 = 4;

/// A call that is to be answered later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How an ML node answers a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// After so many milliseconds; later than the call's time-out is never.
    After(u64, Result<Answer, String>),
    /// By [`Door::answer`] with the ticket of the call.
    Later,
    /// Not at all: the caller waits for its time-out.
    Never,
}

/// Whoever plays our host's machines, and everybody else outside who wants to look or act.
pub trait Outside {
    /// The DAPI calls one of our ML nodes.
    fn call(&mut self, door: &mut Door<'_>, ticket: Ticket, call: &Call) -> Response;

    /// The moment has come that was asked for with [`Door::wake_after`].
    fn wake(&mut self, door: &mut Door<'_>, token: u64);

    /// There is a new block, and what it set off within the network has happened.
    fn block(&mut self, _door: &mut Door<'_>) {}

    /// All that is physically there for the exam of this stage, usable or not: the ground truth of [`crate::truth`].
    fn units(&mut self, net: &Network, stage_height: i64) -> Vec<Unit>;

    /// A number that is another one as soon as [`Outside::units`] would say something else. Asked after everything that
    /// happens in generation, so it must be cheap; without it only what is there as generation begins is seen.
    fn units_mark(&self, _net: &Network) -> u64 {
        0
    }

    /// A verb is aimed at a node, or (`undo`) what it did ends. A refusal says why in one line.
    fn node(&mut self, _door: &mut Door<'_>, command: &Command, _undo: bool) -> Result<(), String> {
        let Command { verb, arguments } = command;
        Err(format!("{verb} does not work on {}", arguments.target))
    }
}

/// A network in virtual time.
#[derive(Debug)]
pub struct Driver {
    net: Network,
    queue: Queue,
    waiting: door::Waiting,
    blocks_due: u64,
    over: bool,
    saves: u64,
    trace: u64,
    /// In generation: the mark of our units, and whether DAPI takes callbacks, when they were looked at last.
    watched: Option<(u64, bool)>,
}

impl Driver {
    /// A network before its first block, which appears a block time later.
    pub fn new(scenario: Arc<Scenario>, started_ms: u64) -> Self {
        let mut net = Network::new(scenario, started_ms);
        net.proof = Proof::Counted;
        net.blocks.keep(KEPT_BLOCKS);
        let mut driver = Self {
            net,
            queue: Queue::default(),
            waiting: door::Waiting::default(),
            blocks_due: 0,
            over: false,
            saves: 0,
            trace: FNV_OFFSET,
            watched: None,
        };
        driver.next_block();
        driver
    }

    pub fn net(&self) -> &Network {
        &self.net
    }

    /// Unix milliseconds of what happened last.
    pub fn now_ms(&self) -> u64 {
        self.net.now_ms
    }

    /// When the next thing happens.
    pub fn next_ms(&self) -> Option<u64> {
        self.queue.next_ms()
    }

    pub fn newest_block(&self) -> Option<&Block> {
        self.net.block(self.net.height())
    }

    /// Whether the scenario is over. Blocks go on for who goes on stepping.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// How often the network found its ledger worth writing: exams that ended, claims, the end.
    pub fn saves(&self) -> u64 {
        self.saves
    }

    /// A number that follows from everything that happened so far and its order.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// For requests from outside between steps.
    pub fn door(&mut self) -> Door<'_> {
        Door::new(&mut self.net, &mut self.queue, &mut self.waiting)
    }

    /// Keeps so many of the newest blocks in place of [`KEPT_BLOCKS`].
    pub fn keep_blocks(&mut self, most: usize) {
        self.net.blocks.keep(most);
    }

    /// Exams that ended since this was asked last. They are kept until somebody takes them.
    pub fn take_exams(&mut self) -> Vec<ledger::Exam> {
        std::mem::take(&mut self.net.record.exams)
    }

    /// Settled epochs in which nothing will change any more. The network has forgotten them then.
    pub fn take_epochs(&mut self) -> Vec<ledger::Epoch> {
        self.take_epochs_before(self.net.latest_epoch().saturating_sub(KEPT_EPOCHS))
    }

    /// All that are left, when the run is over.
    pub fn take_all_epochs(&mut self) -> Vec<ledger::Epoch> {
        self.take_epochs_before(u64::MAX)
    }

    fn take_epochs_before(&mut self, first_kept: u64) -> Vec<ledger::Epoch> {
        let kept = self.net.epochs.split_off(&first_kept);
        let old = std::mem::replace(&mut self.net.epochs, kept);
        self.net.dapi.seeds = self.net.dapi.seeds.split_off(&first_kept);
        let settled = old
            .iter()
            .filter_map(|(index, epoch)| control::ledger_epoch(&self.net, *index, epoch));
        settled.collect()
    }

    /// Everything up to and including a moment; then it is that moment.
    pub fn step_until(&mut self, at_ms: u64, outside: &mut dyn Outside) {
        while self.queue.next_ms().is_some_and(|next| next <= at_ms) {
            self.step(outside);
        }
        self.net.now_ms = self.net.now_ms.max(at_ms);
    }

    /// Until the scenario is over: true. False when it took twice the time it should: the chain waits for a start that
    /// nobody will say.
    pub fn run(&mut self, outside: &mut dyn Outside) -> bool {
        while !self.over && self.next_ms().is_some_and(|next| next <= self.latest_end_ms()) {
            self.step(outside);
        }
        self.over
    }

    /// When a scenario that is not over will never be: its last epoch twice over.
    pub fn latest_end_ms(&self) -> u64 {
        let network = &self.net.scenario.network;
        let blocks = self.net.lengths().poc_start(network.epochs.saturating_add(2)).max(1) as u64 * 2;
        self.net
            .started_ms
            .saturating_add(blocks.saturating_mul(network.block_millis))
    }

    /// The next thing that happens; false when nothing ever will.
    pub fn step(&mut self, outside: &mut dyn Outside) -> bool {
        let Some((at_ms, item)) = self.queue.pop() else {
            return false;
        };
        self.net.now_ms = self.net.now_ms.max(at_ms);
        for part in [at_ms, item.number()] {
            self.trace = (self.trace ^ part).wrapping_mul(FNV_PRIME);
        }
        match item {
            Item::Block => {
                let before = self.net.height();
                self.tell(Event::Block, outside);
                self.next_block();
                if self.net.height() > before {
                    self.with_door(outside, |outside, door| outside.block(door));
                }
            }
            Item::Event(event) => {
                let before = self.net.height();
                self.tell(event, outside);
                if self.net.height() > before {
                    self.with_door(outside, |outside, door| outside.block(door));
                }
            }
            Item::Effects(effects) => self.carry_out(effects, outside),
            Item::Wake(token) => self.with_door(outside, |outside, door| outside.wake(door, token)),
            Item::TimedOut(ticket) => {
                if let Some(to) = self.waiting.take(ticket) {
                    let result = Err("timed out".to_owned());
                    self.tell(Event::Reply { to, result }, outside);
                }
            }
        }
        self.watch(outside);
        true
    }

    /// Looks at our units in generation whenever they, or DAPI's ear for them, are not as they were.
    fn watch(&mut self, outside: &mut dyn Outside) {
        let height = self.net.height();
        let exam = self.net.exam.as_ref();
        let Some(exam) = exam.filter(|exam| exam.window.generates(height)) else {
            self.watched = None;
            return;
        };
        let seen = Some((outside.units_mark(&self.net), self.net.takes_callbacks()));
        if self.watched != seen {
            self.watched = seen;
            let stage_height = exam.window.stage_height;
            let units = outside.units(&self.net, stage_height);
            self.tell(Event::Looked { units }, outside);
        }
    }

    fn tell(&mut self, event: Event, outside: &mut dyn Outside) {
        let now_ms = self.net.now_ms;
        let effects = step(&mut self.net, now_ms, event);
        self.carry_out(effects, outside);
    }

    /// Something of the outside's, and what follows from it at once.
    fn with_door(&mut self, outside: &mut dyn Outside, act: impl FnOnce(&mut dyn Outside, &mut Door<'_>)) {
        act(
            outside,
            &mut Door::new(&mut self.net, &mut self.queue, &mut self.waiting),
        );
    }

    fn carry_out(&mut self, effects: Vec<Effect>, outside: &mut dyn Outside) {
        for effect in effects {
            match effect {
                Effect::After { ms, timer } => self.queue.push(self.net.now_ms + ms, Item::Event(Event::Timer(timer))),
                Effect::Call(call) => self.call(&call, outside),
                Effect::Compute(work) => self.compute(work),
                Effect::Survey { stage_height } => {
                    let units = outside.units(&self.net, stage_height);
                    self.tell(Event::Surveyed { stage_height, units }, outside);
                }
                Effect::Node(command) => self.node(&command, false, outside),
                Effect::NodeUndo(command) => self.node(&command, true, outside),
                Effect::Save => self.saves += 1,
                Effect::Finish => self.over = true,
                // Whether a port is open is in the network's faults, where doors look.
                Effect::Listen { .. } => {}
            }
        }
    }

    fn node(&mut self, command: &Command, undo: bool, outside: &mut dyn Outside) {
        self.with_door(outside, |outside, door| {
            if let Err(refused) = outside.node(door, command, undo) {
                tracing::warn!(verb = %command.verb, target = command.arguments.target, refused, "step had no effect");
            }
        });
    }

    fn call(&mut self, call: &Call, outside: &mut dyn Outside) {
        let ticket = self.waiting.next();
        let (now_ms, limit) = (self.net.now_ms, call.timeout_ms);
        let mut door = Door::new(&mut self.net, &mut self.queue, &mut self.waiting);
        let response = outside.call(&mut door, ticket, call);
        let to = call.origin.clone();
        match response {
            Response::After(ms, result) if ms <= limit => {
                self.queue.push(now_ms + ms, Item::Event(Event::Reply { to, result }));
            }
            Response::After(..) | Response::Never | Response::Later => {
                self.waiting.hold(ticket, to);
                self.queue.push(now_ms + limit, Item::TimedOut(ticket));
            }
        }
    }

    /// There is nothing to compute: artifacts are counted where the network keeps its books.
    fn compute(&mut self, work: Work) {
        if let Work::Count {
            exam,
            host,
            model,
            total,
            fraud,
        } = work
        {
            let judged = Event::Judged {
                exam,
                host,
                model,
                total,
                fraud,
            };
            self.queue.push(self.net.now_ms + JUDGE_MS, Item::Event(judged));
        }
    }

    /// As in real time: a block time after the one before, give or take the jitter, and never in a burst.
    fn next_block(&mut self) {
        let network = &self.net.scenario.network;
        let (block, jitter) = (network.block_millis, network.jitter_millis);
        let off = identity::number_below(2 * jitter + 1, &["jitter", &self.blocks_due.to_string()]);
        self.blocks_due += 1;
        let due = self.net.started_ms + self.blocks_due * block + off - jitter;
        self.queue.push(due.max(self.net.now_ms), Item::Block);
    }
}

#[cfg(test)]
mod tests;
