//! What each endpoint is good for, by name, and whether a quorum stands.

use crds::sprint_schedule::EndpointState;

use super::anchor::Votes;
use super::{Memory, Observed, tip};
use crate::chain::view::{Failure, View};
use crate::facts::EndpointFact;

/// Blocks an endpoint may be behind or ahead of the quorum.
const LAG: i64 = 2;
const AHEAD: i64 = 5;
/// REST may be this far behind blocks, ten of them at least.
const REST_MILLIS: f64 = 10_000.0;
/// A split that lasts this long is no race between two endpoints.
const SPLIT_MILLIS: i64 = 3000;

/// Judges every endpoint of the spec.
pub(super) fn judge(memory: &mut Memory, observed: &Observed<'_>, votes: &Votes) -> Vec<EndpointFact> {
    let facts: Vec<EndpointFact> = observed
        .spec
        .endpoints
        .iter()
        .map(|endpoint| {
            let view = observed.views.get(&endpoint.name);
            let (state, message) = view.map_or((EndpointState::Unknown, String::new()), |view| {
                state(memory, observed, view, votes.dissenters.contains(&endpoint.name))
            });
            let since_ms = match memory.endpoints.get(&endpoint.name) {
                Some((before, since)) if *before == state => *since,
                _ => observed.now_ms,
            };
            EndpointFact {
                name: endpoint.name.clone(),
                state,
                height: view.and_then(View::newest).map_or(0, |block| block.height),
                message,
                since_ms,
            }
        })
        .collect();
    memory.endpoints = facts
        .iter()
        .map(|fact| (fact.name.clone(), (fact.state, fact.since_ms)))
        .collect();
    facts
}

fn failed(door: &str, failure: &Failure) -> (EndpointState, String) {
    match failure {
        Failure::Unreachable(why) => (EndpointState::Unreachable, format!("{door}: {why}")),
        Failure::Shape(why) => (EndpointState::ShapeUnknown, format!("{door}: {why}")),
    }
}

fn state(memory: &Memory, observed: &Observed<'_>, view: &View, dissents: bool) -> (EndpointState, String) {
    if let Some(fault) = block_fault(memory, observed, view) {
        return fault;
    }
    if let Some(failure) = view.rest.failing() {
        return failed("REST", failure);
    }
    if dissents {
        return (
            EndpointState::Disagrees,
            "REST: reports another epoch or other parameters than the quorum".to_owned(),
        );
    }
    let Some(clock) = &view.clock else {
        return (EndpointState::Unknown, "REST: not read yet".to_owned());
    };
    let patience = (REST_MILLIS / memory.pace.mean.max(1.0)).max(10.0) as i64;
    if memory
        .tip
        .as_ref()
        .is_some_and(|tip| clock.height < tip.height - patience)
    {
        return (EndpointState::Lagging, "REST: is behind the quorum".to_owned());
    }
    (EndpointState::Up, String::new())
}

/// What keeps an endpoint's blocks from being counted.
fn block_fault(memory: &Memory, observed: &Observed<'_>, view: &View) -> Option<(EndpointState, String)> {
    if let Some(failure) = view.rpc.failing() {
        return Some(failed("RPC", failure));
    }
    let Some(newest) = view.newest() else {
        return Some((EndpointState::Unknown, "RPC: not read yet".to_owned()));
    };
    if view.chain_id != observed.spec.chain_id {
        let message = format!("serves chain {}, not {}", view.chain_id, observed.spec.chain_id);
        return Some((EndpointState::WrongChain, message));
    }
    if contradicts(observed, view) {
        return Some((
            EndpointState::Disagrees,
            "reports another block than the quorum at the same height".to_owned(),
        ));
    }
    let tip = memory.tip.as_ref()?;
    if newest.height > tip.height + AHEAD {
        return Some((
            EndpointState::Disagrees,
            "reports heights that no quorum confirms".to_owned(),
        ));
    }
    // On quick test networks a few blocks pass within one poll.
    let per_poll = (2000.0 / memory.pace.mean.max(1.0)).min(20.0) as i64;
    if view.catching_up || newest.height < tip.height - LAG.max(per_poll) {
        return Some((EndpointState::Lagging, "is behind the quorum".to_owned()));
    }
    None
}

fn contradicts(observed: &Observed<'_>, view: &View) -> bool {
    let counting: Vec<&View> = observed.counting().map(|(_, other)| other).collect();
    // Votes are counted only where somebody says otherwise.
    let disputed = |height: i64, hash: &str| {
        let mut others = counting.iter().filter_map(|other| other.block(height));
        others.any(|other| other.hash != hash)
    };
    view.recent.iter().any(|(height, block)| {
        disputed(*height, &block.hash)
            && tip::agreed_at(observed, *height).is_some_and(|agreed| agreed.hash != block.hash)
    })
}

/// Whether enough endpoints stand behind the newest block; else why not, with names.
pub(super) fn quorum(memory: &Memory, observed: &Observed<'_>, endpoints: &[EndpointFact]) -> Result<(), String> {
    let tip = memory.tip.as_ref();
    let above = tip.map_or(0, |tip| tip.height);
    let waiting = tip.map_or(i64::MAX, |tip| observed.now_ms - tip.observed_ms);
    let patience = SPLIT_MILLIS.max((3.0 * memory.pace.mean) as i64);
    if waiting > patience && tip::conflict(observed, above) {
        return Err("endpoints report different blocks at the same height, and none has a quorum".to_owned());
    }
    let standing = observed
        .counting()
        .filter(|(_, view)| block_fault(memory, observed, view).is_none())
        .count();
    if tip.is_some() && standing >= observed.quorum() {
        return Ok(());
    }
    let named: Vec<String> = endpoints
        .iter()
        .filter(|fact| fact.state != EndpointState::Up)
        .map(|fact| format!("{} ({})", fact.name, fact.state))
        .collect();
    Err(format!(
        "fewer endpoints than the quorum of {} can be counted: {}",
        observed.quorum(),
        named.join(", ")
    ))
}
