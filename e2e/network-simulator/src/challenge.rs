//! Challenges (v0.2.16): somebody puts up a bounty, and the target generates from the next block on until the safety window before
//! the next Sprint, on every node that has weight, whatever else happens. What a confirmation or the safety window cuts off is a
//! segment; it is voted on with the confirmation or the Sprint, and an epoch's challenge is paid with the epoch.
//!
//! A segment is an exam of one host, beside the network's own. The rules are functions of numbers in [`rule`].

mod decision;
pub mod rule;

pub use decision::{decide, pay};

use crate::{
    chain, economy,
    event::{Effect, Timer, Work},
    exam::{
        Exam, Judgement,
        book::{Book, Proof, counted::Batch},
        window::{Kind, Window},
    },
    network::{Conduct, Network},
    noise,
    release::Version,
    rivals, sample,
    scenario::Voting,
    settlement,
};

/// A stretch of generation.
#[derive(Debug, Clone)]
pub struct Segment {
    pub exam: Exam,
    /// First height after it, once it is sealed.
    pub end: Option<i64>,
}

/// What a challenge came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::AsRefStr)]
pub enum Outcome {
    Passed,
    /// A slice without a commitment.
    Missing,
    /// Votes against a segment.
    Rejected,
    /// The target was excluded for something else.
    Left,
    /// Less than the Sprint had promised.
    Underweight,
    /// Nobody voted on a segment.
    Unvoted,
}

/// A challenge, until its epoch is paid.
#[derive(Debug, Clone)]
pub struct Challenge {
    pub target: usize,
    pub epoch: u64,
    /// First block of generation.
    pub start: i64,
    pub bounty_ngonka: u64,
    /// Not yet decided, the open one last.
    pub segments: Vec<Segment>,
    /// When the next one begins.
    next: Option<i64>,
    /// First height at which the target does not generate any more.
    pub generating_end: Option<i64>,
    pub outcome: Option<Outcome>,
    /// What the challenger gets in the end.
    pub to_challenger_ngonka: u64,
}

impl Challenge {
    /// Whether its target belongs to it at a height.
    pub fn is_generating(&self, height: i64) -> bool {
        height >= self.start && self.generating_end.is_none()
    }

    fn open(&self) -> Option<&Segment> {
        self.segments.last().filter(|segment| segment.end.is_none())
    }

    fn open_mut(&mut self) -> Option<&mut Segment> {
        self.segments.last_mut().filter(|segment| segment.end.is_none())
    }

    /// It generates no more.
    fn end(&mut self, height: i64) {
        self.seal(height);
        self.next = None;
        self.generating_end.get_or_insert(height);
    }

    fn seal(&mut self, height: i64) {
        if let Some(segment) = self.open_mut() {
            segment.end = Some(height);
        }
    }
}

/// Every challenge that is not paid yet, and those that were.
#[derive(Debug, Clone, Default)]
pub struct Challenges {
    pub live: Vec<Challenge>,
    /// Paid, newest last; the first hundred.
    pub past: Vec<Challenge>,
}

impl Challenges {
    fn of(&self, host: usize) -> Option<&Challenge> {
        self.live.iter().find(|challenge| challenge.target == host)
    }

    pub fn is_generating(&self, host: usize, height: i64) -> bool {
        self.of(host).is_some_and(|challenge| challenge.is_generating(height))
    }

    /// Segment that a host generates for now.
    pub fn segment(&self, host: usize) -> Option<&Exam> {
        self.of(host)?.open().map(|segment| &segment.exam)
    }

    pub fn segment_mut(&mut self, host: usize) -> Option<&mut Exam> {
        let challenge = self.live.iter_mut().find(|challenge| challenge.target == host)?;
        challenge.open_mut().map(|segment| &mut segment.exam)
    }

    /// Whether a host has just stopped to generate.
    pub fn ends(&self, host: usize, height: i64) -> bool {
        self.of(host)
            .is_some_and(|challenge| challenge.generating_end == Some(height))
    }

    /// Whether a host's own nodes are left out of the exam that runs: it began while they were challenged.
    pub fn excuses(&self, host: usize, window: &Window) -> bool {
        let generated = |challenge: &Challenge| {
            window.start >= challenge.start && challenge.generating_end.is_none_or(|end| window.start < end)
        };
        window.kind == Kind::Confirmation && self.of(host).is_some_and(generated)
    }

    /// A sample of a segment was recomputed; true when the exam was one.
    pub fn judged(&mut self, exam: u64, host: usize, model: &str, judgement: Judgement) -> bool {
        let mut segments = self.live.iter_mut().flat_map(|challenge| &mut challenge.segments);
        let Some(segment) = segments.find(|segment| segment.exam.id == exam) else {
            return false;
        };
        segment.exam.entries[host].judged.insert(model.to_owned(), judgement);
        true
    }
}

impl Network {
    /// What our nodes generate for: a segment before an exam.
    pub fn generated(&self) -> Option<&Exam> {
        self.challenges.segment(self.ours).or(self.exam.as_ref())
    }

