//! DAPI's public door: epochs, participants, artifacts. Numbers are numbers, and zeros are left out where the real one
//! leaves them out.

use super::{View, confirmation_phase, rest_epoch::model_row, rest_host, shown_seed};
use crate::{
    dapi::claims,
    identity,
    network::{Confirmation, Network, Seat},
    stages::Stages,
    time,
};
use serde_json::{Map, Value, json};

pub fn epochs_latest(view: &View) -> Value {
    let net = view.net;
    let height = view.height();
    let stages = view.stages();
    let mut shown = json!({
        "block_height": height,
        "latest_epoch": {"index": stages.epoch, "poc_start_block_height": stages.poc_start},
        "phase": net.lengths().phase(height).as_ref(),
        "epoch_stages": epoch_stages(net, &stages),
        "next_epoch_stages": epoch_stages(net, &net.lengths().stages(stages.epoch + 1)),
        "epoch_params": without_zeros(&net.scenario.parameters.json["epoch_params"]),
        "is_confirmation_poc_active": view.confirmation().is_some(),
    });
    if let Some(event) = view.confirmation() {
        shown["active_confirmation_poc_event"] = confirmation(event, height);
    }
    shown
}

fn epoch_stages(net: &Network, stages: &Stages) -> Value {
    let exchange_end = stages.poc_generation_end + net.lengths().poc_exchange_duration;
    json!({
        "epoch_index": stages.epoch,
        "poc_start": stages.poc_start,
        "poc_generation_wind_down": stages.poc_generation_wind_down,
        "poc_generation_end": stages.poc_generation_end,
        "poc_validation_start": stages.poc_validation_start,
        "poc_validation_wind_down": stages.poc_validation_wind_down,
        "poc_validation_end": stages.poc_validation_end,
        "set_new_validators": stages.set_new_validators,
        "claim_money": stages.claim_money,
        "inference_validation_cutoff": stages.inference_validation_cutoff,
        "next_poc_start": stages.next_poc_start,
        "poc_exchange_window": {"start": stages.poc_start + 1, "end": exchange_end},
        "poc_validation_exchange_window": {"start": stages.poc_validation_start + 1, "end": stages.poc_validation_end},
    })
}

fn confirmation(event: &Confirmation, height: i64) -> Value {
    let mut shown = json!({
        "epoch_index": event.epoch,
        "trigger_height": event.window.stage_height,
        "generation_start_height": event.window.start,
        "phase": confirmation_phase(event, height).0,
    });
    if event.sequence > 0 {
        shown["event_sequence"] = event.sequence.into();
    }
    if !shown_seed(event, height).is_empty() {
        shown["poc_seed_block_hash"] = shown_seed(event, height).into();
    }
    shown
}

/// The chain's form (whole numbers as strings) in DAPI's: numbers, and what is zero or empty is absent.
pub fn without_zeros(value: &Value) -> Value {
    let Value::Object(fields) = value else {
        return number(value);
    };
    let kept: Map<String, Value> = fields
        .iter()
        .map(|(name, field)| (name.clone(), without_zeros(field)))
        .filter(|(_, field)| !is_zero(field))
        .collect();
    Value::Object(kept)
}

