//! Box 3: what a GonkaHost's status says. Pure.

use std::collections::BTreeMap;

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::gonka_host::{Claim, ClaimState, ManagementPolicy};
use crds::{GonkaHost, GonkaHostStatus};

use super::contradiction;
use super::observed::Observed;
use super::plan::{Plan, holds_still};
use super::readiness;
use super::slots;
use super::validate::Problem;
use crate::conditions::{Conditions, whole_seconds};
use crate::dapi::CheckStatus;

/// Longest message of a condition.
const MAX_MESSAGE: usize = 4000;

/// The status of an accepted host. `stranger` is the installation it belonged to before.
pub fn status(observed: &Observed, plan: Option<&Plan>, stranger: Option<&str>) -> GonkaHostStatus {
    let previous = observed.host.status.clone().unwrap_or_default();
    let known = |value: &Option<i64>, before| value.or(before);
    let (registrations, foreign_nodes) = match plan {
        Some(plan) => (plan.registrations.clone(), plan.foreign.clone()),
        // Not known now: what was known stays, as the condition says since when it is old.
        None => (previous.registrations.clone(), previous.foreign_nodes.clone()),
    };
    let mut status = GonkaHostStatus {
        observed_generation: observed.host.metadata.generation,
        install_id: Some(stranger.unwrap_or(&observed.install_id).to_owned()),
        window: observed.window(),
        weight: known(&observed.chain.weight.value, previous.weight),
        expected_weight: quantised(readiness::expected_weight(observed), previous.expected_weight),
        callback_url: Some(observed.callback_base.clone())
            .filter(|base| !base.is_empty())
            .or(previous.callback_url),
        registrations,
        foreign_nodes,
        claims: claims(observed, &previous.claims),
        last_exams: observed.exams.clone(),
        conditions: Vec::new(),
    };
    let mut conditions = Conditions::unknown(&GonkaHost::CONDITIONS);
    conditions.set_true(ConditionType::Accepted, "");
    synced(observed, plan, stranger, &mut conditions);
    registered(observed, plan, stranger, &mut conditions);
    money(observed, &status, &mut conditions);
    progress(observed, plan, stranger, &mut conditions);
    readiness::set(observed, plan, &mut conditions);
    status.conditions = conditions.render(
        observed.host.metadata.generation,
        &whole_seconds(observed.now_ms),
        &previous.conditions,
    );
    status
}

/// The status of a host that is not accepted: what was known stays as it was.
pub fn rejected(observed: &Observed, problems: &[Problem]) -> GonkaHostStatus {
    let mut status = observed.host.status.clone().unwrap_or_default();
    let reason = problems.first().map_or(Reason::InvalidSpec, |problem| problem.reason);
    let reason = if problems.iter().any(|problem| problem.reason == Reason::InvalidSpec) {
        Reason::InvalidSpec
    } else {
        reason
    };
    let texts: Vec<String> = problems.iter().map(|problem| problem.text.clone()).collect();
    let text = bounded(&texts, MAX_MESSAGE);
    let mut conditions = Conditions::unknown(&[]);
    conditions.set_false(ConditionType::Accepted, reason, &text);
    conditions.set_false(
        ConditionType::Ready,
        reason,
        "the spec is not accepted; nothing is changed until it is",
    );
    conditions.set_false(ConditionType::Reconciling, reason, "");
    conditions.set(
        ConditionType::Stalled,
        ConditionStatus::True,
        reason,
        "the spec must be changed",
    );
    let generation = observed.host.metadata.generation;
    let mut rendered = conditions.render(generation, &whole_seconds(observed.now_ms), &status.conditions);
    let mut all = Conditions::unknown(&GonkaHost::CONDITIONS).render(
        generation,
        &whole_seconds(observed.now_ms),
        &status.conditions,
    );
    for condition in &mut all {
        let before = status.conditions.iter().find(|other| other.type_ == condition.type_);
        if let Some(newer) = rendered.iter_mut().find(|other| other.type_ == condition.type_) {
            *condition = newer.clone();
        } else if let Some(before) = before {
            *condition = before.clone();
        }
    }
    status.conditions = all;
    status.observed_generation = generation;
    status
}