    pub fn generated_mut(&mut self) -> Option<&mut Exam> {
        self.challenges.segment_mut(self.ours).or(self.exam.as_mut())
    }

    /// Whether one of our nodes has to generate for a challenge: every one that has weight does.
    pub fn is_challenged(&self, node_id: &str) -> bool {
        let seat = self
            .epoch(self.effective_epoch())
            .and_then(|epoch| epoch.seats.get(&self.ours));
        self.challenges.is_generating(self.ours, self.height())
            && seat.is_some_and(|seat| seat.nodes.iter().any(|node| node.node_id == node_id))
    }
}

/// Where challenges of an epoch end: in any case before its nodes leave inference for the next Sprint.
fn safety(net: &Network, epoch: u64) -> i64 {
    let lengths = net.lengths();
    let blocks = lengths
        .confirmation_poc_safety_window
        .max(lengths.inference_validation_cutoff);
    lengths.stages(epoch).next_poc_start - blocks
}

fn is_excluded(net: &Network, epoch: u64, host: usize) -> bool {
    net.epoch(epoch).is_some_and(|epoch| epoch.excluded.contains_key(&host))
}

/// The verb: a challenge begins at the next block.
pub fn create(net: &mut Network, target: usize) -> Result<(), String> {
    let height = net.height();
    let rule = net.scenario.challenge_rule();
    let epoch = net.effective_epoch();
    let seat = net.epoch(epoch).and_then(|epoch| epoch.seats.get(&target));
    let is_out = is_excluded(net, epoch, target) || epoch < net.latest_epoch();
    let end = safety(net, epoch);
    let weight = seat.map_or(0, |seat| seat.weight);
    let maintenance = &net.hosts[target].account.maintenance;
    let refusal = if net.release(height) < Version::V16 {
        "the chain knows challenges from v0.2.16 on"
    } else if net.challenges.of(target).is_some() {
        "the host is challenged already"
    } else if net.challenges.live.len() >= rule.most {
        "there are as many challenges as there may be"
    } else if weight == 0 || is_out {
        "the host is not active in this epoch"
    } else if net.exam.is_some() || net.confirmation().is_some() {
        "an exam is active"
    } else if maintenance.windows().any(|window| window.start < end) {
        "the host is in maintenance, or about to be"
    } else if end - height - 1 < rule.shortest_blocks {
        "too few blocks are left before the next Sprint"
    } else if net.proof == Proof::Computed && target != net.ours {
        "in real time only the host outside is challenged: competitors would have to compute for hours"
    } else {
        let total = net
            .epoch(epoch)
            .map_or(0, |epoch| epoch.seats.values().map(|seat| seat.weight).sum());
        let reward = settlement::share(crate::tally::reward_of(net, epoch), weight, total);
        let start = height + 1;
        net.challenges.live.push(Challenge {
            target,
            epoch,
            start,
            bounty_ngonka: (u128::from(reward) * u128::from(rule.bounty_permille) / 1000) as u64,
            segments: Vec::new(),
            next: Some(start),
            generating_end: None,
            outcome: None,
            to_challenger_ngonka: 0,
        });
        return Ok(());
    };
    Err(refusal.to_owned())
}

/// At a new block, when transactions are in: segments are cut and begun, competitors deliver, votes are asked for and given.
pub fn on_block(net: &mut Network) -> Vec<Effect> {
    if net.challenges.live.is_empty() {
        return Vec::new();
    }
    let height = net.height();
    let window = net.exam.as_ref().map(|exam| exam.window);
    let confirmation = window.filter(|window| window.kind == Kind::Confirmation);
    let mut effects = Vec::new();
    for index in 0..net.challenges.live.len() {
        let (target, epoch) = (net.challenges.live[index].target, net.challenges.live[index].epoch);
        let has_left = is_excluded(net, epoch, target);
        let is_over = has_left || height >= safety(net, epoch);
        let challenge = &mut net.challenges.live[index];
        if challenge.generating_end.is_none() && is_over {
            challenge.outcome = has_left.then_some(Outcome::Left);
            challenge.end(height);
        } else if confirmation.is_some_and(|window| window.generation_end == height) {
            challenge.seal(height);
        }
        if challenge.is_generating(height) && challenge.next.is_some_and(|next| next <= height) {
            effects.extend(begin(net, index));
        }
        produce(net, index);
    }
    if let Some(window) = window {
        if window.validation_start == height {
            effects.extend(ask(net));
        }
        if window.validates(height) {
            vote(net);
        }
    }
    effects
}

/// A commitment that is on its way into a segment gets into this block.
pub fn include(net: &mut Network) {
    let height = net.height();
    for challenge in &mut net.challenges.live {
        let target = challenge.target;
        for segment in &mut challenge.segments {
            let entry = &mut segment.exam.entries[target];
            for (model, book) in &mut entry.books {
                if segment.end.is_none() {
                    book.include(model, height);
                } else {
                    book.drop_pending();
                }
            }
            entry.ballot.include(&segment.exam.powers);
        }
    }
}

