//! A host with slots, and a DAPI that behaves as the recorded one does: upsert by body id, numbers never given twice.

use std::collections::BTreeMap;

use crds::gonka_host::{Account, ExternalNetworkNode, ManagementPolicy, NetworkNode};
use crds::model_deployment::{ModelDeploymentStatus, SlotState, SlotStatus};
use crds::references::{LocalReference, Stage, Window};
use crds::{GonkaHost, GonkaHostSpec, ModelDeployment, ModelDeploymentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::super::observed::{ChainView, Observed, Reading};
use super::super::plan::DapiWrite;
use crate::dapi::{NodeSpec, NodeState, Registered, SetupReport};
use crate::facts::{Exam, Facts, Pace};

const NOW_MS: i64 = 1_795_345_000_000;
const ADDRESS: &str = "gonka1ours";

/// An accepted host in Manage with one deployment of `slots` ready slots, a green window and an empty DAPI.
pub fn observed(slots: i32) -> Observed {
    let external = ExternalNetworkNode {
        admin_url: "http://10.0.0.7:9200".to_owned(),
        public_url: "http://10.0.0.7:9000".to_owned(),
        expected_callback_url: "http://10.0.0.7:9100".to_owned(),
        ..ExternalNetworkNode::default()
    };
    let spec = GonkaHostSpec {
        schedule_name: "net".to_owned(),
        account: Account {
            address: ADDRESS.to_owned(),
            cold_public_key: format!("02{}", "ab".repeat(32)),
        },
        public_url: "https://gonka.example.org".to_owned(),
        management_policy: ManagementPolicy::Manage,
        network_node: NetworkNode {
            external: Some(external),
            ..NetworkNode::default()
        },
        ..GonkaHostSpec::default()
    };
    let mut host = GonkaHost::new("ours", spec);
    host.metadata = ObjectMeta {
        generation: Some(1),
        ..metadata("ours", 1000)
    };
    let mut observed = Observed {
        now_ms: NOW_MS,
        install_id: "a1b2c3".to_owned(),
        resync_seconds: 60,
        host,
        schedule_exists: true,
        secret_problem: String::new(),
        others: Vec::new(),
        deployments: vec![ModelDeployment::new("qwen", ModelDeploymentSpec::default())],
        addresses: (0..16)
            .map(|slot| (format!("slot-qwen-{slot}"), format!("10.1.0.{}", slot + 10)))
            .collect(),
        machines: std::collections::BTreeMap::new(),
        nodes: Reading::known(Vec::new()),
        report: Reading::known(SetupReport::default()),
        identity: Reading::known(ADDRESS.to_owned()),
        dapi_height: Reading::known(500),
        facts: facts(),
        chain: ChainView {
            weight: Reading::known(0),
            settlement: Reading::known(None),
            ..ChainView::default()
        },
        callback_base: String::new(),
        exams: Vec::new(),
    };
    set_slots(&mut observed, slots);
    observed
}

fn metadata(name: &str, created: i64) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("gonka".to_owned()),
        uid: Some(format!("uid-{name}")),
        creation_timestamp: Some(Time(Timestamp::from_second(created).expect("in range"))),
        ..ObjectMeta::default()
    }
}

fn facts() -> Facts {
    Facts {
        schedule: "net".to_owned(),
        height: 500,
        observed_ms: NOW_MS,
        block_time_ms: NOW_MS,
        epoch: 5,
        stage: Stage::Inference,
        window: Window::Green,
        pace: Pace {
            block_millis: 1000.0,
            spread_millis: 10.0,
        },
        ..Facts::default()
    }
}

/// Sets the number of slots; all of them are ready.
pub fn set_slots(observed: &mut Observed, slots: i32) {
    let deployment = &mut observed.deployments[0];
    deployment.metadata = metadata("qwen", 2000);
    deployment.spec.host_ref = LocalReference {
        name: "ours".to_owned(),
    };
    deployment.spec.model.id = "gonka-fleet/tiny_qwen3_dense".to_owned();
    deployment.spec.slots = slots;
    let ready = |index| SlotStatus {
        index,
        state: SlotState::SprintReady,
        ..SlotStatus::default()
    };
    deployment.status = Some(ModelDeploymentStatus {
        slots: (0..slots).map(ready).collect(),
        ..ModelDeploymentStatus::default()
    });
}

/// Begins or ends a Sprint.
pub fn exam(observed: &mut Observed, on: bool) {
    observed.facts.window = if on { Window::Sprint } else { Window::Green };
    observed.facts.exam = on.then(Exam::default);
}

pub fn in_exam(observed: &Observed) -> bool {
    observed.facts.exam.is_some()
}

pub fn external(observed: &mut Observed) -> &mut ExternalNetworkNode {
    observed.host.spec.network_node.external.as_mut().expect("external")
}

pub fn report(observed: &mut Observed) -> &mut SetupReport {
    observed.report.value.as_mut().expect("a report")
}

/// A DAPI in memory.
#[derive(Clone, Debug, Default)]
pub struct Dapi {
    nodes: Vec<(NodeSpec, i32)>,
    highest: i32,
}

impl Dapi {
    pub fn take(&mut self, writes: &[DapiWrite]) {
        for write in writes {
            let spec = write.node();
            match self.nodes.iter_mut().find(|(node, _)| node.id == spec.id) {
                Some((node, _)) => *node = spec.clone(),
                None => {
                    self.highest += 1;
                    self.nodes.push((spec.clone(), self.highest));
                }
            }
        }
    }

    pub fn listed(&self) -> Vec<Registered> {
        let state = NodeState {
            current_status: "INFERENCE".to_owned(),
            enabled: true,
            ..NodeState::default()
        };
        let listed = |(node, number): &(NodeSpec, i32)| Registered {
            node: node.clone(),
            node_num: *number,
            state: Some(state.clone()),
        };
        self.nodes.iter().rev().map(listed).collect()
    }

    pub fn has(&self, id: &str) -> bool {
        self.nodes.iter().any(|(node, _)| node.id == id)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn foreign(&self) -> Vec<(NodeSpec, i32)> {
        self.nodes
            .iter()
            .filter(|(node, _)| node.id.starts_with("ml-"))
            .cloned()
            .collect()
    }

    pub fn lose(&mut self, which: usize) {
        if which < self.nodes.len() {
            self.nodes.remove(which);
        }
    }

    pub fn spoil(&mut self, which: usize) {
        if let Some((node, _)) = self
            .nodes
            .get_mut(which)
            .filter(|(node, _)| !node.id.starts_with("ml-"))
        {
            node.host = format!("192.0.2.{which}");
            node.max_concurrent = 7;
        }
    }

    pub fn add_foreign(&mut self, which: u8) {
        let node = NodeSpec {
            id: format!("ml-{which}"),
            host: format!("198.51.100.{which}"),
            ..NodeSpec::default()
        };
        self.take(&[DapiWrite::Post(node)]);
    }

    pub fn restart(&mut self) {
        for (position, (_, number)) in self.nodes.iter_mut().enumerate() {
            *number = position as i32 + 1;
        }
        self.highest = self.nodes.len() as i32;
    }
}

/// Ids of nodes that a slot wants, by the number on record.
pub fn recorded(observed: &Observed) -> BTreeMap<i32, String> {
    let registrations = observed.host.status.iter().flat_map(|status| &status.registrations);
    let slots = observed
        .deployments
        .iter()
        .map(|deployment| deployment.spec.slots)
        .max();
    registrations
        .filter(|entry| Some(entry.slot) < slots)
        .filter_map(|entry| Some((entry.node_num?, entry.node_id.clone())))
        .collect()
}