/// A write to DAPI was refused: say which, and take back what was said in hope.
pub fn refused(observed: &Observed, status: &mut GonkaHostStatus, failure: &str) {
    let previous = observed
        .host
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let mut conditions = Conditions::unknown(&[]);
    conditions.set_false(ConditionType::NetworkNodeSynced, Reason::ApplyFailed, failure);
    conditions.set_false(
        ConditionType::Ready,
        Reason::ApplyFailed,
        "DAPI refused a write; see NetworkNodeSynced",
    );
    for condition in conditions.render(status.observed_generation, &whole_seconds(observed.now_ms), previous) {
        if let Some(there) = status
            .conditions
            .iter_mut()
            .find(|there| there.type_ == condition.type_)
        {
            *there = condition;
        }
    }
}

/// Items joined by `; `, cut with a count of the rest.
pub fn bounded(items: &[String], limit: usize) -> String {
    let mut text = String::new();
    for (position, item) in items.iter().enumerate() {
        if text.len() + item.len() + 32 > limit && position > 0 {
            text.push_str(&format!("; and {} more", items.len() - position));
            return text;
        }
        if position > 0 {
            text.push_str("; ");
        }
        text.extend(item.chars().take(limit));
    }
    text
}

fn synced(observed: &Observed, plan: Option<&Plan>, stranger: Option<&str>, conditions: &mut Conditions) {
    let kind = ConditionType::NetworkNodeSynced;
    if let Some(stranger) = stranger {
        let text = format!("nothing is written: these slots belong to installation {stranger}");
        conditions.set_false(kind, Reason::OwnedByAnotherInstall, text);
        return;
    }
    let Some(plan) = plan else {
        let failure = &observed.nodes.failure;
        let detail = if failure.is_empty() {
            "DAPI's nodes were not read yet"
        } else {
            failure
        };
        conditions.set(kind, ConditionStatus::Unknown, Reason::Unreachable, detail);
        return;
    };
    if observed.host.spec.management_policy == ManagementPolicy::Observe {
        if plan.withheld.is_empty() {
            conditions.set(
                kind,
                ConditionStatus::True,
                Reason::Observing,
                "nothing would be written",
            );
        } else {
            let withheld = bounded(&plan.withheld, MAX_MESSAGE);
            let text = format!("managementPolicy is Observe; Manage would write: {withheld}");
            conditions.set_false(kind, Reason::Observing, text);
        }
        return;
    }
    if !plan.another_install.is_empty() {
        conditions.set_false(
            kind,
            Reason::OwnedByAnotherInstall,
            bounded(&plan.another_install, MAX_MESSAGE),
        );
    } else if !plan.repairs.is_empty() {
        let text = format!("put right: {}", bounded(&plan.repairs, MAX_MESSAGE));
        conditions.set(kind, ConditionStatus::True, Reason::DriftRepaired, text);
    } else if !plan.additions.is_empty() {
        let text = format!("being added: {}", bounded(&plan.additions, MAX_MESSAGE));
        conditions.set_false(kind, Reason::InProgress, text);
    } else if !plan.waiting.is_empty() {
        conditions.set_false(kind, waiting_reason(observed), bounded(&plan.waiting, MAX_MESSAGE));
    } else if !plan.blocked.is_empty() {
        conditions.set_false(kind, Reason::ForeignNode, bounded(&plan.blocked, MAX_MESSAGE));
    } else {
        in_order(observed, conditions);
    }
}

