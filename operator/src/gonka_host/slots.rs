//! Box 3: which slots a host has, in the order in which DAPI gets to know them. Pure.

use std::collections::BTreeMap;

use crds::ModelDeployment;
use crds::labels;
use crds::model_deployment::{EngineKind, ExposureKind};

use super::observed::Observed;
use crate::dapi::{Hardware, ModelArgs, NodeSpec};

/// Port of inference on every slot.
pub const INFERENCE_PORT: i64 = 5000;
/// Port of management and PoC on every slot.
pub const POC_PORT: i64 = 8080;
/// Requests DAPI queues for a slot: its own default.
pub const MAX_CONCURRENT: i64 = 500;

/// One slot as it should stand in DAPI.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    /// DAPI node id: an adopted one, or ours.
    pub node_id: String,
    /// Name of the ModelDeployment.
    pub deployment: String,
    /// Index of the slot.
    pub index: i32,
    /// Model id.
    pub model: String,
    /// Address without a scheme; absent while nobody gave one.
    pub host: Option<String>,
    /// Devices of the machine that holds the slot; empty when not known.
    pub hardware: Vec<Hardware>,
    /// True when an earlier slot already has this node id.
    pub id_taken: bool,
}

impl Slot {
    /// The node as it should be made; absent while the address is not known.
    pub fn node(&self) -> Option<NodeSpec> {
        Some(NodeSpec {
            id: self.node_id.clone(),
            host: self.host.clone()?,
            inference_port: INFERENCE_PORT,
            poc_port: POC_PORT,
            max_concurrent: MAX_CONCURRENT,
            models: BTreeMap::from([(self.model.clone(), ModelArgs::default())]),
            hardware: self.hardware.clone(),
            ..NodeSpec::default()
        })
    }

    /// For people: deployment and index.
    pub fn label(&self) -> String {
        format!("{}/{}", self.deployment, self.index)
    }
}

/// Deployments of the host, oldest first: a new one never changes the order of those before.
pub fn deployments(observed: &Observed) -> Vec<&ModelDeployment> {
    let mut deployments: Vec<_> = observed.deployments.iter().collect();
    deployments.sort_by_key(|deployment| {
        let metadata = &deployment.metadata;
        (
            metadata.creation_timestamp.as_ref().map(|time| time.0),
            metadata.name.clone(),
        )
    });
    deployments
}

/// Every slot the specs ask for, and those that a pod still holds though nobody asks for them any more, in registration order.
pub fn slots(observed: &Observed) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for deployment in deployments(observed) {
        for index in deployment.examined_slots() {
            let mut slot = slot(observed, deployment, index);
            slot.id_taken = !ids.insert(slot.node_id.clone());
            slots.push(slot);
        }
    }
    slots
}

fn slot(observed: &Observed, deployment: &ModelDeployment, index: i32) -> Slot {
    let name = deployment.metadata.name.clone().unwrap_or_default();
    Slot {
        node_id: node_id(&observed.install_id, deployment, index),
        host: host(observed, deployment, index).map(bracketed),
        hardware: hardware(observed, deployment, index),
        model: deployment.spec.model.id.clone(),
        deployment: name,
        index,
        id_taken: false,
    }
}

/// DAPI node id of a slot: an adopted one, or ours.
pub fn node_id(install_id: &str, deployment: &ModelDeployment, index: i32) -> String {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    usize::try_from(index)
        .ok()
        .and_then(|position| deployment.spec.adopt_nodes.get(position).cloned())
        .unwrap_or_else(|| labels::dapi_node_id(install_id, name, index))
}

fn host(observed: &Observed, deployment: &ModelDeployment, index: i32) -> Option<String> {
    let spec = &deployment.spec;
    if spec.engine.kind == EngineKind::External {
        let external = spec.engine.external.as_ref()?;
        return external
            .endpoints
            .iter()
            .find(|slot| slot.slot == index)
            .map(|slot| slot.address.clone());
    }
    match spec.exposure.kind {
        ExposureKind::ClusterIp | ExposureKind::LoadBalancer => {
            let name = labels::slot_service_name(deployment.metadata.name.as_deref()?, index);
            observed.addresses.get(&name).cloned()
        }
        // These need an address that moves with the pod.
        ExposureKind::NodePort | ExposureKind::HostPort => None,
    }
}

/// DAPI puts the host before a port, so an IPv6 address needs its brackets.
fn bracketed(host: String) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]")
    } else {
        host
    }
}

/// As DAPI itself writes what it detects: `<NAME> | <GB>GB` and a count.
fn hardware(observed: &Observed, deployment: &ModelDeployment, index: i32) -> Vec<Hardware> {
    let spec = &deployment.spec;
    let count = i64::from(spec.gpus_per_replica) * i64::from(spec.replicas_per_slot);
    let machine = deployment
        .status
        .as_ref()
        .and_then(|status| status.slots.iter().find(|slot| slot.index == index))
        .and_then(|slot| slot.node_name.as_ref())
        .and_then(|node| observed.machines.get(node));
    match machine {
        Some(machine) if count > 0 && !machine.product.is_empty() && machine.memory_mebibytes > 0 => {
            let gigabytes = (machine.memory_mebibytes + 512) / 1024;
            vec![Hardware {
                kind: format!("{} | {gigabytes}GB", machine.product),
                count,
            }]
        }
        _ => Vec::new(),
    }
}

/// Deployment and slot of an id some installation of this operator made: `<6 hex>-<deployment>-<slot>`.
pub fn parse_id(id: &str) -> Option<(&str, &str, i32)> {
    let (install, rest) = id.split_at_checked(6)?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !install.bytes().all(hex) {
        return None;
    }
    let (deployment, slot) = rest.strip_prefix('-')?.rsplit_once('-')?;
    let slot_is_plain = !slot.is_empty() && slot.bytes().all(|byte| byte.is_ascii_digit());
    if deployment.is_empty() || !slot_is_plain {
        return None;
    }
    Some((install, deployment, slot.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a1b2c3-qwen-0", Some(("a1b2c3", "qwen", 0)))]
    #[case("a1b2c3-qwen-7b-12", Some(("a1b2c3", "qwen-7b", 12)))]
    #[case("a1b2c3--1", None)]
    #[case("a1b2c3-qwen-", None)]
    #[case("a1b2c3-qwen-x", None)]
    #[case("A1B2C3-qwen-0", None)]
    #[case("ml-a", None)]
    #[case("é1b2c3-qwen-0", None)]
    fn ids_of_this_operator_are_known_by_their_form(#[case] id: &str, #[case] expected: Option<(&str, &str, i32)>) {
        assert_eq!(parse_id(id), expected);
    }

    #[test]
    fn an_ipv6_address_gets_brackets() {
        assert_eq!(bracketed("fd00::1".to_owned()), "[fd00::1]");
        assert_eq!(bracketed("10.0.0.1".to_owned()), "10.0.0.1");
    }
}
