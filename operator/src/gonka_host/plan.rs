//! Box 3: what DAPI should be told about nodes. Pure. DAPI is a cache of our desired state.
//!
//! | node in DAPI | slot in a spec | between exams | in an exam, its validation, or chain unknown |
//! |---|---|---|---|
//! | missing | yes | POST, one a pass, in slot order of its deployment | waits: a new number would change everybody's share |
//! | gone, and the next number is the one it had | yes | POST, in the order of numbers, all in one pass | the same if no node is left: DAPI lost its database |
//! | reachable fields differ (host, ports, segments) | yes | PUT | PUT of these fields alone: the node would miss the exam |
//! | other fields differ (models, max_concurrent) | yes | PUT | waits |
//! | hardware empty, machine known | yes | PUT | waits |
//! | hardware differs | yes | left: DAPI detects devices itself, and a change costs a transaction | left |
//! | ours | no | left: numbers are never given back | left |
//! | not ours | – | left, listed | left, listed |
//! | `<other install>-<deployment of ours>-<n>` | – | nothing is written at all | nothing |
//!
//! There is no DELETE. With `managementPolicy: Observe` the same plan is made, told, and not carried out.

mod additions;

use std::collections::{BTreeMap, BTreeSet};

use crds::gonka_host::{ManagementPolicy, Registration};
use crds::references::{LocalReference, Window};
use serde::{Deserialize, Serialize};

use self::additions::{additions, recorded_numbers, restore};
use super::observed::Observed;
use super::slots::{self, Slot};
use crate::dapi::{NodeSpec, Registered};

/// One write to DAPI.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "method", content = "node", rename_all = "UPPERCASE")]
pub enum DapiWrite {
    /// A node that is not there yet.
    Post(NodeSpec),
    /// A node that is there and differs.
    Put(NodeSpec),
}

impl DapiWrite {
    /// The node.
    pub fn node(&self) -> &NodeSpec {
        match self {
            Self::Post(node) | Self::Put(node) => node,
        }
    }
}

/// What is to be done, what is not done and why, and what DAPI looks like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be carried out now, in order.
    pub writes: Vec<DapiWrite>,
    /// What the writes put right, for people; a new node is not among them.
    pub repairs: Vec<String>,
    /// New nodes among the writes, for people.
    pub additions: Vec<String>,
    /// What would be written but for the policy, for people.
    pub withheld: Vec<String>,
    /// What waits, and for what, for people.
    pub waiting: Vec<String>,
    /// Slots that cannot be registered without help, and why.
    pub blocked: Vec<String>,
    /// Slots as DAPI knows them.
    pub registrations: Vec<Registration>,
    /// Ids that are not ours.
    pub foreign: Vec<String>,
    /// Ids another installation made for deployments that are ours.
    pub another_install: Vec<String>,
    /// Slots without a node.
    pub unregistered: usize,
    /// Node numbers nobody has.
    pub holes: Vec<i32>,
}

/// Whether new nodes and changes that can wait do wait now.
pub fn holds_still(observed: &Observed) -> Option<&'static str> {
    let facts = &observed.facts;
    match observed.window() {
        Window::Unknown => return Some("the chain is not known"),
        Window::Sprint | Window::Confirmation | Window::Validation | Window::Challenge => {
            return Some("an exam runs or is validated");
        }
        Window::Green | Window::Amber | Window::UpgradeFreeze => {}
    }
    let cutoff = facts.heights.as_ref().map(|heights| heights.inference_cutoff_height);
    if facts.exam.is_some() {
        return Some("an exam is announced");
    }
    match cutoff {
        Some(cutoff) if facts.height >= cutoff => Some("a Sprint is about to begin"),
        _ => None,
    }
}

