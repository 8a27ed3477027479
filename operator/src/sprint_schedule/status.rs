//! The status facts make. Pure.

use std::collections::BTreeMap;

use crds::SprintSchedule;
use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::references::Window;
use crds::sprint_schedule::{
    ActiveExam, CalendarEntry, EndpointState, EndpointStatus, SprintScheduleStatus, UpgradeVote,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::chain::answers::Vote;
use crate::chain::window::calendar;
use crate::conditions::{Conditions, whole_seconds};
use crate::facts::{EndpointFact, Facts};

/// How far the calendar reaches.
const CALENDAR_MILLIS: i64 = 7 * 24 * 3_600_000;
/// Windows the status has room for.
const CALENDAR_ENTRIES: usize = 64;

/// The status as facts have it now.
pub fn desired(
    object: &SprintSchedule,
    facts: &Facts,
    reasons: &[String],
    now_ms: i64,
    now: &Time,
) -> SprintScheduleStatus {
    let before = object.status.as_ref();
    let known = facts.height > 0;
    let heights = facts.heights.as_ref();
    let next_sprint = heights.and_then(|heights| facts.predict(heights.next_poc_start_height));
    let next_green = facts.next_green_height.and_then(|height| facts.predict(height));
    let pace = facts.pace;
    let conditions = conditions(object, facts, reasons, now_ms);
    let previous = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    SprintScheduleStatus {
        observed_generation: object.metadata.generation,
        epoch: heights.map(|_| facts.epoch),
        stage: facts.stage,
        window: facts.window,
        poc_start_height: heights.map(|heights| heights.poc_start_height),
        next_poc_start_height: heights.map(|heights| heights.next_poc_start_height),
        stage_heights: facts.heights.clone(),
        next_sprint_time: next_sprint.map(|prediction| whole_seconds(prediction.time_ms)),
        next_sprint_error_seconds: next_sprint.map(|prediction| (prediction.error_ms + 999) / 1000),
        block_millis: (pace.block_millis > 0.0).then(|| pace.block_millis.round() as i64),
        block_spread_millis: (pace.block_millis > 0.0).then(|| pace.spread_millis.round() as i64),
        green_until_height: facts.green_until_height,
        next_green_time: next_green.map(|prediction| whole_seconds(prediction.time_ms)),
        calendar: calendar_of(facts, i64::from(object.spec.margins.ready_by_seconds) * 1000),
        parameters: facts.parameters.clone(),
        parameters_hash: Some(facts.parameters_hash.clone()).filter(|hash| !hash.is_empty()),
        active_exam: facts.exam.as_ref().filter(|_| known).map(|exam| ActiveExam {
            kind: exam.kind,
            trigger_height: exam.trigger_height,
            generation_start_height: exam.generation_start_height,
            end_height: exam.generation_end_height,
            seed: Some(exam.seed.clone()).filter(|seed| !seed.is_empty()),
        }),
        upgrade_plan: facts.upgrade.clone(),
        upgrade_votes: facts.votes.iter().map(vote).collect(),
        endpoints: facts.endpoints.iter().map(endpoint).collect(),
        conditions: conditions.render(object.metadata.generation, now, previous),
    }
}

fn calendar_of(facts: &Facts, ready_by_millis: i64) -> Vec<CalendarEntry> {
    calendar::ahead(facts, ready_by_millis, CALENDAR_MILLIS, CALENDAR_ENTRIES)
        .into_iter()
        .filter_map(|interval| {
            let (from, until) = (
                facts.predict(interval.from_height)?,
                facts.predict(interval.until_height + 1)?,
            );
            Some(CalendarEntry {
                window: interval.window,
                from_height: interval.from_height,
                until_height: interval.until_height,
                from_time: whole_seconds(from.time_ms),
                until_time: whole_seconds(until.time_ms),
                error_seconds: (until.error_ms + 999) / 1000,
                if_passed: interval.if_passed,
            })
        })
        .collect()
}

fn vote(vote: &Vote) -> UpgradeVote {
    UpgradeVote {
        proposal: vote.proposal,
        name: vote.name.clone(),
        height: vote.height,
        voting_end_time: vote.ends_ms.map(whole_seconds),
    }
}

fn endpoint(fact: &EndpointFact) -> EndpointStatus {
    EndpointStatus {
        name: fact.name.clone(),
        state: fact.state,
        message: Some(fact.message.clone()).filter(|message| !message.is_empty()),
        since_time: (fact.since_ms > 0).then(|| whole_seconds(fact.since_ms)),
    }
}

fn conditions(object: &SprintSchedule, facts: &Facts, reasons: &[String], now_ms: i64) -> Conditions {
    let mut conditions = Conditions::unknown(&SprintSchedule::CONDITIONS);
    if reasons.is_empty() {
        conditions.set_true(ConditionType::Accepted, "");
    } else {
        conditions.set_false(ConditionType::Accepted, Reason::InvalidSpec, reasons.join("; "));
    }
    let agree = agreement(&mut conditions, object, facts);
    let parameters = parameters(&mut conditions, facts);
    let synced = synced(&mut conditions, facts, agree, now_ms);
    ready(
        &mut conditions,
        facts,
        !reasons.is_empty(),
        agree && parameters && synced,
    );
    conditions
}

/// Endpoints that are not up, as `name (State)`.
fn ailing(facts: &Facts) -> String {
    let named: Vec<String> = facts
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.state != EndpointState::Up)
        .map(|endpoint| format!("{} ({})", endpoint.name, endpoint.state))
        .collect();
    named.join(", ")
}

