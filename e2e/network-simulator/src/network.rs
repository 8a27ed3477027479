//! The state of the simulated network: the chain, everybody on it, and the DAPI of the one host that is not simulated.
//! Plain values; [`crate::step`] changes them, [`crate::views`] shows them.

use crate::{
    blocks::{Block, Blocks},
    challenge::Challenges,
    coefficients,
    dapi::{self, Dapi},
    decimal::Decimal,
    economy::{
        Account,
        allowance::{self, Allowance},
        deposit::Deposit,
    },
    event::Command,
    exam::{Exam, book::Proof, window::Window},
    faults::Faults,
    identity, ledger,
    release::Version,
    scenario::{Delivery, DriverKind, Model, Scenario, Voting},
    stages::{Lengths, Stages},
    truth::Survey,
    upgrade::Upgrades,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Exams that stay visible to queries after they are over, as DAPI keeps ten stages of artifacts.
const PAST_EXAMS: usize = 10;
/// Requests from outside that the ledger lists; later ones are only counted.
const MAX_REQUESTS: usize = 200_000;

/// A participant.
#[derive(Debug, Clone)]
pub struct Host {
    pub name: String,
    pub address: String,
    pub warm_address: String,
    pub public_key: String,
    pub conduct: Conduct,
    /// Early-share misses in a row.
    pub early_misses: u32,
    /// Spendable ngonka.
    pub balance: u64,
    pub account: Account,
    /// Blocks that it waits after a claim window opens.
    pub claim_wait: i64,
    /// How it votes in place of what its conduct says.
    pub votes: Option<Voting>,
    /// Speed of a simulated host's nodes in its next exams, against what the scenario gives them.
    pub speed_percent: u32,
}

/// Where a host's behaviour comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    External,
    Simulated(Simulated),
}

/// Behaviour of a simulated host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simulated {
    pub nodes: u32,
    pub nonces_per_second: u32,
    /// Up to so many thousandths faster or slower, anew for every node and exam.
    pub noise_permille: u32,
    pub votes: Voting,
    pub delivery: Delivery,
    pub late_blocks: u32,
    /// Index of its model.
    pub model: usize,
}

/// Who holds what in an epoch.
#[derive(Debug, Clone, Default)]
pub struct Epoch {
    pub index: u64,
    /// Height at which its Sprint was tallied; 0 before.
    pub formed_height: i64,
    /// By host index.
    pub seats: BTreeMap<usize, Seat>,
    /// Hosts whose seed for this epoch is on the chain.
    pub seeds: BTreeSet<usize>,
    pub settlement: Option<Settlement>,
    pub confirmations: Vec<Confirmation>,
    /// Per model id, where coefficients move.
    pub scales: BTreeMap<String, Scale>,
    /// Hosts excluded by a failed confirmation, with the height.
    pub excluded: BTreeMap<usize, i64>,
}

/// What a model's nonces weigh in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    pub state: coefficients::State,
    pub effective: Decimal,
}

/// A host's place in an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seat {
    pub weight: u64,
    /// Worst confirmation so far.
    pub ratio_bp: u64,
    /// Lowest confirmation weight so far.
    pub confirmation_weight: u64,
    pub nodes: Vec<SeatNode>,
}

/// A node's part of a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatNode {
    pub node_id: String,
    pub model: String,
    /// Its count, before the model's scale.
    pub poc_weight: u64,
}

/// An epoch paid out.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub height: i64,
    pub total_ngonka: u64,
    pub total_weight: u64,
    /// By host index.
    pub rewards: BTreeMap<usize, Reward>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reward {
    pub weight: u64,
    pub ngonka: u64,
    /// 0 while unclaimed.
    pub claimed_height: i64,
}

/// A confirmation the chain has announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    pub epoch: u64,
    pub sequence: u64,
    pub window: Window,
    /// Lower-case hash of the block before generation; empty until then.
    pub seed: String,
    /// Not active any more from here on.
    pub cleared: i64,
}

/// Nodes left on inference in the exam anchored at a height.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preserved {
    pub anchor_height: i64,
    /// Host index to node ids.
    pub nodes: BTreeMap<usize, Vec<String>>,
}

/// Finished parts of the ledger and the requests from outside.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub exams: Vec<ledger::Exam>,
    pub artifacts: Vec<ledger::files::ArtifactsFile>,
    pub requests: Vec<ledger::ExternalRequest>,
    pub requests_left_out: u64,
}

