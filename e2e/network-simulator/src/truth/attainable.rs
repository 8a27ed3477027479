//! What could have been with what happened: an observation of our units in, nonces per model out.
//!
//! [`super::available`] takes a machine that is lost in the middle of an exam as if it had stayed. `attainable` is what the
//! same host could have had with a perfect, instantaneous reaction and nothing more: at each moment of generation the
//! fastest units that could generate then, no more of them than there were slots, at their rates; the sum over generation.
//!
//! At a moment a unit could generate for a slot when
//!
//! * it was healthy and had its model loaded: an engine that has to load again counts once it is loaded;
//! * it could have been told: it was reachable at some moment since DAPI first asked one of our nodes to start, and has not
//!   lost its memory since. DAPI asks at the exam's first block; where it was down, or not awake yet, when it came;
//! * it had the slot already, or somebody could have given it one: whoever needs an object written for that cannot while nobody
//!   takes writes, and what was worked on is nobody's to examine before it has shown what it computes. Both bind the fastest
//!   reaction: it has no other means, and does not know what nobody knows;
//! * it could have delivered: at that moment or a later one of generation it was reachable, with what it had in memory,
//!   while DAPI took callbacks. What a machine generates behind a cut cable counts when the cable is in again in time, and
//!   is lost when it is not, or when the machine loses its power first.
//!
//! What DAPI does physically bounds this number, because nobody outside can do better: while it answers no callback (down,
//! its port stopped, silent, or answering with errors) only what is delivered afterwards counts, and nothing does that was
//! generated after it fell silent for good; before it has asked nobody generates. A chain that stands prolongs generation and
//! is counted as it was. What could be made good at once by who reacts is no bound: registrations that DAPI lost, nodes that it disabled
//! in memory, and a start that it tries again a block later. The slots are those of the survey, nodes left on inference
//! excepted. The end of generation bounds delivery; when DAPI happens to commit does not.
//!
//! A unit's rate is the greatest it had in the exam up to then. Simulated hosts' units are always well: for them, and in
//! exams in which nothing happens, `attainable` is what was available.

use super::{Survey, Unit, survey_of};
use crate::{
    exam::Exam,
    network::{Conduct, Network},
};
use std::collections::{BTreeMap, BTreeSet};

/// Nonces in 1000 seconds, times milliseconds, in a nonce.
const MILLI_MILLIS: u128 = 1_000_000;

/// How things are from one moment of generation until the next look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    at_ms: u64,
    /// DAPI takes callbacks.
    takes: bool,
    units: Vec<Unit>,
}

/// Notes what is physically there from now on in the generation under way.
pub fn look(net: &mut Network, units: Vec<Unit>) {
    let look = Look {
        at_ms: net.now_ms,
        takes: net.takes_callbacks(),
        units,
    };
    let stage_height = net.exam.as_ref().map(|exam| exam.window.stage_height);
    let survey = net.survey.as_mut();
    if let Some(survey) = survey.filter(|survey| Some(survey.stage_height) == stage_height) {
        survey.looks.retain(|known| known.at_ms < look.at_ms);
        survey.looks.push(look);
    }
}

/// Nonces per model that a host could have had with what happened; nothing where nobody looked.
pub fn of<'a>(net: &'a Network, exam: &Exam, host: usize) -> Option<BTreeMap<&'a str, u64>> {
    if net.hosts.get(host)?.conduct != Conduct::External {
        return None;
    }
    let survey = survey_of(net, exam).filter(|survey| !survey.looks.is_empty())?;
    let from_ms = exam.asked_ms.unwrap_or(u64::MAX);
    Some(survey.attainable(from_ms, exam.generation_ended_ms))
}

impl Survey {
    /// Nonces per model between the moment DAPI first asked and the end of generation.
    fn attainable(&self, from_ms: u64, until_ms: u64) -> BTreeMap<&str, u64> {
        let mut slots: BTreeMap<&str, usize> = BTreeMap::new();
        for slot in &self.slots {
            *slots.entry(&slot.model).or_default() += 1;
        }
        let ends = self.looks.iter().skip(1).map(|look| look.at_ms).chain([until_ms]);
        let spans: Vec<u64> = self
            .looks
            .iter()
            .zip(ends)
            .map(|(look, end)| end.min(until_ms).saturating_sub(look.at_ms.max(from_ms)))
            .collect();
        let deliverable = self.deliverable();
        let mut told: BTreeSet<&str> = BTreeSet::new();
        let mut rates: BTreeMap<&str, u64> = BTreeMap::new();
        let mut made: BTreeMap<(&str, &str), u128> = BTreeMap::new();
        for ((look, ms), deliverable) in self.looks.iter().zip(spans).zip(&deliverable) {
            told.retain(|id| look.units.iter().any(|unit| unit.id == *id));
            let reached = look.units.iter().filter(|unit| unit.reachable && ms > 0);
            told.extend(reached.map(|unit| unit.id.as_str()));
            for unit in &look.units {
                let rate = rates.entry(&unit.id).or_default();
                *rate = unit.rate_milli.max(*rate);
            }
            for (model, most) in &slots {
                let mut able: Vec<(u64, &str)> = look
                    .units
                    .iter()
                    .filter(|unit| unit.model == *model && unit.healthy && unit.loaded && unit.assignable)
                    .map(|unit| unit.id.as_str())
                    .filter(|id| told.contains(id) && deliverable.contains(id))
                    .map(|id| (rates.get(id).copied().unwrap_or_default(), id))
                    .collect();
                able.sort_by_key(|(rate, id)| (std::cmp::Reverse(*rate), *id));
                for (rate, id) in able.into_iter().take(*most) {
                    *made.entry((model, id)).or_default() += u128::from(rate) * u128::from(ms);
                }
            }
        }
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for ((model, _), made) in made {
            *counts.entry(model).or_default() += u64::try_from(made / MILLI_MILLIS).unwrap_or(u64::MAX);
        }
        counts
    }

    /// Per look the units whose nonces of that time could still be delivered: then, or later out of the same memory.
    fn deliverable(&self) -> Vec<BTreeSet<&str>> {
        let mut later: BTreeSet<&str> = BTreeSet::new();
        let mut all = Vec::with_capacity(self.looks.len());
        for look in self.looks.iter().rev() {
            let units = look.units.iter();
            let ids = units.filter(|unit| look.takes && unit.reachable || later.contains(unit.id.as_str()));
            later = ids.map(|unit| unit.id.as_str()).collect();
            all.push(later.clone());
        }
        all.reverse();
        all
    }
}

#[cfg(test)]
mod tests;
