//! Exams and upgrades: what is announced or runs.

use std::collections::BTreeMap;

use crds::references::ExamKind;

use super::{Epoch, Memory, Observed};
use crate::chain::answers::{Clock, Event, Vote};
use crate::chain::heights;
use crate::facts::Exam;

/// What endpoints say of a confirmation.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// The event that is believed.
    pub(super) event: Option<Event>,
    /// Newest height at which a quorum said whether there is one.
    pub(super) known_at: Option<i64>,
}

fn clocks<'a>(observed: &Observed<'a>) -> Vec<&'a Clock> {
    observed
        .spec
        .endpoints
        .iter()
        .filter_map(|endpoint| observed.views.get(&endpoint.name))
        .filter(|view| view.chain_id == observed.spec.chain_id)
        .filter_map(|view| view.live_clock())
        .collect()
}

/// A confirmation is believed from the first endpoint that reports it until a quorum contradicts it: two blocks of notice
/// leave no time for a vote, and a false one can only make us more careful.
pub(super) fn confirmation(observed: &Observed<'_>, tip: i64) -> Confirmation {
    let clocks = clocks(observed);
    let quorum = observed.quorum();
    let mut heights: Vec<i64> = clocks.iter().map(|clock| clock.height).collect();
    heights.sort_unstable_by(|one, other| other.cmp(one));
    let event = clocks
        .iter()
        .filter_map(|clock| clock.event.as_ref())
        .filter(|event| event.trigger_height <= tip + 5)
        .filter(|event| {
            let same = |clock: &Clock| {
                clock
                    .event
                    .as_ref()
                    .is_some_and(|other| other.trigger_height == event.trigger_height)
            };
            let supporters = clocks.iter().filter(|clock| same(clock)).count();
            let against = clocks
                .iter()
                .filter(|clock| clock.height >= event.trigger_height && !same(clock))
                .count();
            supporters >= quorum || against < quorum
        })
        .max_by_key(|event| event.trigger_height)
        .map(|event| Event {
            seed: seed(&clocks, event.trigger_height),
            ..event.clone()
        });
    Confirmation {
        event,
        known_at: heights.get(quorum - 1).copied(),
    }
}

/// The seed most endpoints report; empty while none does or as many report another.
fn seed(clocks: &[&Clock], trigger: i64) -> String {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for event in clocks.iter().filter_map(|clock| clock.event.as_ref()) {
        if event.trigger_height == trigger && !event.seed.is_empty() {
            *votes.entry(&event.seed).or_default() += 1;
        }
    }
    let most = votes.values().copied().max().unwrap_or_default();
    let mut leaders = votes.iter().filter(|(_, count)| **count == most);
    match (leaders.next(), leaders.next()) {
        (Some((seed, _)), None) => (*seed).to_owned(),
        _ => String::new(),
    }
}

/// The Sprint until its validation ends, else the believed confirmation.
pub(super) fn current(
    memory: &Memory,
    observed: &Observed<'_>,
    epoch: Option<&Epoch>,
    confirmation: &Confirmation,
    height: i64,
) -> Option<Exam> {
    let epoch = epoch?;
    let stages = &epoch.stages;
    let mut exam = if (stages.poc_start_height..stages.validation_end_height).contains(&height) {
        let seed = memory
            .seed
            .as_ref()
            .filter(|(start, _)| *start == stages.poc_start_height);
        Exam {
            seed: seed.map(|(_, hash)| hash.clone()).unwrap_or_default(),
            ..heights::sprint(stages)
        }
    } else {
        heights::confirmation(confirmation.event.as_ref()?, &epoch.parameters)
    };
    exam.preserved_node_ids = preserved(observed, &exam);
    Some(exam)
}

/// Nodes a quorum says stay on inference in this exam. Nobody is excused by a single endpoint.
fn preserved(observed: &Observed<'_>, exam: &Exam) -> Vec<String> {
    let mut votes: BTreeMap<&[String], usize> = BTreeMap::new();
    for (_, view) in observed.counting() {
        let Some(snapshot) = &view.preserved else { continue };
        let belongs = match exam.kind {
            ExamKind::Sprint => snapshot.anchor_height == exam.generation_start_height,
            ExamKind::Confirmation | ExamKind::Challenge | ExamKind::Unknown => {
                (exam.trigger_height..=exam.generation_start_height).contains(&snapshot.anchor_height)
            }
        };
        if belongs {
            *votes.entry(&snapshot.node_ids).or_default() += 1;
        }
    }
    votes
        .into_iter()
        .find(|(_, count)| *count >= observed.quorum())
        .map(|(ids, _)| ids.to_vec())
        .unwrap_or_default()
}

/// Upgrades that a quorum says are voted on, the nearest first. Nothing is held back for them: a false one costs a line.
pub(super) fn votes(observed: &Observed<'_>) -> Vec<Vote> {
    let mut told: BTreeMap<&Vote, usize> = BTreeMap::new();
    for vote in observed.counting().flat_map(|(_, view)| &view.votes) {
        *told.entry(vote).or_default() += 1;
    }
    told.retain(|_, count| *count >= observed.quorum());
    let mut agreed: Vec<Vote> = told.into_keys().cloned().collect();
    agreed.sort_by_key(|vote| (vote.height, vote.proposal));
    agreed
}

/// A plan is believed until a quorum contradicts it; once its height has passed it is kept as long as it protects, since
/// the chain forgets a plan it has carried out.
pub(super) fn remember_upgrade(memory: &mut Memory, observed: &Observed<'_>, height: i64) {
    let window = memory
        .anchor
        .as_ref()
        .map_or(0, |anchor| anchor.parameters.upgrade_protection_window);
    let views: Vec<_> = observed.counting().map(|(_, view)| view).collect();
    let plan = views
        .iter()
        .filter_map(|view| view.plan.as_ref()?.as_ref())
        .filter(|plan| {
            let against = views
                .iter()
                .filter(|view| view.plan.as_ref().is_some_and(|other| other.as_ref() != Some(plan)))
                .count();
            against < observed.quorum()
        })
        .min_by_key(|plan| plan.height);
    if let Some(plan) = plan {
        memory.upgrade = Some(plan.clone());
        return;
    }
    let none = views.iter().filter(|view| view.plan == Some(None)).count();
    let over = |done: i64| height > done.saturating_add(window);
    memory.upgrade = memory.upgrade.take().filter(|plan| {
        let cancelled = height < plan.height && none >= observed.quorum();
        !cancelled && !over(plan.height)
    });
    if memory.upgrade.is_none() {
        let done = views.iter().filter_map(|view| view.last_upgrade).max();
        memory.upgrade =
            done.filter(|done| *done <= height && !over(*done))
                .map(|done| crds::sprint_schedule::UpgradePlan {
                    name: "done".to_owned(),
                    height: done,
                });
    }
}