/// The whole world.
#[derive(Debug, Clone)]
pub struct Network {
    pub scenario: Arc<Scenario>,
    /// Unix time at which the run began.
    pub started_ms: u64,
    /// Unix time of the newest event.
    pub now_ms: u64,
    pub blocks: Blocks,
    pub hosts: Vec<Host>,
    /// Index of the host whose DAPI is served.
    pub ours: usize,
    pub epochs: BTreeMap<u64, Epoch>,
    pub exam: Option<Exam>,
    pub past: VecDeque<Exam>,
    pub exams_started: u64,
    /// Maintenance windows ever booked.
    pub reservations: u64,
    /// How artifacts come about in this run.
    pub proof: Proof,
    /// What our host physically had when the newest exam began or was announced, where that is known.
    pub survey: Option<Survey>,
    pub preserved: Preserved,
    pub dapi: Dapi,
    pub faults: Faults,
    pub upgrades: Upgrades,
    pub challenges: Challenges,
    pub record: Record,
    /// Confirmation asked for by a verb, for the next block.
    pub confirmation_requested: bool,
    /// What verbs did, newest last.
    pub commands: Vec<(i64, Command)>,
    pub finished: bool,
}

impl Network {
    /// The world before its first block.
    ///
    /// # Panics
    /// When the scenario has no external host, which [`crate::scenario::parse`] refuses.
    pub fn new(scenario: Arc<Scenario>, started_ms: u64) -> Self {
        let hosts = hosts(&scenario, started_ms);
        let ours = hosts
            .iter()
            .position(|host| host.conduct == Conduct::External)
            .expect("a checked scenario has one external host");
        let dapi = Dapi::new(&scenario);
        Self {
            started_ms,
            now_ms: started_ms,
            blocks: Blocks::default(),
            hosts,
            ours,
            epochs: BTreeMap::from([(0, Epoch::default())]),
            exam: None,
            past: VecDeque::new(),
            exams_started: 0,
            reservations: 0,
            proof: Proof::default(),
            survey: None,
            preserved: Preserved::default(),
            dapi,
            faults: Faults::default(),
            upgrades: Upgrades::default(),
            challenges: Challenges::default(),
            record: Record::default(),
            confirmation_requested: false,
            commands: Vec::new(),
            finished: false,
            scenario,
        }
    }

    /// Height of the newest block, 0 before the first.
    pub fn height(&self) -> i64 {
        self.blocks.height()
    }

    pub fn block(&self, height: i64) -> Option<&Block> {
        self.blocks.get(height)
    }

    pub fn lengths(&self) -> &Lengths {
        &self.scenario.parameters.lengths
    }

    /// Release whose shapes are served at a height.
    pub fn release(&self, height: i64) -> Version {
        self.upgrades.release(height).unwrap_or(self.scenario.network.version)
    }

    pub fn latest_epoch(&self) -> u64 {
        self.lengths().latest_epoch(self.height())
    }

    pub fn effective_epoch(&self) -> u64 {
        self.lengths().effective_epoch(self.height())
    }

    /// Stages of the newest epoch.
    pub fn stages(&self) -> Stages {
        self.lengths().stages(self.latest_epoch())
    }

    pub fn epoch(&self, index: u64) -> Option<&Epoch> {
        self.epochs.get(&index)
    }

    pub fn epoch_mut(&mut self, index: u64) -> &mut Epoch {
        self.epochs.entry(index).or_insert_with(|| Epoch {
            index,
            ..Epoch::default()
        })
    }

    pub fn model(&self, id: &str) -> Option<&Model> {
        self.scenario.models.iter().find(|model| model.id == id)
    }

    /// What a nonce of a model weighs in an epoch.
    pub fn scale(&self, epoch: u64, id: &str) -> Option<Decimal> {
        let moved = self.epoch(epoch).and_then(|epoch| epoch.scales.get(id));
        let moved = moved.map(|scale| scale.effective);
        moved.or_else(|| self.model(id).map(|model| model.weight_scale_factor))
    }

