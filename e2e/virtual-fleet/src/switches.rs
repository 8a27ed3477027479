//! What strangers set on machines: switches of autoscalers, driver upgrades and remediation. While a machine is held ours stands
//! there; when it is given back theirs does. Kept here beside the API server, by who changed what when, and compared.

use std::collections::BTreeMap;

use crds::labels;
use operator::change::Change;
use operator::machine::switches::{PAUSE, Place, SWITCHES, Switch};
use serde_json::{Value, json};

use crate::store::{Id, Kind, Refusal, Store};

/// A switch's value; absent when it is not set.
type Set = Option<String>;

/// What strangers left, by machine and place among the switches; and who else pauses health checks.
#[derive(Clone, Debug, Default)]
pub struct Strangers {
    left: BTreeMap<String, BTreeMap<usize, Set>>,
    pauses: BTreeMap<String, Vec<String>>,
}

fn part(place: Place) -> &'static str {
    match place {
        Place::Label => "labels",
        Place::Annotation => "annotations",
    }
}

fn value(node: &Value, switch: &Switch) -> Set {
    node["metadata"][part(switch.place)][switch.key]
        .as_str()
        .map(str::to_owned)
}

fn is_held(node: &Value) -> bool {
    !node["metadata"]["annotations"][labels::PREVIOUS_VALUES].is_null()
}

/// A write that gives a Node back: switches that strangers changed while they were held, and keep.
pub fn given_back(store: &Store, change: &Change) -> Option<BTreeMap<usize, Set>> {
    let Change::Merge(object) = change else { return None };
    let annotations = object.value["metadata"]["annotations"].as_object()?;
    if object.resource.kind != "Node" || annotations.get(labels::PREVIOUS_VALUES) != Some(&Value::Null) {
        return None;
    }
    let node = store.get(&Id::new(Kind::Node, "", &object.name))?;
    let present = SWITCHES
        .iter()
        .enumerate()
        .map(|(place, switch)| (place, value(node, switch), switch));
    let changed = present.filter(|(_, present, switch)| present.as_deref() != Some(switch.held));
    Some(changed.map(|(place, present, _)| (place, present)).collect())
}

impl Strangers {
    /// Machines and health checks as they were made.
    pub fn of(store: &Store) -> Self {
        let nodes = store.list(Kind::Node).map(|(id, node)| {
            let values = SWITCHES.iter().map(|switch| value(node, switch)).enumerate().collect();
            (id.name.clone(), values)
        });
        let checks = store.list(Kind::NodeHealthCheck);
        Self {
            left: nodes.collect(),
            pauses: checks.map(|(id, check)| (id.name.clone(), requests(check))).collect(),
        }
    }

    /// A stranger sets a switch, or takes it off. On a machine that is held it is a quarrel: what stands there when the machine is
    /// given back is theirs, and what we have set over by then is not.
    pub fn set(&mut self, store: &mut Store, machine: &str, place: usize, wanted: Option<&str>) -> Result<(), Refusal> {
        let Some(switch) = SWITCHES.get(place) else {
            return Ok(());
        };
        let id = Id::new(Kind::Node, "", machine);
        store.edit(&id, |node| {
            let part = &mut node["metadata"][part(switch.place)];
            match (wanted, part.as_object_mut()) {
                (Some(value), _) => part[switch.key] = json!(value),
                (None, Some(part)) => drop(part.remove(switch.key)),
                (None, None) => {}
            }
        })?;
        if store.get(&id).is_some_and(|node| !is_held(node)) {
            self.keep(machine, [(place, wanted.map(str::to_owned))].into());
        }
        Ok(())
    }

    /// A stranger pauses every health check too, or goes on.
    pub fn pause(&mut self, store: &mut Store, who: &str, on: bool) -> Result<(), Refusal> {
        for (name, theirs) in &mut self.pauses {
            theirs.retain(|request| request != who);
            if on {
                theirs.push(who.to_owned());
            }
            store.edit(&Id::new(Kind::NodeHealthCheck, "", name), |check| {
                let mut all = requests(check);
                all.retain(|request| request != who);
                if on {
                    all.push(who.to_owned());
                }
                check["spec"]["pauseRequests"] = json!(all);
            })?;
        }
        Ok(())
    }

    /// These are theirs from now on.
    pub fn keep(&mut self, machine: &str, theirs: BTreeMap<usize, Set>) {
        self.left.entry(machine.to_owned()).or_default().extend(theirs);
    }

    /// What is not as it should be, given which machines are to be held.
    pub fn complaints(&self, store: &Store, held: &dyn Fn(&str) -> bool) -> Vec<String> {
        let mut complaints = Vec::new();
        for (id, node) in store.list(Kind::Node) {
            let (name, ours) = (id.name.as_str(), held(&id.name));
            if ours != is_held(node) {
                complaints.push(format!("{name} has a journal: {}, and is to be held: {ours}", !ours));
            }
            for (place, switch) in SWITCHES.iter().enumerate() {
                let theirs = self.left.get(name).and_then(|left| left.get(&place)?.as_deref());
                let wanted = if ours { Some(switch.held) } else { theirs };
                let present = value(node, switch);
                if present.as_deref() != wanted {
                    complaints.push(format!(
                        "{} of {name} is {present:?} and should be {wanted:?} (held: {ours})",
                        switch.key
                    ));
                }
            }
        }
        for (id, check) in store.list(Kind::NodeHealthCheck) {
            let wanted_labels = check["spec"]["selector"]["matchLabels"].as_object();
            let mut nodes = store.list(Kind::Node);
            let paused = nodes.any(|(node_id, node)| {
                let mut wanted = wanted_labels.into_iter().flatten();
                held(&node_id.name) && wanted.all(|(key, value)| node["metadata"]["labels"][key] == *value)
            });
            let all = requests(check);
            let ours = all.iter().any(|request| request == PAUSE);
            let theirs: Vec<&String> = all.iter().filter(|request| *request != PAUSE).collect();
            let left = self.pauses.get(&id.name);
            if ours != paused || !left.is_some_and(|left| left.iter().eq(theirs.iter().copied())) {
                complaints.push(format!(
                    "{} is paused by {all:?}; by us it should be: {paused}",
                    id.name
                ));
            }
        }
        complaints
    }
}

fn requests(check: &Value) -> Vec<String> {
    let all = check["spec"]["pauseRequests"].as_array().into_iter().flatten();
    all.filter_map(|request| request.as_str().map(str::to_owned)).collect()
}