/// Makes the plan from DAPI's nodes.
pub fn plan(observed: &Observed, nodes: &[Registered]) -> Plan {
    let slots = slots::slots(observed);
    let known: BTreeMap<&str, &Registered> = nodes.iter().map(|node| (node.node.id.as_str(), node)).collect();
    let mut plan = Plan {
        holes: holes(nodes),
        ..Plan::default()
    };
    others(observed, &slots, nodes, &mut plan);
    let still = holds_still(observed);
    let numbers = recorded_numbers(observed);
    let taken: BTreeSet<i32> = nodes.iter().map(|node| node.node_num).collect();
    for slot in &slots {
        let node = known.get(slot.node_id.as_str()).copied().filter(|_| !slot.id_taken);
        let drift = node.map_or_else(Vec::new, |node| drift(slot, &node.node));
        let number = numbers
            .get(slot.node_id.as_str())
            .copied()
            .filter(|number| !taken.contains(number));
        plan.registrations.push(registration(slot, node, number, &drift));
        if let Some(node) = node
            && !drift.is_empty()
        {
            repair(slot, &node.node, &drift, still, &mut plan);
        }
    }
    plan.registrations.extend(retired(observed, &slots, nodes));
    plan.registrations.truncate(512);
    let lost_all = nodes.is_empty();
    let restored = if lost_all || still.is_none() {
        restore(observed, &slots, &known, (&numbers, &taken), &mut plan)
    } else {
        BTreeSet::new()
    };
    additions(observed, &slots, (&known, &restored), still, &mut plan);
    if observed.host.spec.management_policy == ManagementPolicy::Observe {
        plan.withheld = describe(&plan);
        plan.writes.clear();
        plan.repairs.clear();
        plan.additions.clear();
    }
    if !plan.another_install.is_empty() {
        plan.writes.clear();
        plan.repairs.clear();
        plan.additions.clear();
    }
    plan
}

fn describe(plan: &Plan) -> Vec<String> {
    plan.additions
        .iter()
        .map(|what| format!("POST {what}"))
        .chain(plan.repairs.iter().map(|what| format!("PUT {what}")))
        .collect()
}

/// Nodes no slot claims: ours of old, somebody else's, or another installation's.
fn others(observed: &Observed, slots: &[Slot], nodes: &[Registered], plan: &mut Plan) {
    let wanted: BTreeSet<&str> = slots.iter().map(|slot| slot.node_id.as_str()).collect();
    let names: BTreeSet<&str> = observed
        .deployments
        .iter()
        .filter_map(|deployment| deployment.metadata.name.as_deref())
        .collect();
    for id in nodes
        .iter()
        .map(|node| node.node.id.as_str())
        .filter(|id| !wanted.contains(id))
    {
        match slots::parse_id(id) {
            Some((install, ..)) if install == observed.install_id => {}
            Some((_, deployment, _)) if names.contains(deployment) => plan.another_install.push(id.to_owned()),
            _ => plan.foreign.push(id.to_owned()),
        }
    }
    plan.foreign.truncate(512);
}

/// The number of a node that is gone is kept: pods go on with it, and the node should get it again.
fn registration(slot: &Slot, node: Option<&Registered>, number: Option<i32>, drift: &[Drift]) -> Registration {
    let mut fields: Vec<String> = drift.iter().map(|drift| drift.field.to_owned()).collect();
    if node.is_none() && number.is_some() {
        fields.push("missing".to_owned());
    }
    fields.truncate(16);
    Registration {
        node_id: slot.node_id.clone(),
        deployment: LocalReference {
            name: slot.deployment.clone(),
        },
        slot: slot.index,
        node_num: node.map_or(number, |node| Some(node.node_num).filter(|number| *number > 0)),
        state: node.and_then(status_of),
        drift: fields,
    }
}

fn status_of(node: &Registered) -> Option<String> {
    let status = &node.state.as_ref()?.current_status;
    (!status.is_empty()).then(|| status.clone())
}