fn number(value: &Value) -> Value {
    match value {
        Value::String(text) => text.parse::<i64>().map_or_else(|_| value.clone(), Value::from),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.clone(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    }
}

/// A governance model in DAPI's form.
pub fn model(view: &View, id: &str) -> Value {
    without_zeros(&model_row(view, id))
}

/// `v1/epochs/current/participants`: those of the ruling epoch; before there is one, an error of the real DAPI.
pub fn participants(view: &View, index: u64) -> Option<Value> {
    let net = view.net;
    let epoch = net
        .epoch(index)
        .filter(|epoch| epoch.index > 0 && epoch.formed_height > 0)?;
    let stages = net.lengths().stages(index);
    let rows: Vec<Value> = epoch
        .seats
        .iter()
        .filter(|(_, seat)| seat.weight > 0)
        .map(|(host, seat)| participant(view, *host, seat, index))
        .collect();
    let addresses: Vec<String> = epoch
        .seats
        .iter()
        .filter(|(_, seat)| seat.weight > 0)
        .map(|(host, _)| super::consensus_key(net, *host).1)
        .collect();
    let mut active = json!({
        "participants": rows,
        "epoch_group_id": index,
        "poc_start_block_height": stages.poc_start,
        "effective_block_height": epoch.formed_height + 2,
        "created_at_block_height": epoch.formed_height,
        "epoch_id": index,
    });
    let bytes = active.to_string();
    if let Some(fields) = active.as_object_mut() {
        fields.retain(|_, field| !is_zero(field));
    }
    Some(json!({
        "active_participants": active,
        "addresses": addresses,
        "active_participants_bytes": hex::encode(bytes),
        "proof_ops": {"ops": []},
        "validators": validators(view),
        "block": super::rpc::block(view, epoch.formed_height + 1).map(|shown| without_zeros(&shown["block"])),
        "excluded_participants": super::rest_epoch::excluded_participants(view, index)["items"],
    }))
}

fn validators(view: &View) -> Vec<Value> {
    let powers = view.net.voting_powers();
    let row = |host: usize| {
        let (key, address) = super::consensus_key(view.net, host);
        json!({"address": address, "pub_key": key, "voting_power": powers[host], "proposer_priority": 0})
    };
    (0..view.net.hosts.len())
        .filter(|host| powers[*host] > 0)
        .map(row)
        .collect()
}

fn participant(view: &View, host: usize, seat: &Seat, epoch: u64) -> Value {
    let net = view.net;
    let address = &net.hosts[host].address;
    let models: Vec<&str> = net.scenario.models.iter().map(|model| model.id.as_str()).collect();
    let models: Vec<&str> = models
        .into_iter()
        .filter(|model| seat.nodes.iter().any(|node| node.model == *model))
        .collect();
    let nodes: Vec<Value> = models
        .iter()
        .map(|model| {
            let of_model: Vec<Value> = seat
                .nodes
                .iter()
                .filter(|node| node.model == *model)
                .map(|node| {
                    json!({"node_id": node.node_id, "poc_weight": node.poc_weight, "timeslot_allocation": [true, false]})
                })
                .collect();
            json!({"ml_nodes": of_model})
        })
        .collect();
    let powers: Vec<Value> = models
        .iter()
        .map(|model| json!({"model_id": model, "voting_power": seat.weight}))
        .collect();
    json!({
        "index": address,
        "validator_key": super::consensus_key(net, host).0,
        "weight": seat.weight,
        "inference_url": rest_host::public_url(view, host),
        "models": models,
        "seed": {"participant": address, "epoch_index": epoch, "signature": claims::signature(address, epoch)},
        "ml_nodes": nodes,
        "voting_powers": powers,
    })
}

/// `v1/participants`.
pub fn all_participants(view: &View) -> Value {
    let rows: Vec<Value> = (0..view.net.hosts.len())
        .map(|host| {
            json!({
                "id": view.net.hosts[host].address,
                "url": rest_host::public_url(view, host),
                "coins_owed": 0,
                "refunds_owed": 0,
                "balance": view.net.hosts[host].balance,
                "voting_power": 1,
                "reputation": 0,
            })
        })
        .collect();
    json!({"participants": rows, "block_height": view.height()})
}

pub fn account(view: &View, address: &str) -> Option<Value> {
    let host = &view.net.hosts[view.net.host_index(address)?];
    let key = hex::decode(&host.public_key).unwrap_or_default();
    Some(json!({"pubkey": kernels::artifact::to_base64(&key), "balance": host.balance, "denom": "ngonka"}))
}

/// Count and root of everything accepted, committed or not.
pub fn artifacts_state(net: &Network, stage_height: i64, model: &str) -> Option<Value> {
    let exam = net.exam_at(stage_height)?;
    let (count, root) = exam.entries[net.ours].books.get(model)?.state();
    Some(json!({
        "poc_stage_start_block_height": stage_height,
        "model_id": model,
        "count": count,
        "root_hash": kernels::artifact::to_base64(&root),
    }))
}

pub fn identity(net: &Network) -> Value {
    let signature = identity::signature(&["identity", &net.hosts[net.ours].address]);
    json!({
        "data": {
            "address": net.hosts[net.ours].address,
            "block": net.height(),
            "timestamp": time::rfc3339(net.now_ms),
        },
        "signature": kernels::artifact::to_base64(&hex::decode(signature).unwrap_or_default()),
    })
}

pub fn versions(net: &Network) -> Value {
    const COMMIT: &str = "26f7db559711ab5368633a46c70a192472e2fa12";
    let version = net.scenario.network.version.to_string();
    let nodes: Vec<Value> = net
        .dapi
        .nodes
        .iter()
        .map(|node| {
            json!({
                "node_id": node.spec.id,
                "version": node.version,
                "poc_validation_inference": node.poc_validation_inference,
            })
        })
        .collect();
    json!({
        "timestamp": time::rfc3339(net.now_ms),
        "api_version": {"application_name": "decentralized-api", "commit": COMMIT, "version": version},
        "node_version": {"application_name": "inference-chain", "commit": COMMIT, "version": version},
        "mlnodes": nodes,
    })
}

pub fn models(view: &View) -> Value {
    let rows: Vec<Value> = view
        .net
        .scenario
        .models
        .iter()
        .map(|model| {
            json!({
                "object": "model",
                "id": model.id,
                "hugging_face_id": model.id,
                "name": model.id,
                "created": view.net.now_ms / 1000,
                "input_modalities": ["text"],
                "output_modalities": ["text"],
                "context_length": 0,
                "max_output_length": 0,
            })
        })
        .collect();
    json!({"object": "list", "data": rows})
}

pub fn governance_models(view: &View) -> Value {
    let rows: Vec<Value> = view
        .net
        .scenario
        .models
        .iter()
        .map(|known| model(view, &known.id))
        .collect();
    json!({"models": rows})
}

pub fn pricing(view: &View) -> Value {
    let row = |model: &crate::scenario::Model| json!({"id": model.id, "units_of_compute_per_token": 100, "price_per_token": view.net.price(10_000)});
    let rows: Vec<Value> = view.net.scenario.models.iter().map(row).collect();
    json!({"unit_of_compute_price": view.net.price(100), "models": rows, "dynamic_pricing_enabled": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_disappear_and_strings_become_numbers() {
        let rest = json!({"a": "0", "b": "12", "c": {"value": "1", "exponent": -1}, "d": false, "e": "", "f": "x"});
        assert_eq!(
            without_zeros(&rest),
            json!({"b": 12, "c": {"value": 1, "exponent": -1}, "f": "x"})
        );
    }
}
