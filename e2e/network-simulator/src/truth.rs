//! What could have been: the weight that a host had physically at hand in an exam, whatever became of it.
//!
//! A unit is one machine's worth of slot. It is available when it was healthy, had its model loaded and could be
//! reached at the block that began or announced the exam; it then could have generated from the first block of
//! generation to the last at the rate it had. No host is credited with more units than it has slots to put them in.
//! Whoever claims that nothing avoidable was lost is held against this number, and only this module computes it.
//!
//! Machines are lost in the middle of exams too: what could be had with what happened meanwhile is [`attainable`].

pub mod attainable;

use crate::{
    dapi::broker,
    exam::{Entry, Exam},
    network::{Conduct, Network},
    noise,
};
use attainable::Look;
use std::collections::BTreeMap;

/// One machine's worth of slot, as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks of one unit")]
pub struct Unit {
    /// Who it is, for as long as it keeps its memory: after a loss of power it is another.
    pub id: String,
    /// The node it serves; nothing for a spare.
    pub node_id: Option<String>,
    /// The model it has, or would have to load.
    pub model: String,
    /// Nonces in 1000 seconds, in this exam.
    pub rate_milli: u64,
    pub healthy: bool,
    pub loaded: bool,
    pub reachable: bool,
    /// It has a slot, or somebody could give it one now, for all that anybody knows of it.
    pub assignable: bool,
}

impl Unit {
    fn is_available(&self) -> bool {
        self.healthy && self.loaded && self.reachable
    }
}

/// A place for a unit: a registered node that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    node_id: String,
    model: String,
}

/// The units of our host at the block that began or announced an exam, the slots there were for them, and what became
/// of the units in generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    pub stage_height: i64,
    slots: Vec<Slot>,
    units: Vec<Unit>,
    looks: Vec<Look>,
}

impl Survey {
    /// As things stand: nodes that DAPI has work and that are not left on inference are the slots.
    pub fn new(net: &Network, stage_height: i64, units: Vec<Unit>) -> Self {
        let preserved = net.preserved.nodes.get(&net.ours);
        let is_preserved = |id: &str| preserved.is_some_and(|ids| ids.iter().any(|known| known == id));
        let slots = net
            .dapi
            .nodes
            .iter()
            .filter(|node| broker::is_operational(net, node) && !is_preserved(&node.spec.id))
            .filter_map(|node| {
                Some(Slot {
                    node_id: node.spec.id.clone(),
                    model: node.model()?.clone(),
                })
            });
        Self {
            stage_height,
            slots: slots.collect(),
            units,
            looks: Vec::new(),
        }
    }

    /// Rate per node. The fastest units fill the slots, each its own first; spares take what is left over.
    fn rates(&self) -> BTreeMap<&str, u64> {
        let mut by_model: BTreeMap<&str, Vec<&Slot>> = BTreeMap::new();
        for slot in &self.slots {
            by_model.entry(&slot.model).or_default().push(slot);
        }
        let mut rates = BTreeMap::new();
        for (model, slots) in by_model {
            let mut units: Vec<&Unit> = self
                .units
                .iter()
                .filter(|unit| unit.model == model && unit.is_available())
                .collect();
            units.sort_by_key(|unit| (std::cmp::Reverse(unit.rate_milli), unit.node_id.is_none()));
            units.truncate(slots.len());
            let known: std::collections::BTreeSet<&str> = slots.iter().map(|slot| slot.node_id.as_str()).collect();
            let (own, mut spare): (Vec<&Unit>, Vec<&Unit>) = units
                .into_iter()
                .partition(|unit| unit.node_id.as_deref().is_some_and(|id| known.contains(id)));
            for unit in own {
                let Some(id) = unit.node_id.as_deref() else { continue };
                if rates.contains_key(id) {
                    spare.push(unit);
                } else {
                    rates.insert(id, unit.rate_milli);
                }
            }
            let empty: Vec<&str> = slots
                .iter()
                .map(|slot| slot.node_id.as_str())
                .filter(|id| !rates.contains_key(id))
                .collect();
            rates.extend(empty.into_iter().zip(spare.iter().map(|unit| unit.rate_milli)));
        }
        rates
    }
}

/// Nonces per node id and model that a host could have had in an exam; nothing where nobody knows what was there.
pub fn available(net: &Network, exam: &Exam, host: usize) -> Option<BTreeMap<String, (String, u64)>> {
    let entry = exam.entries.get(host)?;
    let ms = exam.generation_ended_ms.saturating_sub(exam.started_ms);
    match net.hosts.get(host)?.conduct {
        Conduct::Simulated(_) => Some(simulated(entry, ms)),
        Conduct::External => {
            let survey = survey_of(net, exam)?;
            let models: BTreeMap<&str, &str> = survey
                .slots
                .iter()
                .map(|slot| (slot.node_id.as_str(), slot.model.as_str()))
                .collect();
            let counts = survey.rates().into_iter().map(|(id, rate)| {
                let model = models.get(id).copied().unwrap_or_default();
                (id.to_owned(), (model.to_owned(), noise::nonces(rate, ms)))
            });
            Some(counts.collect())
        }
    }
}

fn survey_of<'a>(net: &'a Network, exam: &Exam) -> Option<&'a Survey> {
    let survey = net.survey.as_ref();
    survey.filter(|survey| survey.stage_height == exam.window.stage_height)
}

/// A simulated host's nodes are always well.
fn simulated(entry: &Entry, ms: u64) -> BTreeMap<String, (String, u64)> {
    entry
        .nodes
        .iter()
        .filter(|node| !entry.preserved.contains(&node.node_id))
        .map(|node| {
            let count = noise::nonces(node.rate_milli, ms);
            (node.node_id.clone(), (node.model.clone(), count))
        })
        .collect()
}

#[cfg(test)]
mod tests;
