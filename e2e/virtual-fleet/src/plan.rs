//! What a run is about: a network, a fleet, and a story. One file says it all.

use network_simulator::scenario::{self, Scenario};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::story::Moment;

/// Model of a second deployment.
const SECOND_MODEL: &str = "gonka-fleet/tiny_qwen3_dense-second";

/// A run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    /// Seed of everything that is left to chance, the network's included.
    pub seed: u64,
    /// The network, as `network-simulator` reads it.
    pub network: Value,
    /// Machines, slots and the operator's flags.
    #[serde(default)]
    pub fleet: FleetPlan,
    /// What happens to them, by time.
    #[serde(default)]
    pub story: Vec<Moment>,
}

/// The fleet.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FleetPlan {
    /// Machines.
    pub machines: u32,
    /// Pods with engines that one machine takes.
    pub pods_per_machine: usize,
    /// Slots.
    pub slots: i32,
    /// Spares.
    pub spares: i32,
    /// Deployments beside the first, of the same host on the same machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<DeploymentPlan>,
    /// Nonces a second of one slot.
    pub nonces_per_second: u32,
    /// How far a machine's rate is off, thousandths either way.
    pub noise_permille: u32,
    /// A model is loaded in so many milliseconds.
    pub load_millis: i64,
    /// Seconds between callbacks.
    pub callback_interval_seconds: u32,
    /// `--resync-seconds`.
    pub resync_seconds: u64,
    /// Lead times.
    pub margins: Margins,
    /// The chain is read at every block; else only where something is due, and every hour.
    pub every_block: bool,
}

/// A model on slots.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeploymentPlan {
    /// Name of the ModelDeployment.
    pub name: String,
    /// Model that it proves.
    pub model: String,
    /// Slots.
    pub slots: i32,
    /// Spares.
    pub spares: i32,
}

impl FleetPlan {
    /// All deployments.
    pub fn deployments(&self) -> Vec<DeploymentPlan> {
        let first = DeploymentPlan {
            name: crate::DEPLOYMENT.to_owned(),
            model: crate::MODEL.to_owned(),
            slots: self.slots,
            spares: self.spares,
        };
        std::iter::once(first).chain(self.others.iter().cloned()).collect()
    }

    /// Model of a deployment.
    pub fn model_of(&self, deployment: &str) -> &str {
        let mut others = self.others.iter();
        let other = others.find(|other| other.name == deployment);
        other.map_or(crate::MODEL, |other| &other.model)
    }

    /// Slots of all deployments.
    pub fn all_slots(&self) -> i32 {
        self.slots + self.others.iter().map(|other| other.slots).sum::<i32>()
    }

    /// Pods of all deployments.
    pub fn all_pods(&self) -> i32 {
        self.all_slots() + self.spares + self.others.iter().map(|other| other.spares).sum::<i32>()
    }
}

/// `SprintSchedule.spec.margins`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Margins {
    /// T−30 min.
    pub cold_load_seconds: i32,
    /// T−10 min.
    pub ready_by_seconds: i32,
    /// T−2 min.
    pub drain_seconds: i32,
    /// P+10 s.
    pub first_nonce_seconds: i32,
}

impl Default for Margins {
    fn default() -> Self {
        Self {
            cold_load_seconds: 1800,
            ready_by_seconds: 600,
            drain_seconds: 120,
            first_nonce_seconds: 10,
        }
    }
}

impl Default for FleetPlan {
    fn default() -> Self {
        Self {
            machines: 4,
            pods_per_machine: 1,
            slots: 3,
            spares: 1,
            others: Vec::new(),
            nonces_per_second: 10,
            noise_permille: 20,
            load_millis: 600_000,
            callback_interval_seconds: 5,
            resync_seconds: 60,
            margins: Margins::default(),
            every_block: true,
        }
    }
}

/// Why a plan cannot be run.
#[derive(Debug, Error)]
pub enum Error {
    /// It is not YAML, or has members nobody knows.
    #[error("the plan cannot be read")]
    Yaml(#[source] serde_yaml::Error),
    /// Its network is none.
    #[error("the plan's network: {0}")]
    Network(String),
}

impl Plan {
    /// Reads a plan.
    pub fn read(text: &str) -> Result<Self, Error> {
        serde_yaml::from_str(text).map_err(Error::Yaml)
    }

    /// As a file.
    pub fn write(&self) -> Result<String, Error> {
        serde_yaml::to_string(self).map_err(Error::Yaml)
    }

    /// The network's scenario, with this plan's seed.
    pub fn scenario(&self) -> Result<Scenario, Error> {
        let mut network = self.network.clone();
        network["network"]["seed"] = self.seed.into();
        for (member, port) in [("callbackUrl", 9100), ("publicUrl", 9000)] {
            if network["dapi"][member].is_null() {
                network["dapi"][member] = format!("http://10.0.0.9:{port}").into();
            }
        }
        let text = serde_json::to_string(&network).unwrap_or_default();
        scenario::parse(&text).map_err(|invalid| Error::Network(invalid.to_string()))
    }

