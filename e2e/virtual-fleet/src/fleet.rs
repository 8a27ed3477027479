//! The loop: the network calls our nodes, wakes us and makes blocks; every event of the fleet goes to whom it concerns.

mod events;
mod moments;
mod objects;
mod people;
mod run;
mod wishes;

pub use run::{Outcome, TOLERANCE_PERMILLE, run};

use std::collections::BTreeMap;
use std::sync::Arc;

use network_simulator::event::{Answer, Call, Request};
use network_simulator::network::Network;
use network_simulator::scenario::Scenario;
use network_simulator::truth::Unit;
use network_simulator::virtual_time::answers::Answers;
use network_simulator::virtual_time::door::Door;
use network_simulator::virtual_time::{Outside, Response, Ticket};
use operator::context::Settings;
use serde_json::Value;

use crate::agenda::{Agenda, Event};
use crate::check::Checks;
use crate::check::weight::Terms;
use crate::cluster::Cluster;
use crate::ground::{Faults, Ground};
use crate::history::History;
use crate::operator::Operator;
use crate::plan::Plan;
use crate::random::Random;
use crate::store::Store;
use crate::story::Moment;
use crate::switches::Strangers;
use crate::table::Row;

/// From a block to the operator's look at it.
const READ_MS: i64 = 150;
/// From a call to its answer.
const ANSWER_MS: u64 = 2;
/// `--break-glass-seconds`.
const BREAK_GLASS_SECONDS: u32 = 120;
/// Without anything due the chain is read this often.
const HOURLY_MS: i64 = 3_600_000;

/// Everything outside of the network.
#[derive(Debug)]
pub struct Fleet {
    /// What everybody stands on.
    pub ground: Ground,
    /// The operator's process.
    pub operator: Operator,
    story: Vec<Moment>,
    /// Moments whose effect lasts.
    lasting: u32,
    /// When something of the story began or ended last, Unix milliseconds.
    disturbed_ms: i64,
    looked_ms: i64,
    /// Pods whose `serve` is away, by the place of the moment.
    restarting: BTreeMap<usize, String>,
    /// Exams that were looked for among the records.
    checked_exams: usize,
    rest_epoch: u64,
    /// Slots that a moment hit, by its place in the story.
    hit: BTreeMap<usize, u64>,
    /// Wishes for machines, by their place in the story.
    wishes: BTreeMap<usize, wishes::Wish>,
    answers: Answers,
}

impl Fleet {
    /// A fleet before its first event.
    pub fn new(plan: &Plan, scenario: &Scenario) -> Self {
        let block_ms = i64::try_from(scenario.network.block_millis).unwrap_or(1_000);
        let settings = Settings {
            namespace: "gonka-system".to_owned(),
            install_id: "abc123".to_owned(),
            slot_image: "gonka.local/slot:dev".to_owned(),
            image_pull_policy: "Never".to_owned(),
            signal_service: "gonka-fleet".to_owned(),
            gpu_node_selector: "nvidia.com/gpu.present".to_owned(),
            resync_seconds: plan.fleet.resync_seconds,
            callback_interval_seconds: plan.fleet.callback_interval_seconds,
            break_glass_seconds: BREAK_GLASS_SECONDS,
            ..Settings::default()
        };
        let lengths = &scenario.parameters.lengths;
        let ground = Ground {
            plan: plan.fleet.clone(),
            stage_ms: lengths.poc_stage_duration * block_ms,
            block_ms,
            store: Store::default(),
            cluster: Cluster::default(),
            agenda: Agenda::default(),
            history: History::default(),
            checks: Checks::default(),
            faults: Faults::default(),
            delays: Random::new(plan.seed, "delays"),
            strangers: Strangers::default(),
        };
        Self {
            ground,
            operator: Operator::new(settings),
            story: plan.story.clone(),
            lasting: 0,
            disturbed_ms: 0,
            looked_ms: 0,
            restarting: BTreeMap::new(),
            checked_exams: 0,
            rest_epoch: 0,
            hit: BTreeMap::new(),
            wishes: BTreeMap::new(),
            answers: Answers::new(scenario),
        }
    }

    /// Objects, machines, the operator's program, and the story on the agenda.
    pub fn begin(&mut self, door: &mut Door<'_>, plan: &Plan) {
        let now_ms = Ground::now(door);
        self.ground.checks.started_ms = now_ms;
        self.ground.history.note(now_ms, "begin");
        objects::make(&mut self.ground, door, plan);
        self.ground.agenda.after(door, 10, Event::OperatorStarts);
        for (place, moment) in self.story.iter().enumerate() {
            self.ground.agenda.after(door, moment.at, Event::Moment { place });
        }
        self.settle(door);
    }

