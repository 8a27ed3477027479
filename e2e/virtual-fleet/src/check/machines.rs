//! What must hold of machines: none is released without the gate's leave, one failure domain at a time, nothing that is examined
//! is on a released one, and what strangers set is there when nothing of ours is.

use std::collections::{BTreeMap, BTreeSet};

use network_simulator::virtual_time::door::Door;
use operator::change::Change;
use operator::facts::Facts;
use operator::gate::{Action, ActionKind, Verdict, verdict};
use serde_json::{Value, json};

use super::Rule;
use crate::ground::Ground;
use crate::store::{Id, Kind};

/// A switch that is not as it should be is put right within so long: events that were lost are listed anew within 90 s.
const PUT_RIGHT_MS: i64 = 120_000;

/// What was done to machines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machines {
    /// Machines released.
    pub released: u64,
    /// Machines whose switches were given back.
    pub given_back: u64,
    /// Evictions that were granted.
    pub evicted: u64,
    /// Reboots of released machines.
    pub rebooted: u64,
    /// Switches that strangers set.
    pub flipped: u64,
    /// Glasses that were broken and forgotten, and breakers set aside.
    pub set_aside: u64,
    /// Of them, those that the operator mended.
    pub mended: u64,
    /// Looks at all switches.
    pub looks: u64,
}

/// Kinds of objects that say how machines are.
const OF_MACHINES: [Kind; 5] = [
    Kind::GpuNode,
    Kind::Pod,
    Kind::EndpointSlice,
    Kind::Node,
    Kind::NodeHealthCheck,
];

/// What the last look at all machines came to.
#[derive(Debug, Default)]
pub struct Seen {
    /// Version it was of.
    version: Option<u64>,
    /// A machine that is released and carries a slot.
    carries: Option<String>,
    /// What is not as it should be, and since when, Unix milliseconds; 0 = as of the next look.
    wrong: BTreeMap<String, i64>,
}

/// Name of the machine that a write releases.
pub fn released_by(change: &Change) -> Option<&str> {
    let Change::Status(object) = change else { return None };
    let released = object.value["status"]["maintenance"]["state"] == json!("Released");
    (object.resource.kind == "GpuNode" && released).then_some(object.name.as_str())
}

/// Pods of one machine that have not ended: UID, and whether a slice names it.
type Pods = Vec<(String, bool)>;

impl Ground {
    /// What the operator answers to wishes for a machine.
    pub fn stage_of(&self, machine: &str) -> Option<&str> {
        let gpu_node = self.store.get(&Id::new(Kind::GpuNode, "", machine))?;
        gpu_node["status"]["maintenance"]["state"].as_str()
    }

    /// People may work on it.
    pub fn is_released(&self, machine: &str) -> bool {
        self.stage_of(machine) == Some("Released")
    }

    /// Somebody works on it: it is released, and still wished for.
    fn is_out(&self, machine: &str) -> bool {
        let gpu_node = self.store.get(&Id::new(Kind::GpuNode, "", machine));
        let node = self.store.get(&Id::new(Kind::Node, "", machine));
        let asked = gpu_node.is_some_and(|gpu_node| gpu_node["spec"]["maintenance"]["state"] == json!("Requested"));
        let cordoned = node.is_some_and(|node| node["spec"]["unschedulable"] == json!(true));
        self.is_released(machine) && (asked || cordoned)
    }

    /// Pods by machine, as the API server has them.
    pub fn pods_by_machine(&self) -> BTreeMap<String, Pods> {
        let target = |slice: &Value| slice["endpoints"][0]["targetRef"]["uid"].as_str().map(str::to_owned);
        let holders: BTreeSet<String> = self
            .store
            .list(Kind::EndpointSlice)
            .filter_map(|(_, slice)| target(slice))
            .collect();
        let mut machines: BTreeMap<String, Pods> = BTreeMap::new();
        for (_, pod) in self.store.list(Kind::Pod) {
            let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            let (Some(machine), Some(uid)) = (pod["spec"]["nodeName"].as_str(), pod["metadata"]["uid"].as_str()) else {
                continue;
            };
            if !ended {
                let pod = (uid.to_owned(), holders.contains(uid));
                machines.entry(machine.to_owned()).or_default().push(pod);
            }
        }
        machines
    }

