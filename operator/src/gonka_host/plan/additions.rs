//! Box 3: which nodes DAPI lacks, and which of them are made now. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{DapiWrite, Plan};
use crate::dapi::{NodeSpec, Registered};
use crate::gonka_host::observed::Observed;
use crate::gonka_host::slots::Slot;

/// Numbers DAPI gave our nodes when it was last asked.
pub(super) fn recorded_numbers(observed: &Observed) -> BTreeMap<&str, i32> {
    let registrations = observed.host.status.iter().flat_map(|status| &status.registrations);
    registrations
        .filter_map(|entry| Some((entry.node_id.as_str(), entry.node_num?)))
        .collect()
}

/// Nodes that are gone and will have their old numbers again when they are made in this order: all of them at once. A DAPI
/// that lost every node gets ours in that order even where others had numbers between them.
pub(super) fn restore<'s>(
    observed: &Observed,
    slots: &'s [Slot],
    known: &BTreeMap<&str, &Registered>,
    (numbers, taken): (&BTreeMap<&str, i32>, &BTreeSet<i32>),
    plan: &mut Plan,
) -> BTreeSet<&'s str> {
    let by_number: BTreeMap<i32, &str> = numbers.iter().map(|(id, number)| (*number, *id)).collect();
    let free = slots.iter().filter(|slot| !slot.id_taken);
    let by_id: BTreeMap<&str, &Slot> = free.map(|slot| (slot.node_id.as_str(), slot)).collect();
    let mut next = taken.last().copied().unwrap_or(0).max(0) + 1;
    let mut restored = BTreeSet::new();
    for (number, id) in by_number.range(next..) {
        let slot = by_id.get(id).copied().filter(|_| !known.contains_key(id));
        let gone = slot.and_then(|slot| {
            let node = slot.node().filter(|node| occupant(node, known).is_none())?;
            Some((slot, node))
        });
        match gone {
            Some((slot, node)) if *number == next || taken.is_empty() => {
                restored.insert(slot.node_id.as_str());
                plan.additions.push(addition(observed, slot));
                plan.writes.push(DapiWrite::Post(node));
            }
            None if taken.is_empty() => {}
            _ => break,
        }
        next = number + 1;
    }
    restored
}

/// The next missing node: the first of each deployment, the first of those that can be made.
pub(super) fn additions(
    observed: &Observed,
    slots: &[Slot],
    (known, restored): (&BTreeMap<&str, &Registered>, &BTreeSet<&str>),
    still: Option<&'static str>,
    plan: &mut Plan,
) {
    let missing: Vec<&Slot> = slots
        .iter()
        .filter(|slot| slot.id_taken || !known.contains_key(slot.node_id.as_str()))
        .collect();
    plan.unregistered = missing.len();
    let mut seen = BTreeSet::new();
    // New ones come after those that were there before.
    let mut made = !restored.is_empty();
    for slot in missing {
        if restored.contains(slot.node_id.as_str()) {
            continue;
        }
        let first = seen.insert(slot.deployment.as_str());
        if slot.id_taken {
            plan.blocked.push(format!(
                "{}: another slot already has the node id {}",
                slot.label(),
                slot.node_id
            ));
            continue;
        }
        let Some(node) = slot.node() else {
            if first {
                plan.waiting.push(format!("{}: it has no address yet", slot.label()));
            }
            continue;
        };
        if let Some(other) = occupant(&node, known) {
            plan.blocked
                .push(format!("{}: node {other} already has {}", slot.label(), node.host));
            continue;
        }
        if !first || made {
            continue;
        }
        if let Some(why) = still {
            plan.waiting.push(format!("{}: {why}", slot.label()));
            continue;
        }
        made = true;
        plan.additions.push(addition(observed, slot));
        plan.writes.push(DapiWrite::Post(node));
    }
}

/// A registered node that already has one of the pairs of address and port DAPI wants to be unique.
fn occupant<'a>(node: &NodeSpec, known: &BTreeMap<&'a str, &Registered>) -> Option<&'a str> {
    known
        .iter()
        .find(|(_, other)| {
            let other = &other.node;
            other.host == node.host && (other.inference_port == node.inference_port || other.poc_port == node.poc_port)
        })
        .map(|(id, _)| *id)
}

fn addition(observed: &Observed, slot: &Slot) -> String {
    let before = observed.host.status.iter().flat_map(|status| &status.registrations);
    let was_there = before
        .clone()
        .any(|entry| entry.node_id == slot.node_id && entry.node_num.is_some());
    if was_there {
        format!("{} ({}): it was registered and is gone", slot.node_id, slot.label())
    } else {
        format!("{} ({})", slot.node_id, slot.label())
    }
}
