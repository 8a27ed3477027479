//! Box 3, decide: from what every endpoint says to what is believed. Pure; the clock comes in.

mod anchor;
mod endpoints;
mod exam;
mod tip;

use std::collections::BTreeMap;

use crds::references::{ExamKind, Window};
use crds::sprint_schedule::{ChainParameters, EndpointState, SprintScheduleSpec, StageHeights, UpgradePlan};
use serde::{Deserialize, Serialize};

use super::heights;
use super::pace::PaceMemory;
use super::view::View;
use super::window::{Clearance, Inputs, clearance};
use crate::facts::{Exam, Facts};

/// What is kept between decisions; anchor, upgrade and pace also across restarts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    /// Epoch and parameters a quorum agreed on last.
    pub anchor: Option<Anchor>,
    /// Upgrade that is planned, or was done and still protects.
    pub upgrade: Option<UpgradePlan>,
    /// Pace of blocks.
    pub pace: PaceMemory,
    /// Newest agreed block.
    #[serde(skip)]
    pub tip: Option<Tip>,
    /// Start and hash of the present Sprint.
    pub seed: Option<(i64, String)>,
    /// Height asked for to learn the pace quickly.
    #[serde(skip)]
    pub pace_from: Option<i64>,
    /// State of each endpoint and since when, Unix milliseconds.
    #[serde(skip)]
    pub endpoints: BTreeMap<String, (EndpointState, i64)>,
}

/// Where the epoch is anchored.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Anchor {
    /// Index of the epoch.
    pub epoch: i64,
    /// Start of its Sprint.
    pub poc_start: i64,
    /// Parameters.
    pub parameters: ChainParameters,
    /// Their hash.
    pub parameters_hash: String,
}

/// A block a quorum agrees on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tip {
    /// Height.
    pub height: i64,
    /// Hash, case kept.
    pub hash: String,
    /// Header time, Unix milliseconds.
    pub time_ms: i64,
    /// When a quorum was first seen to agree, Unix milliseconds.
    pub observed_ms: i64,
    /// Endpoints that report it.
    pub agreeing: u32,
}

/// What the endpoints should be asked beside their newest block and clock.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Heights of older blocks.
    pub blocks: Vec<i64>,
    /// The preserved nodes of an exam.
    pub preserved: bool,
}

/// A decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// To keep.
    pub memory: Memory,
    /// To publish.
    pub facts: Facts,
    /// To ask.
    pub wanted: Wanted,
}

/// The chain as the endpoints see it.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Name of the SprintSchedule.
    pub schedule: &'a str,
    /// Its spec.
    pub spec: &'a SprintScheduleSpec,
    /// What each endpoint said, by name.
    pub views: &'a BTreeMap<String, View>,
    /// The clock, Unix milliseconds.
    pub now_ms: i64,
}

impl<'a> Observed<'a> {
    fn quorum(self) -> usize {
        usize::try_from(self.spec.quorum).unwrap_or(1).max(1)
    }

    /// Views of endpoints on the right chain, answering, and still in the spec.
    fn counting(self) -> impl Iterator<Item = (&'a str, &'a View)> {
        self.spec.endpoints.iter().filter_map(move |endpoint| {
            let view = self.views.get(&endpoint.name)?;
            view.counts(&self.spec.chain_id)
                .then_some((endpoint.name.as_str(), view))
        })
    }
}

/// Decides what is believed now.
pub fn decide(memory: &Memory, observed: &Observed<'_>) -> Decision {
    let mut next = memory.clone();
    tip::advance(&mut next, observed);
    let anchor_votes = anchor::adopt(&mut next, observed);
    let height = next.tip.as_ref().map_or(0, |tip| tip.height);
    let epoch = next.anchor.as_ref().and_then(|anchor| anchor::at(anchor, height));
    remember_seed(&mut next, observed, epoch.as_ref());
    exam::remember_upgrade(&mut next, observed, height);
    let endpoints = endpoints::judge(&mut next, observed, &anchor_votes);
    let quorum = endpoints::quorum(&next, observed, &endpoints);

    let mut facts = Facts {
        schedule: observed.schedule.to_owned(),
        chain_id: observed.spec.chain_id.clone(),
        pace: next.pace.pace(),
        upgrade: next.upgrade.clone(),
        votes: exam::votes(observed),
        quorum: quorum.is_ok(),
        endpoints,
        ..Facts::default()
    };
    facts.problems.extend(quorum.err());
    if let Some(tip) = &next.tip {
        facts.height = tip.height;
        facts.block_hash.clone_from(&tip.hash);
        facts.block_time_ms = tip.time_ms;
        facts.observed_ms = tip.observed_ms;
        facts.agreeing = tip.agreeing;
    }
    let confirmation = exam::confirmation(observed, height);
    place(&mut facts, epoch.as_ref());
    facts.exam = exam::current(&next, observed, epoch.as_ref(), &confirmation, height);
    let clearance = permit(&facts, observed, epoch.as_ref(), confirmation.known_at);
    facts.window = clearance.window;
    facts.green_until_height = clearance.green_until_height;
    facts.next_green_height = clearance.next_green_height;
    explain(&mut facts, &anchor_votes, observed.now_ms);

    let wanted = wanted(&mut next, epoch.as_ref(), facts.exam.as_ref());
    Decision {
        memory: next,
        facts,
        wanted,
    }
}

