//! Whose turn it is: one failure domain at a time, those in their preferred hours and with least weight first; and when the others may expect theirs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::gpu_node::MaintenanceStage;

use super::hours::{self, Timing};
use super::observed::{Host, Machine, Observed, PodHere};
use crate::gate::{Action, ActionKind, GateReason, Verdict, verdict};

/// Where a machine that somebody wishes to work on stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Turn {
    /// Stage.
    pub stage: MaintenanceStage,
    /// Why not further, for people.
    pub message: String,
    /// When it is expected to be released; absent when nobody can tell, and once it is.
    pub expected_ms: Option<i64>,
    /// Place among those that wait.
    pub position: Option<i32>,
}

/// One machine in the queue. The order of its fields is the order of the queue.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place<'a> {
    timing: Timing,
    slots: usize,
    weight_basis_points: i32,
    minutes: i32,
    requested_ms: i64,
    name: &'a str,
}

/// What stands between a machine and its release.
enum Next {
    Release,
    Drain(String),
    Wait { message: String, from_ms: Option<i64> },
}

/// Answers every machine that somebody wishes to work on, by name.
pub fn turns(observed: &Observed) -> BTreeMap<String, Turn> {
    let mut turns = BTreeMap::new();
    let wished: Vec<(&String, &Machine)> = observed
        .machines
        .iter()
        .filter(|(_, machine)| machine.gpu_node.is_some() && machine.is_wished_for(observed.now_ms))
        .collect();
    let mut busy = BTreeSet::new();
    let mut busy_until = observed.now_ms;
    let mut places = Vec::new();
    for (name, machine) in wished {
        if machine.stage() == Some(MaintenanceStage::Released) || machine.pods.is_empty() {
            // A machine without pods takes nobody's turn.
            if !machine.pods.is_empty() {
                busy.extend(domains(observed, name, machine));
                busy_until = busy_until.max(since(machine, observed.now_ms) + millis(machine));
            }
            turns.insert(name.clone(), released());
        } else {
            places.push(place(observed, name, machine));
        }
    }
    let mut queue = Queue {
        observed,
        busy,
        free_from: busy_until,
        position: 0,
    };
    for place in &mut places {
        if let Some(machine) = observed.machines.get(place.name) {
            place.timing = queue.timing(place, machine);
        }
    }
    places.sort_unstable();
    for place in &places {
        if let Some(machine) = observed.machines.get(place.name) {
            let turn = queue.next(place, machine);
            turns.insert(place.name.to_owned(), turn);
        }
    }
    turns
}

fn released() -> Turn {
    Turn {
        stage: MaintenanceStage::Released,
        message: "drain, upgrade or reboot it; withdraw the wish (or uncordon) when it is done".to_owned(),
        expected_ms: None,
        position: None,
    }
}

fn since(machine: &Machine, now_ms: i64) -> i64 {
    machine
        .answer()
        .map_or(now_ms, |answer| answer.since_time.0.as_millisecond())
}

fn minutes(machine: &Machine) -> i32 {
    machine
        .gpu_node
        .as_ref()
        .map_or(30, |gpu_node| gpu_node.wish.expected_minutes)
}

fn millis(machine: &Machine) -> i64 {
    i64::from(minutes(machine)) * 60_000
}

fn place<'a>(observed: &Observed, name: &'a str, machine: &Machine) -> Place<'a> {
    let answer = machine.answer().filter(|answer| Some(answer.state) == machine.stage());
    Place {
        timing: Timing::Any,
        slots: machine.pods.iter().filter(|pod| pod.slot.is_some()).count(),
        weight_basis_points: by_host(observed, machine).values().copied().max().unwrap_or_default(),
        minutes: minutes(machine),
        requested_ms: answer.map_or(observed.now_ms, |answer| answer.requested_time.0.as_millisecond()),
        name,
    }
}

/// Failure domains that pods of the machine count in.
fn domains(observed: &Observed, name: &str, machine: &Machine) -> BTreeSet<String> {
    machine
        .pods
        .iter()
        .filter_map(|pod| observed.deployments.get(&pod.deployment))
        .map(|deployment| machine.domain(name, &deployment.domain_key))
        .collect()
}

