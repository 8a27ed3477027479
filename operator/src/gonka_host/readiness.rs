//! Box 3: whether the next exam will be passed, from evidence, with every reason. Pure.

use std::collections::BTreeMap;

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::model_deployment::{SlotState, SlotStatus};
use crds::references::Window;

use super::contradiction;
use super::observed::Observed;
use super::plan::Plan;
use super::slots::{self, Slot};
use super::status::bounded;
use crate::conditions::Conditions;
use crate::few::few;

/// Blocks DAPI may be behind the chain: it hears of each block itself.
const MAX_DAPI_LAG: i64 = 3;
const MAX_MESSAGE: usize = 4000;

/// One reason against the next exam.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// As in conditions.
    pub reason: Reason,
    /// For people.
    pub text: String,
    /// False when it is not known rather than bad.
    pub certain: bool,
}

fn bad(reason: Reason, text: impl Into<String>) -> Fault {
    Fault {
        reason,
        text: text.into(),
        certain: true,
    }
}

fn unknown(reason: Reason, text: impl Into<String>) -> Fault {
    Fault {
        reason,
        text: text.into(),
        certain: false,
    }
}

/// Sets `SprintReady` and `Ready`.
pub fn set(observed: &Observed, plan: Option<&Plan>, conditions: &mut Conditions) {
    let faults = faults(observed, plan, conditions);
    let texts: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.reason, fault.text))
        .collect();
    let text = bounded(&texts, MAX_MESSAGE);
    match faults.iter().find(|fault| fault.certain).or_else(|| faults.first()) {
        None => {
            let slots = slots::slots(observed).len();
            conditions.set_true(ConditionType::SprintReady, format!("{slots} slots will pass"));
        }
        Some(fault) if fault.certain => conditions.set_false(ConditionType::SprintReady, fault.reason, text),
        Some(fault) => conditions.set(ConditionType::SprintReady, ConditionStatus::Unknown, fault.reason, text),
    }
    let ready = [
        ConditionType::Accepted,
        ConditionType::NetworkNodeSynced,
        ConditionType::NodesRegistered,
    ];
    let missing: Vec<String> = ready
        .into_iter()
        .filter(|kind| conditions.status(*kind) != ConditionStatus::True)
        .map(|kind| format!("{kind} is {}", conditions.status(kind)))
        .collect();
    if let Some(reason) = conditions.reason_if(ConditionType::Stalled, ConditionStatus::True) {
        conditions.set_false(ConditionType::Ready, reason, "see Stalled");
    } else if observed.nodes.value.is_none() {
        conditions.set(
            ConditionType::Ready,
            ConditionStatus::Unknown,
            Reason::Unreachable,
            "DAPI did not answer",
        );
    } else if missing.is_empty() {
        conditions.set_true(ConditionType::Ready, "");
    } else {
        conditions.set_false(ConditionType::Ready, Reason::InProgress, missing.join("; "));
    }
}

/// Every reason, most telling first.
pub fn faults(observed: &Observed, plan: Option<&Plan>, conditions: &Conditions) -> Vec<Fault> {
    let mut faults = Vec::new();
    if conditions.status(ConditionType::FeesPayable) == ConditionStatus::False {
        faults.push(bad(
            Reason::FeesUnpayable,
            "commits will be refused; renew the fee grant of the cold account",
        ));
    }
    let slots = slots::slots(observed);
    if slots.is_empty() {
        faults.push(unknown(
            Reason::NotObserved,
            "no ModelDeployment registers a slot with this host",
        ));
    }
    faults.extend(slot_faults(observed, &slots));
    faults.extend(registration_faults(observed, plan, &slots));
    faults.extend(network_faults(observed));
    faults
}

/// Slots that are not ready, grouped by reason.
fn slot_faults(observed: &Observed, slots: &[Slot]) -> Vec<Fault> {
    let mut by_reason: BTreeMap<Reason, Vec<String>> = BTreeMap::new();
    let mut unknown_slots = Vec::new();
    for slot in slots {
        let seen = slot_status(observed, slot);
        match seen.map(|seen| seen.state) {
            Some(SlotState::SprintReady | SlotState::Generating) => {}
            None | Some(SlotState::Unknown) => unknown_slots.push(slot.label()),
            Some(state) => {
                let reasons: Vec<Reason> = seen
                    .into_iter()
                    .flat_map(|seen| &seen.reasons)
                    .filter_map(|reason| reason.parse().ok())
                    .collect();
                let reasons = if reasons.is_empty() {
                    vec![reason_of(state)]
                } else {
                    reasons
                };
                for reason in reasons {
                    by_reason.entry(reason).or_default().push(slot.label());
                }
            }
        }
    }
    let mut faults: Vec<Fault> = by_reason
        .into_iter()
        .map(|(reason, slots)| bad(reason, format!("slots {}", few(&slots, ", "))))
        .collect();
    if !unknown_slots.is_empty() {
        faults.push(unknown(
            Reason::Pending,
            format!("nothing is known of slots {}", few(&unknown_slots, ", ")),
        ));
    }
    faults
}