/// The epoch a height lies in.
#[derive(Clone, Debug)]
struct Epoch {
    index: i64,
    stages: StageHeights,
    parameters: ChainParameters,
    parameters_hash: String,
}

fn place(facts: &mut Facts, epoch: Option<&Epoch>) {
    let Some(epoch) = epoch else { return };
    facts.epoch = epoch.index;
    facts.stage = heights::stage(facts.height, &epoch.stages);
    facts.heights = Some(epoch.stages.clone());
    facts.parameters = Some(epoch.parameters.clone());
    facts.parameters_hash.clone_from(&epoch.parameters_hash);
}

/// The window, from facts that a quorum backs and that are fresh; `Unknown` otherwise.
fn permit(facts: &Facts, observed: &Observed<'_>, epoch: Option<&Epoch>, known_at: Option<i64>) -> Clearance {
    let Some(epoch) = epoch.filter(|_| facts.quorum && !facts.is_stale(observed.now_ms)) else {
        return Clearance::default();
    };
    let is_confirmation = |exam: &&Exam| exam.kind != ExamKind::Sprint;
    clearance(Some(&Inputs {
        height: facts.height,
        stages: &epoch.stages,
        parameters: &epoch.parameters,
        confirmation: facts.exam.as_ref().filter(is_confirmation),
        confirmation_known_at: known_at,
        upgrade_height: facts.upgrade.as_ref().map(|plan| plan.height),
        pace: facts.pace,
        ready_by_millis: i64::from(observed.spec.margins.ready_by_seconds) * 1000,
    }))
}

/// Problems in words, for people and conditions.
fn explain(facts: &mut Facts, votes: &anchor::Votes, now_ms: i64) {
    if facts.height > 0 && facts.is_stale(now_ms) {
        facts.problems.push("no new block is agreed on".to_owned());
    }
    if facts.heights.is_none() {
        facts.problems.push(match &votes.problem {
            Some(problem) => format!("the epoch's parameters are not known: {problem}"),
            None => "the epoch's parameters are not known: fewer endpoints than the quorum agree on them".to_owned(),
        });
    }
    if facts.window == Window::Unknown && facts.problems.is_empty() {
        facts
            .problems
            .push("no quorum says whether a confirmation is announced".to_owned());
    }
}

/// The hash of the block a Sprint starts with is its seed; it is known the moment the block is agreed on.
fn remember_seed(memory: &mut Memory, observed: &Observed<'_>, epoch: Option<&Epoch>) {
    let Some(start) = epoch
        .map(|epoch| epoch.stages.poc_start_height)
        .filter(|start| *start > 0)
    else {
        return;
    };
    if memory.seed.as_ref().is_some_and(|(height, _)| *height == start) {
        return;
    }
    memory.seed = tip::agreed_at(observed, start).map(|block| (start, block.hash.clone()));
}

fn wanted(memory: &mut Memory, epoch: Option<&Epoch>, exam: Option<&Exam>) -> Wanted {
    let mut blocks = Vec::new();
    let Some(tip) = &memory.tip else {
        return Wanted::default();
    };
    if let Some(epoch) = epoch {
        let start = epoch.stages.poc_start_height;
        let running = tip.height >= start && tip.height < epoch.stages.validation_end_height;
        if running && memory.seed.as_ref().is_none_or(|(height, _)| *height != start) {
            blocks.push(start);
        }
    }
    if memory.pace.samples == 0 {
        let height = tip.height;
        let from = *memory
            .pace_from
            .get_or_insert_with(|| (height - tip::PACE_BLOCKS).max(1));
        blocks.push(from);
    }
    let preserved =
        exam.is_some_and(|exam| exam.preserved_node_ids.is_empty() && tip.height <= exam.validation_start_height);
    Wanted { blocks, preserved }
}

#[cfg(test)]
mod tests;