/// Weight on the machine per host with pods there, basis points of the host.
fn by_host(observed: &Observed, machine: &Machine) -> BTreeMap<String, i32> {
    let mut shares: BTreeMap<String, i32> = BTreeMap::new();
    for pod in &machine.pods {
        let Some(deployment) = observed.deployments.get(&pod.deployment) else {
            continue;
        };
        let of_host = observed.hosts.get(&deployment.host).map_or(0, |host| host.weight);
        let weight = pod
            .slot
            .and_then(|slot| deployment.weights.get(&slot))
            .copied()
            .unwrap_or_default();
        let share = match (pod.slot, of_host) {
            (None, _) => 0,
            // A slot of a host of which nothing is known is all of it.
            (Some(_), 0) => 10_000,
            (Some(_), all) => i32::try_from(weight.saturating_mul(10_000).div_euclid(all)).unwrap_or(10_000),
        };
        *shares.entry(deployment.host.clone()).or_default() += share;
    }
    shares
}

struct Queue<'a> {
    observed: &'a Observed,
    /// Domains whose turn it is.
    busy: BTreeSet<String>,
    /// When the machine before this one is expected to be done.
    free_from: i64,
    position: i32,
}

impl Queue<'_> {
    fn next(&mut self, place: &Place<'_>, machine: &Machine) -> Turn {
        let domains = domains(self.observed, place.name, machine);
        let mine = self.busy.is_empty() || domains.is_subset(&self.busy);
        let next = if let Timing::Later { from_ms, message } = &place.timing {
            Next::Wait {
                message: message.clone(),
                from_ms: Some(*from_ms),
            }
        } else if mine {
            self.stands_between(place, machine)
        } else {
            let names: Vec<&str> = self.busy.iter().map(String::as_str).take(3).collect();
            Next::Wait {
                message: format!("queued: one failure domain at a time, and {} is out", names.join(", ")),
                from_ms: self.permitted_from(place, machine),
            }
        };
        match next {
            Next::Release => {
                self.busy.extend(domains);
                self.free_from = self.free_from.max(self.observed.now_ms + millis(machine));
                released()
            }
            Next::Drain(message) => {
                self.position += 1;
                self.busy.extend(domains);
                let expected_ms = self.observed.now_ms;
                self.free_from = self.free_from.max(expected_ms + millis(machine));
                Turn {
                    stage: MaintenanceStage::Draining,
                    message,
                    expected_ms: Some(expected_ms),
                    position: Some(self.position),
                }
            }
            Next::Wait { message, from_ms } => {
                self.position += 1;
                let message = match hours::complaint(machine, self.observed.now_ms) {
                    Some(complaint) => format!("{message}; {complaint}"),
                    None => message,
                };
                let expected_ms = from_ms.map(|from| from.max(self.free_from));
                if let Some(expected) = expected_ms {
                    self.free_from = expected + millis(machine);
                }
                Turn {
                    stage: MaintenanceStage::Waiting,
                    message,
                    expected_ms,
                    position: Some(self.position),
                }
            }
        }
    }

    /// With no slot on it a machine is free between exams. With slots and spares elsewhere the slots move first. Without
    /// spares its weight is out while it is away: only in a Green window that is long enough, within the budget.
    fn stands_between(&self, place: &Place<'_>, machine: &Machine) -> Next {
        if place.slots == 0 {
            return match self.ask_all(machine, ActionKind::Spare, 0) {
                Ok(()) => Next::Release,
                Err(wait) => wait,
            };
        }
        let bare = self.without_spare(machine);
        if bare.is_empty() {
            return match self.ask_all(machine, ActionKind::Rollout, 0) {
                Ok(()) => Next::Drain(format!(
                    "{} slots move to rehearsed spares, one after another",
                    place.slots
                )),
                Err(wait) => wait,
            };
        }
        let away = self.away_millis(machine);
        match self.ask_all(machine, ActionKind::Release, away) {
            Ok(()) => Next::Release,
            Err(Next::Wait { message, from_ms }) => Next::Wait {
                message: format!(
                    "no rehearsed spare elsewhere for slots of {}{}; released with them: {message}",
                    bare.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
                    self.why_none(&bare)
                ),
                from_ms,
            },
            Err(other) => other,
        }
    }

    /// Deployments with a slot here and no rehearsed spare on a machine that stays.
    fn without_spare(&self, machine: &Machine) -> BTreeSet<String> {
        let stays = |name: &String| {
            self.observed.machines.get(name).is_some_and(|other| {
                !other.is_wished_for(self.observed.now_ms) && other.node.as_ref().is_some_and(|node| node.ready)
            })
        };
        machine
            .pods
            .iter()
            .filter(|pod| pod.slot.is_some())
            .map(|pod| &pod.deployment)
            .filter(|key| {
                let deployment = self.observed.deployments.get(*key);
                deployment.is_none_or(|deployment| !deployment.spares.iter().any(stays))
            })
            .cloned()
            .collect()
    }

    /// A spare that would leave with its slot is replaced elsewhere first, where there is room.
    fn why_none(&self, bare: &BTreeSet<String>) -> &'static str {
        let mut deployments = bare.iter().filter_map(|key| self.observed.deployments.get(key));
        if deployments.any(|deployment| deployment.is_full) {
            ", and no machine that stays has GPUs left for one"
        } else {
            ""
        }
    }

    /// From the release until its slots are proven again.
    fn away_millis(&self, machine: &Machine) -> i64 {
        let load = self.hosts(machine).map(|host| host.load_millis).max();
        load.unwrap_or_default() + millis(machine)
    }

    /// A machine that is being emptied goes on, whatever its hours.
    fn timing(&self, place: &Place<'_>, machine: &Machine) -> Timing {
        if machine.stage() == Some(MaintenanceStage::Draining) {
            return Timing::Any;
        }
        let bare = place.slots > 0 && !self.without_spare(machine).is_empty();
        let needs_millis = bare.then(|| self.away_millis(machine));
        hours::timing(machine, self.hosts(machine), needs_millis, self.observed.now_ms)
    }

    fn hosts(&self, machine: &Machine) -> impl Iterator<Item = &Host> {
        let keys: BTreeSet<&String> = machine
            .pods
            .iter()
            .filter_map(|pod: &PodHere| Some(&self.observed.deployments.get(&pod.deployment)?.host))
            .collect();
        keys.into_iter().filter_map(|key| self.observed.hosts.get(key))
    }

    /// Every host with pods here must allow it.
    fn ask_all(&self, machine: &Machine, kind: ActionKind, lead_millis: i64) -> Result<(), Next> {
        for (key, weight_basis_points) in by_host(self.observed, machine) {
            let Some(host) = self.observed.hosts.get(&key) else {
                return Err(Next::Wait {
                    message: format!("GonkaHost {key} is not there"),
                    from_ms: None,
                });
            };
            let action = Action {
                kind,
                weight_basis_points,
                lead_millis,
            };
            let verdict = verdict(&host.facts, &host.state, &action, self.observed.now_ms);
            if let Verdict::Wait { .. } | Verdict::Deny { .. } = verdict {
                return Err(waits(host, &key, verdict, weight_basis_points));
            }
        }
        Ok(())
    }

    /// For a machine whose turn it is not: when the gate would let it go.
    fn permitted_from(&self, place: &Place<'_>, machine: &Machine) -> Option<i64> {
        match self.stands_between(place, machine) {
            Next::Release | Next::Drain(_) => Some(self.observed.now_ms),
            Next::Wait { from_ms, .. } => from_ms,
        }
    }
}

fn waits(host: &Host, key: &str, verdict: Verdict, weight_basis_points: i32) -> Next {
    let (reason, until) = match verdict {
        Verdict::Wait { reason, until_height } => (reason, until_height),
        Verdict::Deny { reason } => (reason, None),
        Verdict::Allow { .. } => return Next::Release,
    };
    let from_ms = until.and_then(|height| host.facts.predict(height)).map(|at| at.time_ms);
    let why = match reason {
        GateReason::BudgetExceeded => format!(
            "{weight_basis_points} basis points of {key} would be out and {} may be; add a spare",
            crate::gate::budget(&host.state)
        ),
        _ => reason.for_people().to_owned(),
    };
    Next::Wait { message: why, from_ms }
}