/// The last repair stays readable until something else happens.
fn in_order(observed: &Observed, conditions: &mut Conditions) {
    let kind = ConditionType::NetworkNodeSynced;
    let repaired = Reason::DriftRepaired.to_string();
    let before = observed
        .host
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .find(|one| one.type_ == kind.to_string() && one.status == "True" && one.reason == repaired);
    match before {
        Some(before) => conditions.set(
            kind,
            ConditionStatus::True,
            Reason::DriftRepaired,
            before.message.clone(),
        ),
        None => conditions.set_true(kind, ""),
    }
}

fn waiting_reason(observed: &Observed) -> Reason {
    if holds_still(observed).is_some() {
        Reason::WaitingForWindow
    } else {
        Reason::InProgress
    }
}

fn registered(observed: &Observed, plan: Option<&Plan>, stranger: Option<&str>, conditions: &mut Conditions) {
    let kind = ConditionType::NodesRegistered;
    if let Some(stranger) = stranger {
        conditions.set_false(
            kind,
            Reason::OwnedByAnotherInstall,
            format!("installation {stranger} registered these slots"),
        );
        return;
    }
    let Some(plan) = plan else {
        conditions.set(
            kind,
            ConditionStatus::Unknown,
            Reason::Unreachable,
            "DAPI did not answer",
        );
        return;
    };
    let slots = slots::slots(observed).len();
    if !plan.another_install.is_empty() {
        let text = format!(
            "nodes of another installation carry names of our deployments: {}; remove them from DAPI or rename the deployments",
            bounded(&plan.another_install, MAX_MESSAGE)
        );
        conditions.set_false(kind, Reason::OwnedByAnotherInstall, text);
    } else if !plan.blocked.is_empty() {
        conditions.set_false(kind, Reason::ForeignNode, bounded(&plan.blocked, MAX_MESSAGE));
    } else if plan.unregistered > 0 {
        let text = format!("{} of {slots} slots registered", slots - plan.unregistered);
        let observing = observed.host.spec.management_policy == ManagementPolicy::Observe;
        let reason = if observing {
            Reason::Observing
        } else {
            Reason::InProgress
        };
        conditions.set_false(kind, reason, text);
    } else if !plan.holes.is_empty() {
        let text = format!(
            "no node has number {:?}; their share of the nonces stays unused until DAPI is restarted, outside exams",
            plan.holes
        );
        conditions.set_false(kind, Reason::NumberingHole, text);
    } else {
        let foreign = plan.foreign.len();
        conditions.set_true(
            kind,
            format!("{slots} slots registered; {foreign} nodes of others are left alone"),
        );
    }
}

fn money(observed: &Observed, status: &GonkaHostStatus, conditions: &mut Conditions) {
    let report = observed.report.value.as_ref();
    for (kind, id, bad) in [
        (ConditionType::FeesPayable, "feegrant_allowance", Reason::FeesUnpayable),
        (
            ConditionType::GrantsCurrent,
            "permissions_granted",
            Reason::GrantsMissing,
        ),
    ] {
        match report.and_then(|report| report.check(id)) {
            Some(check) if check.status == CheckStatus::Pass => conditions.set_true(kind, check.message.clone()),
            Some(check) if check.status == CheckStatus::Fail => conditions.set_false(kind, bad, check.message.clone()),
            Some(check) => {
                conditions.set(
                    kind,
                    ConditionStatus::Unknown,
                    Reason::NotObserved,
                    check.message.clone(),
                );
            }
            None if observed.report.failure.is_empty() => {}
            None => conditions.set(
                kind,
                ConditionStatus::Unknown,
                Reason::Unreachable,
                observed.report.failure.clone(),
            ),
        }
    }
    let kind = ConditionType::ClaimsCurrent;
    let Some(claim) = status.claims.first() else {
        return;
    };
    let amount = claim.amount_ngonka.as_deref().unwrap_or("an unknown amount of");
    let text = format!("epoch {}: {amount} ngonka", claim.epoch);
    match claim.state {
        ClaimState::Claimed => conditions.set_true(kind, format!("{text} claimed")),
        ClaimState::Open => conditions.set(
            kind,
            ConditionStatus::Unknown,
            Reason::Pending,
            format!("{text} settled and not claimed yet; DAPI claims by itself until the next epoch is settled"),
        ),
        ClaimState::Lost => conditions.set_false(kind, Reason::ClaimLost, format!("{text} were not claimed in time")),
        ClaimState::Unknown => {}
    }
}