    /// A community network of short epochs: 50 blocks of five seconds, a Sprint in each and a confirmation in most.
    pub fn devnet(seed: u64, epochs: u64) -> Self {
        let network = serde_json::json!({
            "version": 1,
            "network": {
                "blockMillis": 5000, "jitterMillis": 100, "epochs": epochs,
                "parameters": {
                    "epoch_length": 50, "epoch_shift": 20, "poc_stage_duration": 8, "poc_exchange_duration": 2,
                    "poc_validation_delay": 1, "poc_validation_duration": 4, "set_new_validators_delay": 2,
                    "inference_validation_cutoff": 1, "confirmation_poc_safety_window": 2, "validation_sample_size": 20,
                },
            },
            "models": [{"id": crate::MODEL, "recipe": "tiny_qwen3_dense"}],
            "hosts": [
                {"name": "ours", "driver": "external"},
                {"name": "rival", "count": 3, "driver": "simulated", "nodes": 2, "noncesPerSecond": 10},
            ],
            "exams": {"confirmationPerEpoch": 1, "preserve": false},
        });
        Self {
            seed,
            network,
            fleet: FleetPlan {
                load_millis: 20_000,
                margins: Margins {
                    cold_load_seconds: 40,
                    ready_by_seconds: 20,
                    drain_seconds: 10,
                    first_nonce_seconds: 10,
                },
                ..FleetPlan::default()
            },
            story: Vec::new(),
        }
    }

    /// The same with exams of so many blocks of generation instead of eight, in epochs that are longer by what they take: a Sprint, a
    /// confirmation, and the time in which one may begin. The main network's are 35 blocks.
    #[must_use]
    pub fn with_exams_of(mut self, blocks: u64) -> Self {
        let parameters = &mut self.network["network"]["parameters"];
        for (name, times) in [("poc_stage_duration", 1), ("epoch_length", 3)] {
            let length = parameters[name].as_u64().unwrap_or_default();
            parameters[name] = (length + times * blocks.saturating_sub(8)).into();
        }
        self
    }

    /// The same with a second model, which has fewer slots, on machines that both share.
    #[must_use]
    pub fn with_two_deployments(mut self) -> Self {
        let model = |id: &str| serde_json::json!({"id": id, "recipe": "tiny_qwen3_dense"});
        self.network["models"] = serde_json::json!([model(crate::MODEL), model(SECOND_MODEL)]);
        if let Some(hosts) = self.network["hosts"].as_array_mut() {
            hosts.push(serde_json::json!({
                "name": "other", "count": 3, "driver": "simulated", "nodes": 1, "noncesPerSecond": 10, "model": SECOND_MODEL,
            }));
        }
        self.fleet.pods_per_machine = 2;
        self.fleet.others = vec![DeploymentPlan {
            name: "second".to_owned(),
            model: SECOND_MODEL.to_owned(),
            slots: 1,
            spares: 1,
        }];
        self
    }

    /// A month of the main network: 33 epochs of 15,391 blocks, four confirmations in each.
    pub fn month(seed: u64) -> Self {
        let network = serde_json::json!({
            "version": 1,
            "network": {
                "blockMillis": 5300, "jitterMillis": 300, "epochs": 33,
                "parameters": {
                    "epoch_length": 15391, "epoch_shift": 15200, "poc_stage_duration": 35, "poc_exchange_duration": 5,
                    "poc_validation_delay": 5, "poc_validation_duration": 240, "set_new_validators_delay": 120,
                    "inference_validation_cutoff": 20, "confirmation_poc_safety_window": 50,
                    "validation_sample_size": 200,
                },
            },
            "models": [{"id": crate::MODEL, "recipe": "tiny_qwen3_dense"}],
            "hosts": [
                {"name": "ours", "driver": "external"},
                {"name": "rival", "count": 5, "driver": "simulated", "nodes": 4, "noncesPerSecond": 10},
            ],
            "exams": {"confirmationPerEpoch": 4},
        });
        Self {
            seed,
            network,
            fleet: FleetPlan {
                every_block: false,
                resync_seconds: 3600,
                ..FleetPlan::default()
            },
            story: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_exams_make_longer_epochs_of_the_same_network() {
        let lengths = |blocks| {
            let plan = Plan::devnet(1, 3).with_exams_of(blocks);
            let lengths = plan.scenario().expect("a scenario").parameters.lengths;
            (lengths.poc_stage_duration, lengths.epoch_length)
        };
        assert_eq!((lengths(8), lengths(35)), ((8, 50), (35, 131)));
    }
}