    /// Whether somebody looked in this epoch whether the fleet is at rest; from now on somebody has.
    fn rest_asked(&mut self, epoch: u64) -> bool {
        std::mem::replace(&mut self.rest_epoch, epoch) == epoch
    }

    /// Notes what of the story fell into an exam, or into the two minutes before it.
    fn meanwhile(&self, row: &mut Row) {
        let block_ms = self.ground.block_ms;
        let (from, until) = (
            row.height * block_ms - 120_000,
            row.height * block_ms + self.ground.stage_ms + 2 * block_ms,
        );
        let falls = |moment: &Moment| moment.at <= until && moment.at + moment.what.millis() >= from;
        let terms = Terms {
            margin_basis_points: self.ground.margin_basis_points().max(0).unsigned_abs().into(),
            callback_ms: u64::from(self.ground.plan.callback_interval_seconds) * 1000,
            generation_ms: self.ground.stage_ms.max(0).unsigned_abs(),
            slots: self.ground.plan.all_slots().max(0).unsigned_abs().into(),
        };
        let hit = |place: usize| self.hit.get(&place).copied().unwrap_or_default();
        let moments = self.story.iter().enumerate();
        let moments = moments.filter(|(_, moment)| falls(moment));
        terms.judge(row, moments.map(|(place, moment)| (moment, hit(place))));
    }

    /// Exams of two epochs ago have their records, if anybody could write them.
    fn check_records(&mut self, door: &Door<'_>, exams: &[Row]) {
        let latest = door.net().latest_epoch();
        while let Some(row) = exams.get(self.checked_exams).filter(|row| row.epoch + 2 <= latest) {
            self.checked_exams += 1;
            let (kind, height) = (row.kind.clone(), row.height);
            self.ground.check_record(door, &kind, height);
        }
    }

    /// Watches tell what changed, late.
    fn settle(&mut self, door: &mut Door<'_>) {
        if self.ground.cluster.outbox.is_empty() {
            return;
        }
        let now_ms = Ground::now(door);
        let life = self.operator.life;
        for change in std::mem::take(&mut self.ground.cluster.outbox) {
            if !self.operator.alive || !change.id.kind.is_watched() {
                continue;
            }
            let mut lag = self.ground.delays.between(2, 40);
            if let Some((lost, late)) = self.ground.faults.watch {
                if self.ground.delays.per_mille(lost) {
                    let kind = change.id.kind;
                    let ms = self.ground.delays.between(20_000, 90_000);
                    self.ground.agenda.after(door, ms, Event::Relist { life, kind });
                    self.ground.checks.unheard.insert(change.id);
                    continue;
                }
                lag += self.ground.delays.between(0, late);
            }
            self.ground.checks.unheard.remove(&change.id);
            let at = self.operator.tell_at(change.id.kind, now_ms + lag);
            self.ground
                .agenda
                .after(door, at - now_ms, Event::Told { life, change });
        }
    }

    /// UID of the pod that a call of DAPI reaches, or what the caller hears instead.
    fn callee(&self, call: &Call) -> Result<String, Response> {
        let refused = || Response::After(ANSWER_MS, Err("connection refused".to_owned()));
        let Some(address) = self.ground.cluster.routes.get(&call.host) else {
            return Err(refused());
        };
        let Some(uid) = self.ground.cluster.pod_at(address).cloned() else {
            return Err(Response::Never);
        };
        if !self.ground.cluster.is_machine_reachable(&uid) {
            return Err(Response::Never);
        }
        let open = self.ground.cluster.pods.get(&uid).is_some_and(|life| {
            let held = life.slot.as_ref().and_then(crate::slot::Slot::held);
            life.away == 0 && held.is_some()
        });
        if open { Ok(uid) } else { Err(refused()) }
    }

