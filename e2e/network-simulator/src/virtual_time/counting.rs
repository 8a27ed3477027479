//! The outside of a run in virtual time unless somebody brings another: our host's ML nodes, as the scenario describes
//! them. They load, serve, generate at their rate, deliver every few seconds and recompute samples; they can fail, go
//! silent and slow down. What a node does follows from what it is, [`slot`], and from the moment.

pub mod slot;

use super::{Driver, Outside, Response, Ticket, answers::Answers, door::Door};
use crate::{
    dapi::{
        callbacks::Validated,
        nodes::{Hardware, ModelArgs, NodeSpec},
    },
    event::{Answer, Call, Check, Command, Request, Start},
    network::{Network, node_ids},
    scenario::{DriverKind, HostSection, Scenario, verb::Verb},
    truth::Unit,
};
use serde_json::Value;
use slot::{Run, Slot};
use std::{collections::BTreeMap, sync::Arc};

/// Block time that ML nodes' own timings are made for.
const REAL_BLOCK_MS: u64 = 5310;
/// A node delivers so often.
const REAL_CALLBACK_MS: u64 = 5000;
/// A model is loaded in so long, in real time: what is measured upstream is 5 to 22 minutes.
const REAL_LOAD_MS: u64 = 600_000;
/// From a request to its answer.
const ANSWER_MS: u64 = 2;
const MANAGEMENT_PORT: u16 = 8080;
const INFERENCE_PORT: u16 = 5000;

/// What a wake-up is for.
#[derive(Debug, Clone)]
enum Errand {
    Deliver { slot: usize, run: u64 },
    Verdict { slot: usize, check: Check },
}

/// Our nodes.
#[derive(Debug)]
pub struct CountingNodes {
    slots: Vec<Slot>,
    /// By host name, as DAPI calls them.
    places: BTreeMap<String, usize>,
    errands: BTreeMap<u64, Errand>,
    given: u64,
    runs: u64,
    callback_ms: u64,
    load_ms: u64,
    answers: Answers,
    seed: String,
}

impl CountingNodes {
    /// The nodes of the scenario's external host, loaded and ready.
    pub fn new(scenario: &Scenario) -> Self {
        let scaled = |real_ms: u64| (real_ms * scenario.network.block_millis / REAL_BLOCK_MS).max(10);
        let ours = scenario.hosts.iter().find(|host| host.driver == DriverKind::External);
        let slots: Vec<Slot> = ours.map(|host| slots(scenario, host)).unwrap_or_default();
        let places = slots.iter().enumerate().map(|(place, slot)| (slot.id.clone(), place));
        Self {
            places: places.collect(),
            slots,
            errands: BTreeMap::new(),
            given: 0,
            runs: 0,
            callback_ms: scaled(REAL_CALLBACK_MS),
            load_ms: ours
                .and_then(|host| host.load_millis)
                .unwrap_or_else(|| scaled(REAL_LOAD_MS)),
            answers: Answers::new(scenario),
            seed: scenario.network.seed.to_string(),
        }
    }

    /// A driver whose DAPI has these nodes registered, as somebody would have done by its admin port.
    pub fn registered(scenario: &Arc<Scenario>, started_ms: u64) -> (Driver, Self) {
        let mut driver = Driver::new(Arc::clone(scenario), started_ms);
        let nodes = Self::new(scenario);
        for slot in &nodes.slots {
            let reply = driver.door().put_node(spec(slot));
            debug_assert!(reply.is_ok_and(|reply| reply.status == 200), "{}", slot.id);
        }
        (driver, nodes)
    }

    fn errand(&mut self, door: &mut Door<'_>, ms: u64, errand: Errand) {
        self.given += 1;
        self.errands.insert(self.given, errand);
        door.wake_after(ms, self.given);
    }

    fn start(&mut self, door: &mut Door<'_>, place: usize, start: &Start) -> bool {
        let now_ms = door.now_ms();
        let slot = &mut self.slots[place];
        if !slot.is_serving(&start.model, now_ms) {
            return false;
        }
        self.runs += 1;
        slot.run = Some(Run {
            id: self.runs,
            start: start.clone(),
            started_ms: now_ms,
            rate_milli: slot.rate(&self.seed, start.stage_height),
            delivered: 0,
        });
        let run = self.runs;
        self.errand(door, self.callback_ms, Errand::Deliver { slot: place, run });
        true
    }

    /// A callback: what was generated and not yet taken.
    fn deliver(&mut self, door: &mut Door<'_>, place: usize, run: u64) {
        let now_ms = door.now_ms();
        let slot = &mut self.slots[place];
        let is_well = slot.is_well() && !door.draw_percent(slot.lost_percent());
        let Some(running) = slot.run.as_mut().filter(|running| running.id == run) else {
            return;
        };
        if is_well {
            let batch = running.batch(now_ms);
            let stage = running.start.stage_height;
            let taken = door.generated(&running.start.model, stage, &batch);
            // Refused: the node is unknown, or it is another exam. What is left is lost, as it is on a real node.
            if let Ok(200 | 400..500) = taken.map(|reply| reply.status) {
                running.delivered = batch.places.end;
            }
        }
        self.errand(door, self.callback_ms, Errand::Deliver { slot: place, run });
    }

    fn verdict(&mut self, door: &mut Door<'_>, place: usize, check: &Check) {
        let slot = &self.slots[place];
        if !slot.is_well() || door.draw_percent(slot.lost_percent()) {
            return;
        }
        let verdict = Validated::from(check);
        // DAPI sends a sample again when its verdict does not come.
        let _ = door.validated(&check.model, &verdict);
    }