fn progress(observed: &Observed, plan: Option<&Plan>, stranger: Option<&str>, conditions: &mut Conditions) {
    use crds::conditions::ConditionStatus::True;
    let another: Vec<String> = plan.map(|plan| plan.another_install.clone()).unwrap_or_default();
    if let Some(stranger) = stranger {
        let text = format!(
            "this object was made by installation {stranger}, we are {}; clear status.installId once the other one is gone",
            observed.install_id
        );
        conditions.set(ConditionType::Stalled, True, Reason::OwnedByAnotherInstall, text);
    } else if !another.is_empty() {
        let text = bounded(&another, MAX_MESSAGE);
        conditions.set(ConditionType::Stalled, True, Reason::OwnedByAnotherInstall, text);
    } else if let Some(text) = contradiction::found(observed) {
        conditions.set(ConditionType::Stalled, True, Reason::BreakerTripped, text);
    } else {
        conditions.set_false(ConditionType::Stalled, Reason::AsExpected, "");
    }
    let under_way = plan.is_some_and(|plan| !plan.writes.is_empty() || !plan.waiting.is_empty());
    if under_way && stranger.is_none() {
        let texts = plan.map(|plan| plan.waiting.clone()).unwrap_or_default();
        let reason = if texts.is_empty() {
            Reason::InProgress
        } else {
            waiting_reason(observed)
        };
        conditions.set(ConditionType::Reconciling, True, reason, bounded(&texts, MAX_MESSAGE));
    } else {
        conditions.set_false(ConditionType::Reconciling, Reason::AsExpected, "");
    }
}

/// The value that was told before, while the new one is within 2 % of it: a pace that breathes is no news.
fn quantised(new: Option<i64>, before: Option<i64>) -> Option<i64> {
    match (new, before) {
        (Some(new), Some(before)) if (new - before).abs() * 50 <= before.abs() => Some(before),
        (Some(new), _) => Some(new),
        (None, _) => None,
    }
}

/// Rewards by epoch: settled ones are open, until claimed or until the next epoch was settled.
fn claims(observed: &Observed, before: &[Claim]) -> Vec<Claim> {
    let mut claims: BTreeMap<i64, Claim> = before.iter().map(|claim| (claim.epoch, claim.clone())).collect();
    let chain = &observed.chain;
    if let Some(Some(settlement)) = &chain.settlement.value {
        let claim = Claim {
            epoch: settlement.epoch,
            state: ClaimState::Open,
            amount_ngonka: Some(settlement.amount.to_string()),
        };
        claims.insert(settlement.epoch, claim);
    }
    for (epoch, summary) in chain
        .summaries
        .value
        .iter()
        .flatten()
        .filter(|(_, summary)| summary.claimed)
    {
        let claim = Claim {
            epoch: *epoch,
            state: ClaimState::Claimed,
            amount_ngonka: Some(summary.amount.to_string()),
        };
        claims.insert(*epoch, claim);
    }
    let open = chain
        .settlement
        .value
        .as_ref()
        .map(|open| open.as_ref().map_or(i64::MIN, |open| open.epoch));
    let newest = observed.facts.epoch;
    for claim in claims.values_mut().filter(|claim| claim.state == ClaimState::Open) {
        // Epoch n is claimed while n + 1 is newest; with n + 2 settled, it is too late.
        if newest > claim.epoch + 1 && open.is_some_and(|open| open != claim.epoch) {
            claim.state = ClaimState::Lost;
        }
    }
    claims.into_values().rev().take(8).collect()
}