fn agreement(conditions: &mut Conditions, object: &SprintSchedule, facts: &Facts) -> bool {
    let kind = ConditionType::EndpointsAgree;
    let read = facts
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.state != EndpointState::Unknown)
        .count();
    if facts.quorum {
        let ailing = ailing(facts);
        let message = if ailing.is_empty() {
            String::new()
        } else {
            format!("a quorum of {} stands without {ailing}", object.spec.quorum)
        };
        conditions.set_true(kind, message);
        return true;
    }
    if read == 0 {
        conditions.set(
            kind,
            ConditionStatus::Unknown,
            Reason::Pending,
            "no endpoint was read yet",
        );
        return false;
    }
    let any = |state: EndpointState| facts.endpoints.iter().any(|endpoint| endpoint.state == state);
    let split = facts
        .problems
        .iter()
        .any(|problem| problem.contains("different blocks"));
    let reason = if split || any(EndpointState::Disagrees) {
        Reason::EndpointsDisagree
    } else if any(EndpointState::WrongChain) {
        Reason::WrongChainID
    } else {
        Reason::QuorumLost
    };
    conditions.set_false(kind, reason, facts.problems.join("; "));
    false
}

fn parameters(conditions: &mut Conditions, facts: &Facts) -> bool {
    let kind = ConditionType::ParametersKnown;
    if facts.parameters.is_some() {
        conditions.set_true(kind, "");
        return true;
    }
    let strange = facts
        .endpoints
        .iter()
        .any(|endpoint| endpoint.state == EndpointState::ShapeUnknown);
    if strange {
        conditions.set_false(
            kind,
            Reason::ShapeUnknown,
            format!("answers have a shape this version does not know: {}", shapes(facts)),
        );
    } else if facts.height == 0 {
        conditions.set(kind, ConditionStatus::Unknown, Reason::Pending, "not read yet");
    } else {
        conditions.set_false(kind, Reason::ChainUnknown, facts.problems.join("; "));
    }
    false
}

fn shapes(facts: &Facts) -> String {
    let named: BTreeMap<&str, &str> = facts
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.state == EndpointState::ShapeUnknown)
        .map(|endpoint| (endpoint.name.as_str(), endpoint.message.as_str()))
        .collect();
    let named: Vec<String> = named
        .iter()
        .map(|(name, message)| format!("{name}: {message}"))
        .collect();
    named.join("; ")
}