    pub fn host_index(&self, address: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.address == address)
    }

    /// The announced confirmation that is not yet cleared.
    pub fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation_at(self.height())
    }

    /// The same as of an earlier height: an endpoint may lag behind.
    pub fn confirmation_at(&self, height: i64) -> Option<&Confirmation> {
        // One belongs to the epoch in which it was announced and is over before the next begins.
        let newest = self.lengths().latest_epoch(height);
        self.epochs
            .range(newest.saturating_sub(1)..=newest)
            .flat_map(|(_, epoch)| &epoch.confirmations)
            .find(|event| (event.window.stage_height..event.cleared).contains(&height))
    }

    /// A running or past exam by the height queries call it by.
    pub fn exam_at(&self, stage_height: i64) -> Option<&Exam> {
        self.exam
            .iter()
            .chain(&self.past)
            .find(|exam| exam.window.stage_height == stage_height)
    }

    /// Moves a finished exam where queries still find it.
    pub fn retire(&mut self, exam: Exam) {
        self.past.push_front(exam);
        self.past.truncate(PAST_EXAMS);
    }

    /// Voting power: what one's place in the ruling epoch weighs; before the first Sprint all are equal.
    pub fn voting_powers(&self) -> Vec<u64> {
        let seats = self
            .epoch(self.effective_epoch())
            .map(|epoch| &epoch.seats)
            .filter(|seats| !seats.is_empty());
        (0..self.hosts.len())
            .map(|index| seats.map_or(1, |seats| seats.get(&index).map_or(0, |seat| seat.weight)))
            .collect()
    }

    /// Whether artifacts that reach DAPI's callback port are heard, whatever becomes of them.
    pub fn takes_callbacks(&self) -> bool {
        let fault = self.faults.known(crate::faults::Port::DapiMl);
        let is_deaf = fault
            .is_some_and(|fault| fault.stopped || fault.stalled || fault.status.is_some() || fault.lost_percent >= 100);
        self.dapi.up && !is_deaf
    }

    /// Whether a request to a port is lost on its way, as that port's fault has it: by the seed, one after another.
    pub fn loses(&mut self, port: crate::faults::Port) -> bool {
        let percent = self.faults.port(port).lost_percent;
        percent > 0 && self.draw_percent(percent)
    }

    /// A chance of so many in a hundred.
    pub fn draw_percent(&mut self, percent: u32) -> bool {
        self.faults.drawn += 1;
        let drawn = self.faults.drawn.to_string();
        identity::number_below(100, &["loss", &self.seed(), &drawn]) < u64::from(percent)
    }

    /// Notes a request from outside.
    pub fn note_request(&mut self, request: ledger::ExternalRequest) {
        if self.record.requests.len() < MAX_REQUESTS {
            self.record.requests.push(request);
        } else {
            self.record.requests_left_out += 1;
        }
    }

    /// A price of the parameters at present.
    pub fn price(&self, usual: u64) -> u64 {
        usual * u64::from(self.faults.price_percent) / 100
    }

    /// How many of a host's nodes are started in its next exam.
    pub fn started_nodes(&self, host: usize, nodes: usize) -> usize {
        let percent = self.faults.partial_starts.get(&host).copied().unwrap_or(100);
        (nodes * percent as usize).div_ceil(100).min(nodes)
    }

    /// The scenario's seed as a part of derived names.
    pub fn seed(&self) -> String {
        self.scenario.network.seed.to_string()
    }
}

/// Ids of our nodes where they are simulated.
pub fn node_ids(scenario: &Scenario) -> Vec<String> {
    let ours = scenario.hosts.iter().filter(|host| host.driver == DriverKind::External);
    ours.flat_map(|host| (0..host.nodes).map(|index| format!("{}-{index}", host.name)))
        .collect()
}

/// The fee allowance that a host begins with; only ours may have another than the usual one.
fn allowance(scenario: &Scenario, driver: DriverKind, started_ms: u64) -> Option<Allowance> {
    let (given, ngonka) = match driver {
        DriverKind::External => (
            scenario.dapi.feegrant.unwrap_or(true),
            scenario.dapi.allowance_ngonka.unwrap_or(allowance::USUAL_NGONKA),
        ),
        DriverKind::Simulated => (true, allowance::USUAL_NGONKA),
    };
    Allowance::granted(ngonka, started_ms, allowance::USUAL_MS).filter(|_| given)
}

fn hosts(scenario: &Scenario, started_ms: u64) -> Vec<Host> {
    let mut hosts = Vec::new();
    for section in &scenario.hosts {
        let model = section
            .model
            .as_ref()
            .and_then(|id| scenario.models.iter().position(|model| model.id == *id))
            .unwrap_or_default();
        for (name, address, public_key) in section.members() {
            let conduct = match section.driver {
                DriverKind::External => Conduct::External,
                DriverKind::Simulated => Conduct::Simulated(Simulated {
                    nodes: section.nodes,
                    nonces_per_second: section.nonces_per_second,
                    noise_permille: section.noise_permille,
                    votes: section.votes,
                    delivery: section.artifacts,
                    late_blocks: section.late_blocks,
                    model,
                }),
            };
            hosts.push(Host {
                claim_wait: dapi::claims::wait(&address, scenario.parameters.lengths.epoch_length),
                votes: None,
                speed_percent: 100,
                warm_address: identity::address("gonka", &format!("{public_key}/warm")),
                name,
                address,
                public_key,
                conduct,
                early_misses: 0,
                balance: 2_000_000_000,
                account: Account {
                    deposit: Deposit(section.collateral),
                    choices: section.choices.clone(),
                    allowance: allowance(scenario, section.driver, started_ms),
                    ..Account::default()
                },
            });
        }
    }
    hosts
}
