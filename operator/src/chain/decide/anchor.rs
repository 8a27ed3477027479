//! Epoch and parameters: what a quorum of clocks says, and which epoch a height lies in.

use std::collections::BTreeMap;

use crds::sprint_schedule::ChainParameters;

use super::{Anchor, Epoch, Memory, Observed};
use crate::chain::view::Failure;
use crate::chain::{heights, parameters};

/// How the clocks voted.
#[derive(Debug, Default)]
pub(super) struct Votes {
    /// Endpoints whose clock contradicts what a quorum says.
    pub(super) dissenters: Vec<String>,
    /// What keeps clocks from being counted, for people.
    pub(super) problem: Option<String>,
}

type Ballot = (i64, i64, String);

/// Adopts the newest anchor a quorum agrees on. Without one the last stays: heights do not become wrong by silence.
pub(super) fn adopt(memory: &mut Memory, observed: &Observed<'_>) -> Votes {
    let mut ballots: BTreeMap<Ballot, Vec<(&str, i64)>> = BTreeMap::new();
    let mut votes = Votes::default();
    let mut hashed: Option<(&ChainParameters, String)> = None;
    for endpoint in &observed.spec.endpoints {
        let Some(view) = observed.views.get(&endpoint.name) else {
            continue;
        };
        if let Some(Failure::Shape(problem)) = view.rest.failing() {
            votes
                .problem
                .get_or_insert_with(|| format!("{}: {problem}", endpoint.name));
        }
        // A clock counts only beside blocks of the right chain.
        if let Some(clock) = view.live_clock().filter(|_| view.chain_id == observed.spec.chain_id) {
            // Clocks mostly say the same.
            let known = hashed.take().filter(|(known, _)| **known == clock.parameters);
            let (_, hash) =
                hashed.insert(known.unwrap_or_else(|| (&clock.parameters, parameters::hash(&clock.parameters))));
            let ballot = (clock.poc_start, clock.epoch, hash.clone());
            ballots.entry(ballot).or_default().push((&endpoint.name, clock.height));
        }
    }
    let elected = ballots
        .iter()
        .filter(|(_, voters)| voters.len() >= observed.quorum())
        .max_by_key(|((poc_start, ..), voters)| (*poc_start, quorum_height(voters, observed.quorum())));
    let Some(((poc_start, epoch, hash), backers)) = elected else {
        return votes;
    };
    let source_height = quorum_height(backers, observed.quorum());
    let parameters = backers
        .first()
        .and_then(|(name, _)| observed.views.get(*name)?.clock.as_ref())
        .map(|clock| &clock.parameters);
    let next_start = parameters.map_or(0, |parameters| poc_start + parameters.epoch_length);
    let elected = (*poc_start, *epoch, hash.clone());
    votes.dissenters = dissenters(&ballots, &elected, source_height, next_start);
    let height = memory.tip.as_ref().map_or(0, |tip| tip.height);
    let known = memory.anchor.as_ref().is_some_and(|anchor| {
        anchor.poc_start == *poc_start && anchor.epoch == *epoch && anchor.parameters_hash == *hash
    });
    // REST may run ahead of the agreed block: the new epoch begins when its first block is agreed on.
    if known || height < *poc_start {
        return votes;
    }
    if let Some(parameters) = parameters {
        let parameters = ChainParameters {
            source_height,
            ..parameters.clone()
        };
        memory.anchor = Some(Anchor {
            epoch: *epoch,
            poc_start: *poc_start,
            parameters,
            parameters_hash: hash.clone(),
        });
    }
    votes
}

/// Height at or above which a quorum of the voters answered.
fn quorum_height(voters: &[(&str, i64)], quorum: usize) -> i64 {
    let mut heights: Vec<i64> = voters.iter().map(|(_, height)| *height).collect();
    heights.sort_unstable_by(|one, other| other.cmp(one));
    heights.get(quorum - 1).copied().unwrap_or_default()
}

/// Those who answered at or after the elected answer's height, and said something else. Being first to see the next epoch
/// is no dissent.
fn dissenters(
    ballots: &BTreeMap<Ballot, Vec<(&str, i64)>>,
    elected: &Ballot,
    source_height: i64,
    next_start: i64,
) -> Vec<String> {
    ballots
        .iter()
        .filter(|(ballot, _)| *ballot != elected && (ballot.0, ballot.1) != (next_start, elected.1 + 1))
        .flat_map(|(_, voters)| voters)
        .filter(|(_, height)| *height >= source_height)
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

/// The epoch `height` lies in: the anchored one, or through the Sprint that follows it, the next by arithmetic. Later than
/// that an anchor proves nothing.
pub(super) fn at(anchor: &Anchor, height: i64) -> Option<Epoch> {
    let stages = heights::stages(anchor.poc_start, &anchor.parameters);
    let epoch = |index, stages| Epoch {
        index,
        stages,
        parameters: anchor.parameters.clone(),
        parameters_hash: anchor.parameters_hash.clone(),
    };
    if height < stages.poc_start_height {
        return None;
    }
    if height < stages.next_poc_start_height {
        let first = anchor.epoch == 0;
        let stages = if first {
            heights::before_first_sprint(&stages)
        } else {
            stages
        };
        return Some(epoch(anchor.epoch, stages));
    }
    let next = heights::stages(stages.next_poc_start_height, &anchor.parameters);
    (height < next.validation_end_height).then(|| epoch(anchor.epoch + 1, next))
}