fn synced(conditions: &mut Conditions, facts: &Facts, agree: bool, now_ms: i64) -> bool {
    let kind = ConditionType::Synced;
    if facts.height == 0 {
        conditions.set(
            kind,
            ConditionStatus::Unknown,
            Reason::Pending,
            "no block was agreed on yet",
        );
        return false;
    }
    if facts.is_stale(now_ms) {
        let (reason, message) = if agree {
            (Reason::Halted, "no new block for ten blocks' time")
        } else {
            (Reason::ChainUnknown, "no quorum, no new block")
        };
        conditions.set_false(kind, reason, message);
        return false;
    }
    conditions.set_true(kind, "");
    true
}

fn ready(conditions: &mut Conditions, facts: &Facts, invalid: bool, whole: bool) {
    let (ready, stalled, reconciling) = (ConditionType::Ready, ConditionType::Stalled, ConditionType::Reconciling);
    if invalid {
        conditions.set_false(
            ready,
            Reason::InvalidSpec,
            "see Accepted; the last valid spec is read on",
        );
        conditions.set(stalled, ConditionStatus::True, Reason::InvalidSpec, "see Accepted");
        conditions.set_false(reconciling, Reason::InvalidSpec, "see Accepted");
        return;
    }
    conditions.set_false(stalled, Reason::AsExpected, "");
    if whole && facts.window != Window::Unknown {
        conditions.set_true(ready, "");
        conditions.set_false(reconciling, Reason::AsExpected, "");
    } else {
        conditions.set_false(ready, Reason::ChainUnknown, facts.problems.join("; "));
        conditions.set(
            reconciling,
            ConditionStatus::True,
            Reason::InProgress,
            "endpoints are asked again all the time",
        );
    }
}

/// Keeps estimates that moved less than is worth a write, so that a quiet chain makes a quiet object.
pub fn steady(before: &SprintScheduleStatus, mut after: SprintScheduleStatus, now_ms: i64) -> SprintScheduleStatus {
    let close = |old: Option<&Time>, new: Option<&Time>, longest_ms: i64| match (old, new) {
        (Some(old), Some(new)) => {
            let (old, new) = (old.0.as_millisecond(), new.0.as_millisecond());
            (old - new).abs() <= ((new - now_ms).abs() / 100).clamp(2000, longest_ms)
        }
        _ => false,
    };
    if close(
        before.next_sprint_time.as_ref(),
        after.next_sprint_time.as_ref(),
        30_000,
    ) {
        after.next_sprint_time.clone_from(&before.next_sprint_time);
        after.next_sprint_error_seconds = before.next_sprint_error_seconds;
    }
    if close(before.next_green_time.as_ref(), after.next_green_time.as_ref(), 30_000) {
        after.next_green_time.clone_from(&before.next_green_time);
    }
    let same_plan = |(old, new): (&CalendarEntry, &CalendarEntry)| {
        (old.window, old.if_passed) == (new.window, new.if_passed)
            && close(Some(&old.until_time), Some(&new.until_time), 3_600_000)
    };
    if before.calendar.len() == after.calendar.len() && before.calendar.iter().zip(&after.calendar).all(same_plan) {
        after.calendar.clone_from(&before.calendar);
    }
    let near = |old: Option<i64>, new: Option<i64>, of: Option<i64>| match (old, new, of) {
        (Some(old), Some(new), Some(of)) => (old - new).abs() * 50 <= of.max(1),
        _ => false,
    };
    if near(before.block_millis, after.block_millis, after.block_millis)
        && near(
            before.block_spread_millis,
            after.block_spread_millis,
            after.block_millis,
        )
    {
        after.block_millis = before.block_millis;
        after.block_spread_millis = before.block_spread_millis;
    }
    after
}