    fn answer(&mut self, door: &mut Door<'_>, place: usize, request: &Request) -> Answer {
        let now_ms = door.now_ms();
        let slot = &mut self.slots[place];
        let yes = |good: bool| if good { 200 } else { 503 };
        let body = |good: bool, value: &Arc<Value>, other: &Arc<Value>| Arc::clone(if good { value } else { other });
        match request {
            Request::State => {
                let serves = slot.has_model(now_ms);
                Answer::value(200, body(serves, &self.answers.serving, &self.answers.stopped))
            }
            Request::PowStatus => {
                let runs = slot.run.is_some();
                Answer::value(200, body(runs, &self.answers.generating, &self.answers.idle))
            }
            Request::Health => {
                let serves = slot.has_model(now_ms);
                Answer::value(yes(serves), body(serves, &self.answers.fine, &self.answers.no))
            }
            Request::Models => {
                let list = slot.model(now_ms).and_then(|model| self.answers.models.get(model));
                Answer::value(yes(list.is_some()), Arc::clone(list.unwrap_or(&self.answers.no)))
            }
            Request::Init(start) => {
                let started = self.start(door, place, start);
                Answer::value(yes(started), body(started, &self.answers.fine, &self.answers.no))
            }
            Request::PowStop => {
                slot.run = None;
                Answer::value(200, Arc::clone(&self.answers.fine))
            }
            Request::Stop => {
                slot.unload();
                Answer::value(200, Arc::clone(&self.answers.fine))
            }
            Request::Up(model) => {
                slot.load(model, now_ms + self.load_ms);
                Answer::value(200, Arc::clone(&self.answers.fine))
            }
            Request::Validate(check) => {
                let ms = slot.ms_for(check.total);
                let check = check.clone();
                self.errand(door, ms, Errand::Verdict { slot: place, check });
                Answer::value(200, Arc::clone(&self.answers.fine))
            }
            Request::Other => Answer::value(404, Arc::clone(&self.answers.no)),
        }
    }
}

impl Outside for CountingNodes {
    fn call(&mut self, door: &mut Door<'_>, _ticket: Ticket, call: &Call) -> Response {
        let Some(place) = self.places.get(&call.host).copied() else {
            return Response::After(ANSWER_MS, Err("no such host".to_owned()));
        };
        if !self.slots[place].is_well() {
            return if self.slots[place].is_silent() {
                Response::Never
            } else {
                Response::After(ANSWER_MS, Err("connection refused".to_owned()))
            };
        }
        if door.draw_percent(self.slots[place].lost_percent()) {
            return Response::Never;
        }
        // DAPI waits for a model that loads.
        let ms = match call.request {
            Request::Up(_) => self.load_ms,
            _ => ANSWER_MS,
        };
        Response::After(ms, Ok(self.answer(door, place, &call.request)))
    }

    fn wake(&mut self, door: &mut Door<'_>, token: u64) {
        match self.errands.remove(&token) {
            Some(Errand::Deliver { slot, run }) => self.deliver(door, slot, run),
            Some(Errand::Verdict { slot, check }) => self.verdict(door, slot, &check),
            None => {}
        }
    }

    fn units(&mut self, net: &Network, stage_height: i64) -> Vec<Unit> {
        let unit = |slot: &Slot| slot.unit(&self.seed, stage_height, net.now_ms);
        self.slots.iter().map(unit).collect()
    }

    fn units_mark(&self, net: &Network) -> u64 {
        let marks = self.slots.iter().map(|slot| slot.mark(net.now_ms));
        marks.fold(0, |all, mark| (all ^ mark).wrapping_mul(super::FNV_PRIME))
    }

    fn node(&mut self, _door: &mut Door<'_>, command: &Command, undo: bool) -> Result<(), String> {
        let Command { verb, arguments } = command;
        let id = arguments.target.strip_prefix("node/").unwrap_or(&arguments.target);
        let place = self.places.get(id).copied();
        let slot = place.and_then(|place| self.slots.get_mut(place));
        let slot = slot.ok_or_else(|| format!("there is no node {id}"))?;
        match (verb, undo) {
            (Verb::Stop, false) => slot.crash(),
            (Verb::Restart, false) => {
                slot.crash();
            }
            (Verb::Stop | Verb::Restart, true) | (Verb::Start, false) => slot.recover(),
            (Verb::Stall, _) => slot.set_silent(!undo),
            (Verb::Drop, undo) => slot.set_lost_percent(if undo { 0 } else { arguments.percent.unwrap_or_default() }),
            (Verb::Weight, false) => slot.set_percent(arguments.percent.unwrap_or(100)),
            (Verb::Weight, true) => slot.set_percent(100),
            _ => return Err(format!("{verb} does not work on a node")),
        }
        Ok(())
    }
}

fn slots(scenario: &Scenario, host: &HostSection) -> Vec<Slot> {
    let first = scenario
        .models
        .first()
        .map(|model| model.id.clone())
        .unwrap_or_default();
    let model = host.model.clone().unwrap_or(first);
    node_ids(scenario)
        .into_iter()
        .map(|id| Slot::ready(id, model.clone(), host))
        .collect()
}

fn spec(slot: &Slot) -> NodeSpec {
    NodeSpec {
        host: slot.id.clone(),
        inference_segment: String::new(),
        inference_port: INFERENCE_PORT,
        poc_segment: String::new(),
        poc_port: MANAGEMENT_PORT,
        models: BTreeMap::from([(slot.usual_model().to_owned(), ModelArgs::default())]),
        id: slot.id.clone(),
        max_concurrent: 500,
        hardware: vec![Hardware {
            kind: "NVIDIA H200 | 140GB".to_owned(),
            count: 8,
        }],
    }
}
