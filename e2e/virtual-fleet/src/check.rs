//! What must hold, whatever happens. A violation is noted with its moment; a run that has one has failed.

pub mod machines;
pub mod seals;
pub mod weight;

use std::collections::{BTreeMap, BTreeSet};

use network_simulator::virtual_time::door::Door;
use operator::change::Change;
use operator::facts::Facts;
use operator::gate::{Action, ActionKind, HostState, Verdict, verdict};
use serde::Serialize;
use serde_json::json;

use crate::ground::{Ground, deleted_pod};
use crate::operator::Controller;
use crate::store::{Id, Kind};

/// Two pods that everybody reaches may both believe that they hold a slot for so long: the old one is told as soon as it is heard.
const OVERLAP_MS: i64 = 20_000;

/// Something that must not be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Milliseconds from the beginning of the run.
    pub at: i64,
    /// Which rule.
    pub rule: Rule,
    /// What was seen.
    pub what: String,
}

/// What must hold.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, strum::Display)]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// One generation of a slot is one pod's, for ever.
    OnePodPerGeneration,
    /// Two pods that can be reached do not hold one slot for long.
    OneHolder,
    /// Every exam has its record.
    OneRecord,
    /// What the gate does not allow is not deleted.
    Gate,
    /// A fleet at rest is not written to.
    Rest,
    /// No exam loses what could be had with what happened, beyond margin and reaction ([`weight`]); with `--strict`, what was
    /// physically there as it began.
    Weight,
    /// No machine is released without the gate's leave, one failure domain at a time, and what is out is not examined.
    Release,
    /// Foreign switches are as strangers left them where nothing of ours is, and ours where slots are.
    Switches,
    /// What was set aside is protected again when its time is over.
    Seal,
    /// Every wish for maintenance is granted, lapses or is withdrawn.
    Wish,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Checks {
    /// When the run began, Unix milliseconds.
    pub started_ms: i64,
    /// Writes of the operator that were tried.
    pub writes: u64,
    /// Passes of each controller.
    pub passes: BTreeMap<Controller, u64>,
    /// Deletions of pods that the gate was asked about.
    pub deletions: u64,
    /// Evictions that a budget refused.
    pub evictions: u64,
    /// Looks at a fleet at rest.
    pub rests: u64,
    /// Exams that were looked for among the records.
    pub recorded: u64,
    /// What was done to machines.
    pub machines: machines::Machines,
    /// What must not be.
    pub violations: Vec<Violation>,
    machines_seen: machines::Seen,
    seals_ms: i64,
    /// Objects of which a watch lost an event, and no list has come since.
    pub unheard: BTreeSet<Id>,
    set_aside: BTreeMap<seals::Seal, i64>,
    generations: BTreeMap<(String, i64), String>,
    overlaps: BTreeMap<(String, i32), i64>,
    told: BTreeSet<(Rule, String)>,
}

impl Checks {
    /// Notes a violation; the same one once.
    pub fn violated(&mut self, now_ms: i64, rule: Rule, what: String) {
        if self.told.insert((rule, what.clone())) {
            let at = now_ms - self.started_ms;
            self.violations.push(Violation { at, rule, what });
        }
    }
}

impl Ground {
    /// A pod was promoted.
    pub fn check_promotion(&mut self, door: &Door<'_>, pod_uid: &str, node_id: &str, generation: i64) {
        let now_ms = Self::now(door);
        let known = self
            .checks
            .generations
            .entry((node_id.to_owned(), generation))
            .or_insert_with(|| pod_uid.to_owned());
        if known != pod_uid {
            let what = format!("generation {generation} of {node_id} is pod {known}'s and pod {pod_uid}'s");
            self.checks.violated(now_ms, Rule::OnePodPerGeneration, what);
        }
        // Old generations cannot come back: the highest alone is asked for.
        if self.checks.generations.len() > 4_096 {
            self.checks.generations.pop_first();
        }
    }