    fn answer(&mut self, door: &mut Door<'_>, uid: &str, request: &Request) -> Option<Answer> {
        let now_ms = Ground::now(door);
        let slot = self.ground.cluster.pods.get_mut(uid)?.slot.as_mut()?;
        let loaded = slot.is_loaded();
        let answers = &self.answers;
        let when = |good: bool, value: &Arc<Value>| Answer::value(if good { 200 } else { 503 }, value.clone());
        let answer = match request {
            Request::State => {
                let serves = loaded && !slot.state.memory.stopped;
                let body = if serves { &answers.serving } else { &answers.stopped };
                Answer::value(200, body.clone())
            }
            Request::PowStatus => {
                let body = if slot.is_active() {
                    &answers.generating
                } else {
                    &answers.idle
                };
                Answer::value(200, body.clone())
            }
            Request::Health => when(loaded, &answers.fine),
            Request::Models => when(loaded, &answers.models[slot.model()]),
            Request::Init(start) => {
                let status = slot.start(start, door.net(), now_ms);
                Answer::value(status, answers.fine.clone())
            }
            Request::PowStop => {
                slot.stop(now_ms);
                Answer::value(200, answers.fine.clone())
            }
            Request::Stop => {
                slot.stop(now_ms);
                slot.state.memory.stopped = true;
                Answer::value(200, answers.fine.clone())
            }
            Request::Up(_) => {
                slot.state.memory.stopped = false;
                when(loaded, &answers.fine)
            }
            Request::Validate(check) => {
                let ms = slot.check_ms(check);
                let event = Event::Verdict {
                    pod_uid: uid.to_owned(),
                    check: Box::new(check.clone()),
                };
                self.ground.agenda.after(door, ms, event);
                Answer::value(200, answers.fine.clone())
            }
            Request::Other => Answer::value(404, answers.fine.clone()),
        };
        if let Request::Init(start) = request {
            let line = format!(
                "start {} of node {} at {}: {}",
                start.stage_height,
                start.node_num,
                self.ground.name_of(uid),
                answer.status
            );
            self.ground.note(door, &line);
            self.ground.set_ticking(door, uid);
        }
        self.ground.ring(door, uid);
        Some(answer)
    }

    /// Whether the chain is worth a look at this block.
    fn is_due(&self, net: &Network, now_ms: i64) -> bool {
        if self.ground.plan.every_block || self.lasting > 0 || now_ms - self.looked_ms >= HOURLY_MS {
            return true;
        }
        let height = net.height();
        if let Some(exam) = &net.exam {
            let window = &exam.window;
            let edges = [window.photo, window.validation_start, window.validation_end];
            return height <= window.last_commit + 1 || edges.iter().any(|edge| (*edge..=*edge + 1).contains(&height));
        }
        if net.confirmation().is_some_and(|event| height <= event.window.start + 1) {
            return true;
        }
        let stages = net.stages();
        let lengths = net.lengths();
        let (first, last) = lengths.confirmation_triggers(net.latest_epoch());
        let lead = |seconds: i32| stages.next_poc_start - i64::from(seconds) * 1000 / self.ground.block_ms;
        let margins = &self.ground.plan.margins;
        let edges = [
            stages.poc_start,
            stages.poc_validation_end,
            stages.set_new_validators,
            stages.claim_money,
            first,
            last + 1,
            stages.inference_validation_cutoff,
            stages.next_poc_start,
            lead(margins.cold_load_seconds),
            lead(margins.ready_by_seconds),
            lead(margins.drain_seconds),
        ];
        edges.iter().any(|edge| (*edge - 1..=*edge + 2).contains(&height))
    }
}

impl Outside for Fleet {
    fn call(&mut self, door: &mut Door<'_>, _ticket: Ticket, call: &Call) -> Response {
        let response = match self.callee(call) {
            Err(response) => response,
            Ok(uid) => match self.answer(door, &uid, &call.request) {
                Some(answer) => Response::After(ANSWER_MS, Ok(answer)),
                None => Response::Never,
            },
        };
        self.settle(door);
        response
    }

    fn wake(&mut self, door: &mut Door<'_>, token: u64) {
        if let Some(event) = self.ground.agenda.take(token) {
            self.event(door, event);
            self.settle(door);
        }
    }

    fn block(&mut self, door: &mut Door<'_>) {
        let now_ms = Ground::now(door);
        if self.is_due(door.net(), now_ms) {
            self.looked_ms = now_ms;
            let life = self.operator.life;
            self.ground.agenda.after(door, READ_MS, Event::Read { life });
        }
    }

    fn units_mark(&self, _net: &Network) -> u64 {
        self.ground.cluster.mark(self.ground.api_answers())
    }

    fn units(&mut self, _net: &Network, _stage_height: i64) -> Vec<Unit> {
        let cluster = &self.ground.cluster;
        let takes_writes = self.ground.api_answers();
        cluster
            .pods
            .iter()
            .filter_map(|(uid, life)| {
                let machine = cluster.machine_of(life)?;
                let slot = life.slot.as_ref()?;
                Some(Unit {
                    // Whoever starts gets an address that nobody had.
                    id: life.address.clone(),
                    node_id: slot.node_id().map(str::to_owned),
                    model: slot.model().to_owned(),
                    rate_milli: slot.rate_milli,
                    healthy: !life.ended && machine.off == 0 && machine.findings == 0,
                    loaded: slot.is_loaded(),
                    reachable: cluster.is_reachable(uid),
                    assignable: cluster.is_assignable(life, slot, takes_writes),
                })
            })
            .collect()
    }
}