    /// The operator releases a machine.
    pub fn check_release(&mut self, door: &Door<'_>, machine: &str, facts: Option<&Facts>) {
        let now_ms = Self::now(door);
        if self.is_released(machine) {
            return;
        }
        self.checks.machines.released += 1;
        let pods = self.pods_by_machine();
        let Some(here) = pods.get(machine) else { return };
        let holds = here.iter().filter(|(_, holds)| *holds).count();
        let gpu_node = self.store.get(&Id::new(Kind::GpuNode, "", machine));
        let minutes = gpu_node.and_then(|node| node["spec"]["maintenance"]["expectedMinutes"].as_i64());
        let load_ms = i64::from(self.plan.margins.cold_load_seconds) * 1000;
        let share = 10_000 * i32::try_from(holds).unwrap_or(i32::MAX) / self.plan.all_slots().max(1);
        let action = Action {
            kind: if holds == 0 {
                ActionKind::Spare
            } else {
                ActionKind::Release
            },
            weight_basis_points: share,
            lead_millis: if holds == 0 {
                0
            } else {
                load_ms + minutes.unwrap_or(30) * 60_000
            },
        };
        let nothing = Facts::default();
        let answer = verdict(facts.unwrap_or(&nothing), &self.host_state(), &action, now_ms);
        if !matches!(answer, Verdict::Allow { .. }) {
            let what = format!("{machine} with {holds} slots is released while the gate says {answer:?}");
            self.checks.violated(now_ms, Rule::Release, what);
        }
        // Its own name is every machine's failure domain.
        let mut others = pods.keys().filter(|other| *other != machine);
        if let Some(other) = others.find(|other| self.is_released(other)).cloned() {
            let what = format!("{machine} is released while {other} is out");
            self.checks.violated(now_ms, Rule::Release, what);
        }
    }

    /// Looks at all machines. `well`: nothing is broken, so that what should be has time to become so; `rests`: it had.
    pub fn check_machines(&mut self, door: &Door<'_>, well: bool, rests: bool) {
        let now_ms = Self::now(door);
        self.checks.machines.looks += 1;
        self.look_at_machines();
        let net = door.net();
        let seen = &self.checks.machines_seen;
        if let Some(machine) = seen.carries.clone()
            && (net.exam.is_some() || net.confirmation().is_some())
        {
            let what = format!("{machine} is released and carries a slot in an exam");
            self.checks.violated(now_ms, Rule::Release, what);
        }
        let seen = &mut self.checks.machines_seen;
        if !well {
            seen.wrong.values_mut().for_each(|since| *since = now_ms);
            return;
        }
        let is_late = |since: &mut i64| {
            if *since == 0 {
                *since = now_ms;
            }
            rests || now_ms - *since > PUT_RIGHT_MS
        };
        let wrong = seen.wrong.iter_mut();
        let late: Vec<String> = wrong
            .filter_map(|(what, since)| is_late(since).then(|| what.clone()))
            .collect();
        for what in late {
            self.checks.violated(now_ms, Rule::Switches, what);
        }
    }

    /// Compares anew where something has changed.
    fn look_at_machines(&mut self) {
        let version = self.store.changed(&OF_MACHINES);
        if self.checks.machines_seen.version == Some(version) {
            return;
        }
        let pods = self.pods_by_machine();
        let carries = |machine: &str| pods[machine].iter().any(|(_, holds)| *holds);
        let out = pods.keys().find(|machine| carries(machine) && self.is_out(machine));
        // Its answer is taken back seconds after its wish.
        let held = |machine: &str| pods.contains_key(machine) && !self.is_out(machine);
        let complaints = self.strangers.complaints(&self.store, &held);
        let known = &self.checks.machines_seen.wrong;
        let since = |what: &String| known.get(what).copied().unwrap_or_default();
        self.checks.machines_seen = Seen {
            version: Some(version),
            carries: out.cloned(),
            wrong: complaints
                .into_iter()
                .map(|what| (what.clone(), since(&what)))
                .collect(),
        };
    }
}
