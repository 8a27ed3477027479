//! DAPI's admin door: nodes with their state, in an order that differs from call to call, and the unsanitised config.

use super::{View, dapi::model};
use crate::{
    dapi::{Node, PocStatus, Seed, Status},
    identity,
    network::Network,
    time,
};
use serde_json::{Map, Value, json};

pub fn nodes(view: &View, call: u64) -> Value {
    let mut rows: Vec<Value> = view.net.dapi.nodes.iter().map(|node| row(view, node)).collect();
    identity::shuffle(&mut rows, &["list", &call.to_string()]);
    rows.into()
}

fn row(view: &View, node: &Node) -> Value {
    let mut spec = json!(node.spec);
    spec["node_num"] = node.node_num.into();
    json!({"node": spec, "state": state(view, node)})
}

fn state(view: &View, node: &Node) -> Value {
    let (intended, poc_intended) = node.intended;
    let (current, poc_current) = node.current;
    let mut state = json!({
        "intended_status": intended.to_string(),
        "current_status": current.to_string(),
        "poc_intended_status": poc_intended.to_string(),
        "poc_current_status": poc_current.to_string(),
        "lock_count": 0,
        "failure_reason": node.failure_reason,
        "status_timestamp": time::rfc3339(node.status_ms),
        "admin_state": node.admin,
        "ml_node_version": node.version,
        "poc_validation_inference": node.poc_validation_inference,
        "epoch_models": epoch_models(view, node),
        "epoch_ml_nodes": epoch_ml_nodes(view.net, node),
        "preserved_models": preserved_models(view.net, node),
    });
    // Shown while a job brings the node somewhere else than it is.
    if node.job.is_some() && (intended, poc_intended) != (current, poc_current) {
        state["reconcile_info"] = reconcile_info(intended, poc_intended);
    }
    state
}

fn reconcile_info(status: Status, poc_status: PocStatus) -> Value {
    json!({"status": status.number(), "poc_status": poc_status.to_string()})
}

/// The ruling epoch's models of a node; empty before its first epoch.
fn epoch_models(view: &View, node: &Node) -> Value {
    let seats = seat_nodes(view.net, node);
    let models: Map<String, Value> = seats
        .into_iter()
        .map(|(id, _)| (id.to_owned(), model(view, id)))
        .collect();
    Value::Object(models)
}

fn seat_nodes<'a>(net: &'a Network, node: &Node) -> Vec<(&'a str, u64)> {
    let seat = net
        .epoch(net.effective_epoch())
        .and_then(|epoch| epoch.seats.get(&net.ours));
    let nodes = seat.map(|seat| seat.nodes.as_slice()).unwrap_or_default();
    nodes
        .iter()
        .filter(|known| known.node_id == node.spec.id)
        .map(|known| (known.model.as_str(), known.poc_weight))
        .collect()
}

fn epoch_ml_nodes(net: &Network, node: &Node) -> Value {
    let rows: Map<String, Value> = seat_nodes(net, node)
        .into_iter()
        .map(|(model, weight)| {
            let row = json!({"node_id": node.spec.id, "poc_weight": weight, "timeslot_allocation": [true, false]});
            (model.to_owned(), row)
        })
        .collect();
    Value::Object(rows)
}

fn preserved_models(net: &Network, node: &Node) -> Value {
    let preserved = net.dapi.preserved.contains(&node.spec.id);
    let rows: Map<String, Value> = node
        .model()
        .filter(|_| preserved)
        .map(|model| (model.clone(), true.into()))
        .into_iter()
        .collect();
    Value::Object(rows)
}

fn seed(net: &Network, epoch: Option<u64>) -> Value {
    let nobody = Seed {
        seed: 0,
        signature: String::new(),
        claimed: true,
    };
    let known = epoch.and_then(|epoch| Some((epoch, net.dapi.seeds.get(&epoch)?)));
    let (epoch, seed) = known.unwrap_or((0, &nobody));
    json!({"seed": seed.seed, "epoch_index": epoch, "signature": seed.signature, "claimed": seed.claimed})
}

pub fn config(net: &Network, ports: [u16; 3]) -> Value {
    let nodes: Vec<Value> = net.dapi.nodes.iter().map(|node| json!(node.spec)).collect();
    let models: Vec<Value> = net
        .scenario
        .models
        .iter()
        .map(|model| json!({"model_id": model.id, "seq_len": model.seq_len}))
        .collect();
    let key = hex::decode(&net.hosts[net.ours].public_key).unwrap_or_default();
    let ruling = net.effective_epoch();
    let [public, ml, admin] = ports;
    json!({
        "api": {
            "port": 8080,
            "poc_callback_url": net.dapi.callback_base,
            "ml_grpc_callback_address": "",
            "public_url": net.dapi.public_url,
            "public_server_port": public,
            "ml_server_port": ml,
            "admin_server_port": admin,
            "ml_grpc_server_port": 0,
            "test_mode": false,
            "node_manager_grpc_port": 9400,
            "node_manager_lock_ttl_seconds": 0,
            "mlnode_metrics_disabled": false,
        },
        "nodes": nodes,
        "merged_node_config": false,
        "chain_node": {
            "url": "http://127.0.0.1:26657",
            "is_genesis": true,
            "seed_api_url": net.dapi.public_url,
            "account_public_key": kernels::artifact::to_base64(&key),
            "signer_key_name": "warm",
            "keyring_backend": "test",
            "keyring_dir": "/root/.inference",
            "min_gas_price_ngonka": 0,
        },
        "upcoming_seed": seed(net, Some(ruling + 1)),
        "current_seed": seed(net, Some(ruling)),
        "previous_seed": seed(net, ruling.checked_sub(1)),
        "current_height": net.height(),
        "last_processed_height": net.height(),
        "upgrade_plan": {"name": "", "height": 0, "binaries": null, "node_version": ""},
        "ml_node_key_config": {"worker_public": "", "worker_private": ""},
        "nats": {"host": "127.0.0.1", "port": 4222, "MaxMessagesAgeSeconds": 0},
        "tx_batching": {
            "disabled": false,
            "flush_size": 0,
            "flush_timeout_seconds": 0,
            "validation_v2_flush_size": 0,
            "validation_v2_flush_timeout_seconds": 3,
            "poc_commit_interval_seconds": net.dapi.timing.commit_interval_ms.div_ceil(1000),
        },
        "current_node_version": crate::dapi::job::NODE_VERSION,
        "last_used_version": crate::dapi::job::NODE_VERSION,
        "validation_params": {
            "timestamp_expiration": 60,
            "timestamp_advance": 30,
            "expiration_blocks": 20,
            "logprobs_mode": "processed_logprobs",
        },
        "bandwidth_params": {
            "estimated_limits_per_block_kb": 10752,
            "kb_per_input_token": 0.0023,
            "kb_per_output_token": 0.64,
            "max_inferences_per_block": 1000,
        },
        "poc_params": {"models": models},
        "early_share_guard": {
            "mode": "enforce",
            "first_fraction": 1.0 / 3.0,
            "threshold_ratio": crate::early::THRESHOLD_BP as f64 / 10_000.0,
            "require_inclusion_proof": true,
            "inclusion_sample_size": 5,
        },
    })
}