fn begin(net: &mut Network, index: usize) -> Vec<Effect> {
    let height = net.height();
    let Challenge { target, epoch, .. } = net.challenges.live[index];
    let safety = safety(net, epoch);
    let window = Window {
        kind: Kind::Confirmation,
        stage_height: height,
        start: height,
        photo: safety,
        wind_down: safety,
        generation_end: safety,
        last_commit: safety,
        validation_start: safety,
        validation_wind_down: safety,
        validation_end: safety,
    };
    let mut exam = chain::exam(net, epoch, window);
    for (host, entry) in exam.entries.iter_mut().enumerate() {
        entry.preserved.clear();
        if host != target {
            entry.nodes.clear();
        }
    }
    tracing::info!(
        exam = exam.id,
        host = net.hosts[target].name,
        height,
        "challenge segment starts"
    );
    let id = exam.id;
    let challenge = &mut net.challenges.live[index];
    challenge.next = None;
    challenge.segments.push(Segment { exam, end: None });
    if target != net.ours {
        return Vec::new();
    }
    vec![Effect::After {
        ms: net.dapi.timing.commit_interval_ms,
        timer: Timer::Commit { exam: id },
    }]
}

/// What a challenged competitor owes by now, committed at once.
fn produce(net: &mut Network, index: usize) {
    let now_ms = net.now_ms;
    let target = net.challenges.live[index].target;
    let Conduct::Simulated(conduct) = net.hosts[target].conduct else {
        return;
    };
    let model = net.scenario.models[conduct.model].id.clone();
    let Some(segment) = net.challenges.live[index].open_mut() else {
        return;
    };
    let ran_ms = segment.exam.since_start(now_ms);
    let entry = &mut segment.exam.entries[target];
    let book = entry.books.entry(model).or_insert_with(|| Book::new(Proof::Counted));
    for node in &entry.nodes {
        book.count(&Batch {
            node_num: node.node_num,
            group: 0,
            places: 0..noise::nonces(node.rate_milli, ran_ms),
        });
    }
    book.submit();
}

/// Samples of sealed segments are recomputed, with powers as the exam froze them, less the target's.
fn ask(net: &mut Network) -> Vec<Effect> {
    let powers = net.exam.as_ref().map(|exam| exam.powers.clone()).unwrap_or_default();
    for challenge in &mut net.challenges.live {
        for segment in challenge.segments.iter_mut().filter(|segment| segment.end.is_some()) {
            segment.exam.powers.clone_from(&powers);
            if let Some(own) = segment.exam.powers.get_mut(challenge.target) {
                *own = 0;
            }
        }
    }
    let most = net.scenario.parameters.validation_sample_size;
    let mut effects = Vec::new();
    for challenge in &net.challenges.live {
        let host = challenge.target;
        for segment in challenge.segments.iter().filter(|segment| segment.end.is_some()) {
            let exam = &segment.exam;
            for (id, book) in exam.entries[host].books.iter().filter(|(_, book)| book.committed() > 0) {
                let Some(model) = net.model(id) else { continue };
                effects.push(Effect::Compute(match exam.proof {
                    Proof::Counted => Work::Count {
                        exam: exam.id,
                        host,
                        model: id.clone(),
                        total: sample::size(book, most),
                        fraud: rivals::is_fraud(net, host),
                    },
                    Proof::Computed => Work::Judge {
                        exam: exam.id,
                        host,
                        model: id.clone(),
                        round: exam.round(&net.hosts[host].public_key, model.seq_len, model.k_dim),
                        sample: sample::draw(book, most, &format!("{}/challenge", exam.id)),
                        test: rivals::stat_test(model),
                    },
                }));
            }
        }
    }
    effects
}

/// Everybody but the target votes by what recomputing found.
fn vote(net: &mut Network) {
    let voting: Vec<Voting> = (0..net.hosts.len()).map(|host| rivals::voting(net, host)).collect();
    let mut challenges = std::mem::take(&mut net.challenges);
    for challenge in &mut challenges.live {
        for segment in challenge.segments.iter_mut().filter(|segment| segment.end.is_some()) {
            let entry = &segment.exam.entries[challenge.target];
            if entry.committed() == 0 || !entry.is_judged() || segment.exam.powers.is_empty() {
                continue;
            }
            let honest = match entry.judged.values().find(|judgement| judgement.fraud) {
                Some(_) => -1,
                None => entry.judged.values().map(|judgement| i64::from(judgement.total)).sum(),
            };
            let open = (0..voting.len()).filter(|host| *host != challenge.target && !entry.ballot.has(*host));
            let open: Vec<usize> = open.collect();
            for host in open {
                let value = match voting[host] {
                    Voting::Honest => honest,
                    Voting::Invalid => -1,
                    Voting::Absent => continue,
                };
                if host != net.ours || net.transacts(economy::Fee::Duty) {
                    segment.exam.entries[challenge.target].ballot.cast(host, value);
                }
            }
        }
    }
    net.challenges = challenges;
}

#[cfg(test)]
mod tests;
