//! Box 3: what should be written outside and said in status. Pure and infallible.

use crds::GonkaHostStatus;
use crds::conditions::{ConditionStatus, ConditionType, Reason};
use serde::{Deserialize, Serialize};

use super::observed::Observed;
use super::plan::{self, DapiWrite, Plan};
use super::status;
use super::validate;

/// Between passes while nodes are being added or put right.
const NEXT_MILLIS: u64 = 1000;
/// So long before a Sprint DAPI is looked at as often as in it: what it lost can still be given back.
const LAST_MINUTE_MILLIS: i64 = 60_000;
/// Between passes while an exam runs: a database that is lost then costs nonces by the second.
const EXAM_MILLIS: u64 = 5_000;
/// Between passes while DAPI does not answer: soon after its restart it is compared again.
const UNREACHABLE_MILLIS: u64 = 5000;

/// What to do. Carried out in this order: writes, status, notices.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// Writes to DAPI.
    pub writes: Vec<DapiWrite>,
    /// The status when all of them succeed.
    pub status: GonkaHostStatus,
    /// Events when all of them succeed.
    pub notices: Vec<Saying>,
    /// When to look again without a change.
    pub requeue_millis: u64,
}

/// An Event about the host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Saying {
    /// True = Warning.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// One sentence for people.
    pub note: String,
}

/// Decides.
pub fn decide(observed: &Observed) -> Desired {
    let problems = validate::problems(observed);
    let resync = observed.resync_seconds.max(1) * 1000;
    if !problems.is_empty() {
        let status = status::rejected(observed, &problems);
        let notices = transition(observed, &status, ConditionType::Accepted, ConditionStatus::False);
        return Desired {
            writes: Vec::new(),
            status,
            notices,
            requeue_millis: resync,
        };
    }
    let moved = observed
        .host
        .status
        .as_ref()
        .and_then(|status| status.install_id.clone());
    let stranger = moved.filter(|id| !id.is_empty() && *id != observed.install_id);
    let plan = observed.nodes.value.as_ref().map(|nodes| plan::plan(observed, nodes));
    let writes = match &plan {
        Some(plan) if stranger.is_none() => plan.writes.clone(),
        _ => Vec::new(),
    };
    let status = status::status(observed, plan.as_ref(), stranger.as_deref());
    let mut notices = Vec::new();
    if let Some(plan) = plan.as_ref().filter(|_| !writes.is_empty()) {
        notices.extend(repairs(plan));
    }
    for (kind, bad) in [
        (ConditionType::NetworkNodeSynced, ConditionStatus::Unknown),
        (ConditionType::SprintReady, ConditionStatus::False),
        (ConditionType::Stalled, ConditionStatus::True),
    ] {
        notices.extend(transition(observed, &status, kind, bad));
    }
    Desired {
        requeue_millis: requeue(observed, plan.as_ref(), resync),
        writes,
        status,
        notices,
    }
}

fn requeue(observed: &Observed, plan: Option<&Plan>, resync: u64) -> u64 {
    let Some(plan) = plan else {
        return UNREACHABLE_MILLIS.min(resync);
    };
    let facts = &observed.facts;
    let left = facts
        .next_poc_start()
        .and_then(|height| facts.millis_until(height, observed.now_ms));
    let near = left.is_some_and(|millis| (0..=LAST_MINUTE_MILLIS).contains(&millis));
    let resync = if near || facts.exam.is_some() {
        EXAM_MILLIS.min(resync)
    } else {
        resync
    };
    // What was told before and is still to be written did not take: then there is no hurry.
    let before = observed.host.status.iter().flat_map(|status| &status.conditions);
    let told: Vec<&str> = before
        .filter(|condition| condition.type_ == ConditionType::NetworkNodeSynced.to_string())
        .map(|condition| condition.message.as_str())
        .collect();
    let news = |what: &String| !told.iter().any(|message| message.contains(what.as_str()));
    if plan.additions.iter().chain(&plan.repairs).any(news) {
        NEXT_MILLIS.min(resync)
    } else {
        resync
    }
}

/// An Event when DAPI begins to refuse writes.
pub fn refusal(observed: &Observed, failure: &str) -> Option<Saying> {
    let failed = Reason::ApplyFailed.to_string();
    let before = observed.host.status.iter().flat_map(|status| &status.conditions);
    let known = before
        .filter(|condition| condition.type_ == ConditionType::NetworkNodeSynced.to_string())
        .any(|condition| condition.reason == failed);
    (!known).then(|| Saying {
        warning: true,
        reason: failed,
        note: failure.to_owned(),
    })
}

fn repairs(plan: &Plan) -> Vec<Saying> {
    let mut notices = Vec::new();
    let again = plan.additions.iter().filter(|what| what.ends_with("is gone"));
    let repaired: Vec<String> = plan.repairs.iter().chain(again).cloned().collect();
    if !repaired.is_empty() {
        notices.push(Saying {
            warning: false,
            reason: Reason::DriftRepaired.to_string(),
            note: status::bounded(&repaired, 1000),
        });
    }
    let new: Vec<String> = plan
        .additions
        .iter()
        .filter(|what| !what.ends_with("is gone"))
        .cloned()
        .collect();
    if !new.is_empty() {
        notices.push(Saying {
            warning: false,
            reason: "NodeRegistered".to_owned(),
            note: format!("added to DAPI: {}", status::bounded(&new, 1000)),
        });
    }
    notices
}

/// A Warning when a condition turns bad, nothing while it stays so.
fn transition(observed: &Observed, status: &GonkaHostStatus, kind: ConditionType, bad: ConditionStatus) -> Vec<Saying> {
    let kind = kind.to_string();
    let bad = bad.to_string();
    let before = observed
        .host
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .find(|condition| condition.type_ == kind);
    let now = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == bad);
    match (before, now) {
        (Some(before), Some(_)) if before.status == bad => Vec::new(),
        (None, Some(now)) if now.reason == Reason::NotObserved.to_string() => Vec::new(),
        (_, Some(now)) => {
            vec![Saying {
                warning: true,
                reason: now.reason.clone(),
                note: format!("{kind} is {bad}: {}", now.message),
            }]
        }
        (_, None) => Vec::new(),
    }
}

/// The status to write once the writes were tried: absent when it says what is there already.
pub fn settle(observed: &Observed, desired: &Desired, failure: Option<&str>) -> Option<GonkaHostStatus> {
    let mut status = desired.status.clone();
    if let Some(failure) = failure {
        status::refused(observed, &mut status, failure);
    }
    (observed.host.status.as_ref() != Some(&status)).then_some(status)
}