    /// Whether two pods hold one slot.
    pub fn check_holders(&mut self, door: &Door<'_>, operator_works: bool) {
        let now_ms = Self::now(door);
        let mut holders: BTreeMap<(&str, i32), Vec<&str>> = BTreeMap::new();
        for (uid, life) in &self.cluster.pods {
            let Some(slot) = life.slot.as_ref() else { continue };
            if let Some((index, _)) = slot.held().filter(|_| !life.ended && self.cluster.is_reachable(uid)) {
                let place = (slot.deployment_uid(), index);
                holders.entry(place).or_default().push(&life.id.name);
            }
        }
        let doubled: BTreeMap<(String, i32), String> = holders
            .into_iter()
            .filter(|(_, pods)| pods.len() > 1)
            .map(|((deployment, slot), pods)| ((deployment.to_owned(), slot), pods.join(" and ")))
            .collect();
        self.checks
            .overlaps
            .retain(|slot, _| doubled.contains_key(slot) && operator_works);
        for (place, pods) in doubled.iter().filter(|_| operator_works) {
            let since = *self.checks.overlaps.entry(place.clone()).or_insert(now_ms);
            if now_ms - since > OVERLAP_MS {
                self.checks
                    .violated(now_ms, Rule::OneHolder, format!("slot {} is held by {pods}", place.1));
            }
        }
    }

    /// The operator deletes a pod.
    pub fn check_deletion(&mut self, door: &Door<'_>, change: &Change, facts: Option<&Facts>) {
        let now_ms = Self::now(door);
        let Some((name, uid)) = deleted_pod(change) else { return };
        let Some(life) = self.cluster.pods.get(uid) else { return };
        let works = !life.ended && !life.ending && life.slot.is_some() && self.cluster.is_reachable(uid);
        if !works {
            return;
        }
        let loaded = life.slot.as_ref().is_some_and(crate::slot::Slot::is_loaded);
        let holds = self
            .store
            .list(Kind::EndpointSlice)
            .any(|(_, slice)| slice["endpoints"][0]["targetRef"]["uid"] == json!(uid));
        self.checks.deletions += 1;
        let host = self.host_state();
        let action = Action {
            kind: if holds { ActionKind::Release } else { ActionKind::Spare },
            weight_basis_points: if holds {
                10_000 / self.plan.all_slots().max(1)
            } else {
                0
            },
            lead_millis: (host.ready_by_millis - host.drain_millis).max(0),
        };
        let nothing = Facts::default();
        let answer = verdict(facts.unwrap_or(&nothing), &host, &action, now_ms);
        let allowed = matches!(answer, Verdict::Allow { .. });
        if !allowed && (holds || loaded) {
            let what = format!("{name} (holds a slot: {holds}) is deleted while the gate says {answer:?}");
            self.checks.violated(now_ms, Rule::Gate, what);
        }
    }

    /// What the gate knows of the host beside the chain, where nothing of it is out.
    fn host_state(&self) -> HostState {
        let margins = self.plan.margins;
        HostState {
            max_weight_basis_points: self.margin_basis_points(),
            drain_millis: i64::from(margins.drain_seconds) * 1000,
            ready_by_millis: i64::from(margins.ready_by_seconds) * 1000,
            ..HostState::default()
        }
    }

    /// What the owner of the host allows to be out.
    pub fn margin_basis_points(&self) -> i32 {
        let host = self.store.get(&Id::new(Kind::GonkaHost, crate::NAMESPACE, crate::HOST));
        weight::margin_basis_points(host.map(AsRef::as_ref))
    }

    /// Whether an exam has its record, and no other exam has it.
    pub fn check_record(&mut self, door: &Door<'_>, kind: &str, height: i64) {
        let now_ms = Self::now(door);
        let letter = if kind == "Sprint" { 's' } else { 'c' };
        let name = format!("{}-{letter}-{height}", crate::HOST);
        self.checks.recorded += 1;
        let run = self.store.get(&Id::new(Kind::SprintRun, crate::NAMESPACE, &name));
        let right = run.is_some_and(|run| run["spec"]["triggerHeight"] == json!(height));
        if !right {
            self.checks
                .violated(now_ms, Rule::OneRecord, format!("the {kind} of {height} has no record"));
        }
    }
}

#[cfg(test)]
mod tests;