fn slot_status<'a>(observed: &'a Observed, slot: &Slot) -> Option<&'a SlotStatus> {
    observed
        .deployments
        .iter()
        .find(|deployment| deployment.metadata.name.as_deref() == Some(&slot.deployment))?
        .status
        .as_ref()?
        .slots
        .iter()
        .find(|seen| seen.index == slot.index)
}

fn reason_of(state: SlotState) -> Reason {
    match state {
        SlotState::Unassigned => Reason::SlotUnassigned,
        SlotState::Unreachable => Reason::Unreachable,
        SlotState::Starting | SlotState::Assigned => Reason::NotRehearsed,
        SlotState::SprintReady | SlotState::Generating | SlotState::Unknown => Reason::Pending,
    }
}

fn registration_faults(observed: &Observed, plan: Option<&Plan>, slots: &[Slot]) -> Vec<Fault> {
    let Some(plan) = plan else {
        return vec![unknown(Reason::Unreachable, "DAPI did not answer")];
    };
    let mut faults = Vec::new();
    if plan.unregistered > 0 {
        let text = format!(
            "{} of {} slots are not registered with DAPI",
            plan.unregistered,
            slots.len()
        );
        faults.push(bad(Reason::InProgress, text));
    }
    let apart: Vec<String> = plan
        .registrations
        .iter()
        .filter(|entry| {
            entry
                .drift
                .iter()
                .any(|field| field == "host" || field.ends_with("_port"))
        })
        .map(|entry| format!("{}/{}", entry.deployment.name, entry.slot))
        .collect();
    if !apart.is_empty() && plan.repairs.is_empty() {
        faults.push(bad(
            Reason::Observing,
            format!("DAPI has another address for slots {}", few(&apart, ", ")),
        ));
    }
    let disabled: Vec<String> = observed
        .nodes
        .value
        .iter()
        .flatten()
        .filter(|node| node.state.as_ref().is_some_and(|state| !state.enabled))
        .filter(|node| slots.iter().any(|slot| slot.node_id == node.node.id))
        .map(|node| node.node.id.clone())
        .collect();
    if !disabled.is_empty() {
        faults.push(bad(
            Reason::Paused,
            format!("a person disabled nodes {} in DAPI", few(&disabled, ", ")),
        ));
    }
    faults
}

fn network_faults(observed: &Observed) -> Vec<Fault> {
    let mut faults = Vec::new();
    let expected = observed
        .host
        .spec
        .network_node
        .external
        .as_ref()
        .map(|external| &external.expected_callback_url);
    if let Some(expected) = expected
        && !observed.callback_base.is_empty()
        && observed.callback_base.trim_end_matches('/') != expected.trim_end_matches('/')
    {
        let text = format!(
            "DAPI tells slots to call {}, expected is {expected}",
            observed.callback_base
        );
        faults.push(bad(Reason::CallbackUnproven, text));
    }
    let facts = &observed.facts;
    if let Some(height) = observed.dapi_height.value
        && facts.height > 0
        && facts.height - height > MAX_DAPI_LAG
    {
        let text = format!("DAPI is at height {height}, the chain at {}", facts.height);
        faults.push(bad(Reason::Lagging, text));
    }
    if let Some(text) = contradiction::found(observed) {
        faults.push(bad(Reason::WrongChainID, text));
    }
    if observed.window() == Window::Unknown {
        let why = if facts.problems.is_empty() {
            "there are no facts, or they are old".to_owned()
        } else {
            bounded(&facts.problems, 500)
        };
        faults.push(unknown(Reason::ChainUnknown, why));
    }
    faults
}

/// Weight our slots should prove in the next Sprint: rehearsed rates over its length, by the chain's factor for the model.
pub fn expected_weight(observed: &Observed) -> Option<i64> {
    let facts = &observed.facts;
    let parameters = facts.parameters.as_ref()?;
    let minutes = parameters.poc_stage_duration as f64 * facts.pace.block_millis / 60_000.0;
    if minutes <= 0.0 {
        return None;
    }
    let mut weight = None;
    for slot in slots::slots(observed) {
        let Some(rate) = slot_status(observed, &slot).and_then(|seen| seen.nonces_per_minute) else {
            continue;
        };
        let factor = parameters
            .models
            .iter()
            .find(|model| model.model_id == slot.model)
            .and_then(|model| model.weight_scale_factor.as_ref())
            .or_else(|| observed.chain.scales.get(&slot.model))
            .and_then(|factor| factor.parse::<f64>().ok())
            .filter(|factor| factor.is_finite() && *factor >= 0.0)
            .unwrap_or(1.0);
        *weight.get_or_insert(0.0) += rate.max(0) as f64 * minutes * factor;
    }
    weight.map(|weight| weight as i64)
}
