//! What segments and challenges come to: read like a confirmation, decided with one or with the Sprint, paid with the epoch.

use super::{Challenge, Outcome, Segment, rule};
use crate::{economy, exam::window::Kind, network::Network, scenario::expect::Verdict, settlement, votes};
use std::{collections::BTreeSet, ops::Range};

const MOST_PAST: usize = 100;

/// An exam is over: segments with votes are decided, after a Sprint those without too.
pub fn decide(net: &mut Network, kind: Kind) {
    let (height, epoch) = (net.height(), net.latest_epoch());
    let mut challenges = std::mem::take(&mut net.challenges);
    for challenge in &mut challenges.live {
        if kind == Kind::Sprint && challenge.epoch >= epoch {
            continue;
        }
        let sealed = std::mem::take(&mut challenge.segments);
        for segment in sealed {
            let has_votes = !segment.exam.entries[challenge.target].ballot.counted().is_empty();
            if segment.end.is_none() || !(has_votes || kind == Kind::Sprint) {
                challenge.segments.push(segment);
                continue;
            }
            if challenge.outcome.is_some() {
                continue;
            }
            let (ratio_bp, failed) = reading(net, challenge.target, challenge.epoch, &segment);
            if failed.is_some() {
                challenge.outcome = failed;
                challenge.end(height);
            }
            fold(net, challenge, ratio_bp, height);
        }
        if challenge.outcome.is_some() {
            continue;
        }
        if kind == Kind::Sprint {
            challenge.outcome = Some(Outcome::Passed);
        } else if challenge.generating_end.is_none() && challenge.open().is_none() {
            challenge.next = Some(height + 1);
        }
    }
    net.challenges = challenges;
}

/// Worst slice of a segment against what the Sprint promised, and how it failed, if it did.
fn reading(net: &Network, target: usize, epoch: u64, segment: &Segment) -> (u64, Option<Outcome>) {
    let rule = net.scenario.challenge_rule();
    let heights = segment.exam.window.start..segment.end.unwrap_or_default();
    if !rule.is_punishable(&heights) {
        return (10_000, None);
    }
    let entry = &segment.exam.entries[target];
    let parameters = &net.scenario.parameters;
    let worst = worst(net, target, epoch, (segment, heights));
    let Some(ratio_bp) = worst else {
        return (0, Some(Outcome::Missing));
    };
    if entry.ballot.counted().is_empty() {
        return (0, Some(Outcome::Unvoted));
    }
    let (yes, no) = (entry.ballot.power(true), entry.ballot.power(false));
    let threshold = parameters.validation_vote_threshold_bps;
    if votes::decide(yes, no, segment.exam.total_power(), threshold) != Verdict::Accepted {
        return (0, Some(Outcome::Rejected));
    }
    let is_under = ratio_bp < parameters.alpha_threshold.basis_points();
    (ratio_bp, is_under.then_some(Outcome::Underweight))
}

/// Ratio of the worst slice over all models that have weight; nothing when one has no commitment.
fn worst(net: &Network, target: usize, epoch: u64, (segment, heights): (&Segment, Range<i64>)) -> Option<u64> {
    let rule = net.scenario.challenge_rule();
    let lengths = net.lengths();
    let sprint_blocks = lengths.poc_stage_duration + lengths.poc_exchange_duration;
    let seat = net.epoch(epoch)?.seats.get(&target)?;
    let models: BTreeSet<&str> = seat.nodes.iter().map(|node| node.model.as_str()).collect();
    let mut ratio_bp = 10_000;
    for model in models {
        let nodes = seat.nodes.iter().filter(|node| node.model == model);
        let count: u64 = nodes.map(|node| node.poc_weight).sum();
        let book = segment.exam.entries[target].books.get(model)?;
        let commits: Vec<(i64, u64)> = book
            .commits()
            .iter()
            .map(|commit| (commit.height, u64::from(commit.count)))
            .collect();
        for slice in rule.slices(heights.clone()) {
            let validated = rule::committed(&commits, &slice)?;
            ratio_bp = ratio_bp.min(settlement::ratio_bp(
                validated,
                rule::expected(count, sprint_blocks, &slice),
            ));
        }
    }
    Some(ratio_bp)
}

/// A reading counts like a confirmation's; a failed challenge excludes.
fn fold(net: &mut Network, challenge: &Challenge, ratio_bp: u64, height: i64) {
    let epoch = net.epoch_mut(challenge.epoch);
    if let Some(seat) = epoch.seats.get_mut(&challenge.target) {
        let reading = u128::from(seat.weight) * u128::from(ratio_bp) / 10_000;
        seat.confirmation_weight = seat.confirmation_weight.min(reading as u64);
        seat.ratio_bp = seat.ratio_bp.min(ratio_bp);
    }
    if challenge.outcome.is_some_and(|outcome| outcome != Outcome::Passed) {
        epoch.excluded.entry(challenge.target).or_insert(height);
    }
}

/// The epoch is settled: the bounty goes to who passed, else back, with what the target forfeits if its work was bad.
pub fn pay(net: &mut Network, epoch: u64) {
    let (due, live) = std::mem::take(&mut net.challenges.live)
        .into_iter()
        .partition(|challenge: &Challenge| challenge.epoch == epoch);
    net.challenges.live = live;
    let due: Vec<Challenge> = due;
    for mut challenge in due {
        match challenge.outcome {
            Some(Outcome::Passed) => economy::pay(net, challenge.target, challenge.bounty_ngonka),
            Some(Outcome::Rejected | Outcome::Underweight) => {
                challenge.to_challenger_ngonka = challenge.bounty_ngonka + forfeited(net, &challenge);
            }
            Some(Outcome::Missing | Outcome::Unvoted | Outcome::Left) | None => {
                challenge.to_challenger_ngonka = challenge.bounty_ngonka;
            }
        }
        tracing::info!(host = net.hosts[challenge.target].name, outcome = ?challenge.outcome, "challenge is paid");
        if net.challenges.past.len() < MOST_PAST {
            challenge.segments.clear();
            net.challenges.past.push(challenge);
        }
    }
}

/// The target's share of what was settled, less what it is paid.
fn forfeited(net: &Network, challenge: &Challenge) -> u64 {
    let target = challenge.target;
    let epoch = net.epoch(challenge.epoch);
    let Some(settlement) = epoch.and_then(|epoch| epoch.settlement.as_ref()) else {
        return 0;
    };
    let weight = epoch
        .and_then(|epoch| epoch.seats.get(&target))
        .map_or(0, |seat| seat.weight);
    let whole = settlement::share(settlement.total_ngonka, weight, settlement.total_weight);
    whole.saturating_sub(settlement.rewards.get(&target).map_or(0, |reward| reward.ngonka))
}