/// Our nodes whose slot no spec asks for any more.
fn retired(observed: &Observed, slots: &[Slot], nodes: &[Registered]) -> Vec<Registration> {
    let wanted: BTreeSet<&str> = slots.iter().map(|slot| slot.node_id.as_str()).collect();
    nodes
        .iter()
        .filter(|node| !wanted.contains(node.node.id.as_str()))
        .filter_map(|node| {
            let (install, deployment, index) = slots::parse_id(&node.node.id)?;
            (install == observed.install_id).then(|| Registration {
                node_id: node.node.id.clone(),
                deployment: LocalReference {
                    name: deployment.to_owned(),
                },
                slot: index,
                node_num: Some(node.node_num).filter(|number| *number > 0),
                state: status_of(node),
                drift: vec!["slot".to_owned()],
            })
        })
        .collect()
}

/// One field that differs.
struct Drift {
    field: &'static str,
    reaches: bool,
    was: String,
}

fn drift(slot: &Slot, node: &NodeSpec) -> Vec<Drift> {
    let mut found = Vec::new();
    let mut differs = |field, reaches, was: String| found.push(Drift { field, reaches, was });
    if let Some(host) = &slot.host
        && *host != node.host
    {
        differs("host", true, node.host.clone());
    }
    for (field, want, have) in [
        ("inference_port", slots::INFERENCE_PORT, node.inference_port),
        ("poc_port", slots::POC_PORT, node.poc_port),
    ] {
        if want != have {
            differs(field, true, have.to_string());
        }
    }
    for (field, have) in [
        ("inference_segment", &node.inference_segment),
        ("poc_segment", &node.poc_segment),
    ] {
        if !have.is_empty() {
            differs(field, true, have.clone());
        }
    }
    if !node.models.keys().eq([&slot.model]) {
        differs(
            "models",
            false,
            node.models.keys().cloned().collect::<Vec<_>>().join(","),
        );
    }
    if node.max_concurrent != slots::MAX_CONCURRENT {
        differs("max_concurrent", false, node.max_concurrent.to_string());
    }
    if node.hardware.is_empty() && !slot.hardware.is_empty() {
        differs("hardware", false, "nothing".to_owned());
    }
    found
}

fn repair(slot: &Slot, node: &NodeSpec, drift: &[Drift], still: Option<&'static str>, plan: &mut Plan) {
    let words = |drift: &[&Drift]| {
        let fields: Vec<String> = drift
            .iter()
            .map(|drift| format!("{} was {:?}", drift.field, drift.was))
            .collect();
        format!("{} ({}): {}", slot.node_id, slot.label(), fields.join(", "))
    };
    let (urgent, calm): (Vec<&Drift>, Vec<&Drift>) = drift.iter().partition(|drift| drift.reaches);
    let mut reachable = NodeSpec {
        host: slot.host.clone().unwrap_or_else(|| node.host.clone()),
        inference_port: slots::INFERENCE_PORT,
        inference_segment: String::new(),
        poc_port: slots::POC_PORT,
        poc_segment: String::new(),
        ..node.clone()
    };
    match still {
        Some(why) => {
            if !calm.is_empty() {
                plan.waiting.push(format!("{}: {why}", words(&calm)));
            }
            if !urgent.is_empty() {
                plan.repairs.push(words(&urgent));
                plan.writes.push(DapiWrite::Put(reachable));
            }
        }
        None => {
            let args = node.models.get(&slot.model).cloned().unwrap_or_default();
            reachable.models = BTreeMap::from([(slot.model.clone(), args)]);
            reachable.max_concurrent = slots::MAX_CONCURRENT;
            if reachable.hardware.is_empty() {
                reachable.hardware.clone_from(&slot.hardware);
            }
            plan.repairs.push(words(&drift.iter().collect::<Vec<_>>()));
            plan.writes.push(DapiWrite::Put(reachable));
        }
    }
}

/// Numbers below the highest that no node has. Numbers begin at 1; 0 is not told.
fn holes(nodes: &[Registered]) -> Vec<i32> {
    let numbers: BTreeSet<i32> = nodes
        .iter()
        .map(|node| node.node_num)
        .filter(|number| *number > 0)
        .collect();
    let highest = numbers.last().copied().unwrap_or(0).min(100_000);
    (1..highest)
        .filter(|number| !numbers.contains(number))
        .take(16)
        .collect()
}
