//! The objects people make: a schedule, a host, deployments; and the machines.

use network_simulator::virtual_time::door::Door;
use serde_json::{Value, json};

use crate::cluster::Machine;
use crate::ground::Ground;
use crate::plan::{DeploymentPlan, Plan};
use crate::random::Random;
use crate::store::{Kind, time};
use crate::switches::Strangers;
use crate::{HOST, NAMESPACE, SCHEDULE};

/// Makes everything.
pub fn make(ground: &mut Ground, door: &mut Door<'_>, plan: &Plan) {
    let now_ms = Ground::now(door);
    let fleet = &plan.fleet;
    let mut noise = Random::new(plan.seed, "rates");
    for number in 1..=fleet.machines {
        let name = format!("n{number}");
        let permille = i64::from(fleet.noise_permille);
        ground.cluster.machines.insert(
            name.clone(),
            Machine {
                off: 0,
                cut: 0,
                changed_ms: now_ms,
                findings: 0,
                rate_permille: noise.between(-permille, permille),
                given_back_ms: 0,
            },
        );
        let (labels, annotations) = strangers(&name, number);
        let since = time(now_ms);
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
        let metadata = json!({"labels": labels, "annotations": annotations});
        // A pod asks for one.
        let gpus = json!({"nvidia.com/gpu": fleet.pods_per_machine.to_string()});
        let node = json!({"metadata": metadata, "spec": {}, "status": {"conditions": [ready], "allocatable": gpus}});
        ground.store.make(Kind::Node, "", &name, node, now_ms);
        let protected = json!({"fleet.gonka.ai/protected": "true"});
        let gpu_node = json!({"metadata": {"labels": protected}, "spec": {}});
        ground.store.make(Kind::GpuNode, "", &name, gpu_node, now_ms);
        ground.tell_findings(door, &name);
    }
    for (name, selector) in [("all", json!({})), ("first", json!({"kubernetes.io/hostname": "n1"}))] {
        let check = json!({"spec": {"selector": {"matchLabels": selector}, "pauseRequests": ["an admin"]}});
        ground.store.make(Kind::NodeHealthCheck, "", name, check, now_ms);
    }
    ground.strangers = Strangers::of(&ground.store);
    ground
        .store
        .make(Kind::SprintSchedule, "", SCHEDULE, schedule(door, plan), now_ms);
    ground.store.make(Kind::GonkaHost, NAMESPACE, HOST, host(door), now_ms);
    for wanted in fleet.deployments() {
        let name = wanted.name.clone();
        ground
            .store
            .make(Kind::ModelDeployment, NAMESPACE, &name, deployment(&wanted), now_ms);
    }
    ground.tell(door);
}

/// Labels and annotations of a machine: switches of strangers are unset, as we hold them, or otherwise.
fn strangers(name: &str, number: u32) -> (Value, Value) {
    let mut labels = json!({"kubernetes.io/hostname": name, "nvidia.com/gpu.present": "true"});
    let mut annotations = json!({});
    if number.is_multiple_of(2) {
        labels["nvidia.com/gpu-driver-upgrade.skip"] = json!("false");
        annotations["cluster-autoscaler.kubernetes.io/scale-down-disabled"] = json!("true");
    }
    if number.is_multiple_of(3) {
        labels["nvsentinel.dgxc.nvidia.com/managed"] = json!("true");
        annotations["karpenter.sh/do-not-disrupt"] = json!("false");
    }
    (labels, annotations)
}

fn schedule(door: &Door<'_>, plan: &Plan) -> serde_json::Value {
    let margins = plan.fleet.margins;
    let endpoints: Vec<_> = (1..=3)
        .map(|number| {
            json!({
                "name": format!("rpc-{number}"),
                "rpcURL": format!("http://10.0.0.{number}:26657"),
                "restURL": format!("http://10.0.0.{number}:1317"),
                "trust": if number == 1 { "Own" } else { "Foreign" },
            })
        })
        .collect();
    json!({"spec": {
        "chainID": door.net().scenario.network.chain_id,
        "quorum": 2,
        "endpoints": endpoints,
        "margins": {
            "coldLoadSeconds": margins.cold_load_seconds,
            "readyBySeconds": margins.ready_by_seconds,
            "drainSeconds": margins.drain_seconds,
            "firstNonceSeconds": margins.first_nonce_seconds,
        },
    }})
}

fn host(door: &Door<'_>) -> serde_json::Value {
    let net = door.net();
    let ours = net.hosts.get(net.ours);
    json!({"spec": {
        "scheduleName": SCHEDULE,
        "account": {
            "address": ours.map(|host| host.address.clone()),
            "coldPublicKey": ours.map(|host| host.public_key.clone()),
        },
        "publicURL": "http://10.0.0.9:9000",
        "managementPolicy": "Manage",
        "networkNode": {"type": "External", "external": {
            "adminURL": "http://10.0.0.9:9200",
            "publicURL": "http://10.0.0.9:9000",
            "expectedCallbackURL": net.dapi.callback_base,
        }},
    }})
}

fn deployment(plan: &DeploymentPlan) -> serde_json::Value {
    json!({"spec": {
        "hostRef": {"name": HOST},
        "model": {"id": plan.model, "repository": "recipe:tiny_qwen3_dense", "revision": "public-tiny-v1"},
        "engine": {"type": "Native", "native": {"scheme": "prefill_v2", "device": "CUDA", "dtype": "BF16"}},
        "gpusPerReplica": 1,
        "replicasPerSlot": 1,
        "slots": plan.slots,
        "spares": plan.spares,
        "placement": {"failureDomainKey": "kubernetes.io/hostname"},
    }})
}
