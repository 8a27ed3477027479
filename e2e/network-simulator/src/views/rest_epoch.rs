//! The chain's REST on epochs: parameters, stages, who holds what.

use super::{View, confirmation_phase, shown_seed};
use crate::{
    coefficients,
    dapi::claims,
    identity,
    network::{Confirmation, Epoch, Network},
};
use kernels::decoder::Dtype;
use serde_json::{Value, json};

/// Who proposed the models, as the network's genesis says.
pub const AUTHORITY: &str = "gonka10d07y265gmmuvt4z0w9aw880jnsr700j2h5m33";

pub fn params(view: &View) -> Value {
    json!({"params": view.net.scenario.parameters.json})
}

pub fn epoch_info(view: &View) -> Value {
    let epoch = view.latest_epoch();
    json!({
        "block_height": view.height().to_string(),
        "params": view.net.scenario.parameters.json,
        "latest_epoch": {"index": epoch.to_string(), "poc_start_block_height": view.stages().poc_start.to_string()},
        "is_confirmation_poc_active": view.confirmation().is_some(),
        "active_confirmation_poc_event": view.confirmation().map(|event| confirmation(view, event)),
    })
}

pub fn get_current_epoch(view: &View) -> Value {
    json!({"epoch": view.effective_epoch().to_string()})
}

pub fn active_confirmation_poc_event(view: &View) -> Value {
    let event = view.confirmation().map(|event| confirmation(view, event));
    json!({"is_active": event.is_some(), "event": event})
}

pub fn confirmation_poc_events(view: &View, epoch: u64) -> Value {
    let height = view.height();
    let over = |event: &&Confirmation| event.cleared <= height;
    let events: Vec<Value> = view
        .net
        .epoch(epoch)
        .map(|epoch| {
            epoch
                .confirmations
                .iter()
                .filter(over)
                .map(|event| confirmation(view, event))
                .collect()
        })
        .unwrap_or_default();
    json!({"events": events})
}

fn confirmation(view: &View, event: &Confirmation) -> Value {
    let height = view.height();
    json!({
        "epoch_index": event.epoch.to_string(),
        "event_sequence": event.sequence.to_string(),
        "trigger_height": event.window.stage_height.to_string(),
        "generation_start_height": event.window.start.to_string(),
        "phase": confirmation_phase(event, height).1,
        "poc_seed_block_hash": shown_seed(event, height),
    })
}

/// The ruling epoch's group.
pub fn current_epoch_group_data(view: &View) -> Option<Value> {
    epoch_group_data(view, view.effective_epoch(), None)
}

/// An epoch's group, or that of one of its models. Before the Sprint is tallied it is there and empty.
pub fn epoch_group_data(view: &View, index: u64, model: Option<&str>) -> Option<Value> {
    if index == 0 || index > view.latest_epoch() {
        return None;
    }
    let net = view.net;
    if model.is_some_and(|id| net.model(id).is_none()) {
        return None;
    }
    let empty = Epoch {
        index,
        ..Epoch::default()
    };
    let epoch = net.epoch(index).unwrap_or(&empty);
    let stages = net.lengths().stages(index);
    let effective = view.height() >= stages.set_new_validators;
    let weights = if effective {
        weights(view, epoch, model)
    } else {
        Vec::new()
    };
    let total: u64 = if effective {
        epoch.seats.values().map(|seat| seat.weight).sum()
    } else {
        0
    };
    // Groups are numbered as they are made: an epoch's own, then one per model.
    let place = model.and_then(|id| net.scenario.models.iter().position(|known| known.id == id));
    let root = 2 + (index - 1) * (net.scenario.models.len() as u64 + 1);
    let group = root + place.map_or(0, |place| place as u64 + 1);
    let models: Vec<&str> = net.scenario.models.iter().map(|model| model.id.as_str()).collect();
    Some(json!({"epoch_group_data": {
        "poc_start_block_height": stages.poc_start.to_string(),
        "epoch_group_id": group.to_string(),
        "epoch_policy": identity::address("gonka", &format!("epoch policy {index} {}", model.unwrap_or_default())),
        "effective_block_height": if effective { stages.set_new_validators } else { 0 }.to_string(),
        "last_block_height": "0",
        "member_seed_signatures": if effective && model.is_none() { seed_signatures(view, epoch) } else { Vec::new() },
        "validation_weights": weights,
        "unit_of_compute_price": if effective { net.price(100) } else { 0 }.to_string(),
        "number_of_requests": "0",
        "previous_epoch_requests": "0",
        "validation_params": effective.then(|| net.scenario.parameters.json["validation_params"].clone()),
        "total_weight": total.to_string(),
        "model_id": model.unwrap_or_default(),
        "sub_group_models": if model.is_none() { models } else { Vec::new() },
        "epoch_index": index.to_string(),
        "model_snapshot": model.map(|id| model_row(view, id)),
        "total_throughput": "0",
        "confirmation_weight_scales": if effective && model.is_none() { scales(view, epoch) } else { Vec::new() },
    }}))
}

fn scales(view: &View, epoch: &Epoch) -> Vec<Value> {
    let scale = |model: &crate::scenario::Model| {
        let scale = view
            .net
            .scale(epoch.index, &model.id)
            .unwrap_or(model.weight_scale_factor);
        let mut row = json!({"model_id": model.id, "weight_scale_factor": scale.rest()});
        if let Some(scale) = epoch.scales.get(&model.id) {
            row["base_coefficient"] = coefficients::decimal(scale.state.base).rest();
        }
        row
    };
    view.net.scenario.models.iter().map(scale).collect()
}

fn weights(view: &View, epoch: &Epoch, model: Option<&str>) -> Vec<Value> {
    let rows = epoch.seats.iter().filter(|(_, seat)| seat.weight > 0).map(|(host, seat)| {
        let nodes: Vec<Value> = seat
            .nodes
            .iter()
            .filter(|node| model == Some(node.model.as_str()))
            .map(|node| {
                json!({"node_id": node.node_id, "poc_weight": node.poc_weight.to_string(), "timeslot_allocation": [true, false]})
            })
            .collect();
        json!({
            "member_address": view.net.hosts[*host].address,
            "weight": seat.weight.to_string(),
            "reputation": 0,
            "ml_nodes": nodes,
            "confirmation_weight": seat.confirmation_weight.to_string(),
            "voting_power": if model.is_some() { seat.weight } else { 0 }.to_string(),
        })
    });
    rows.collect()
}

fn seed_signatures(view: &View, epoch: &Epoch) -> Vec<Value> {
    let rows = epoch.seeds.iter().map(|host| {
        let address = &view.net.hosts[*host].address;
        json!({"member_address": address, "signature": claims::signature(address, epoch.index)})
    });
    rows.collect()
}

pub fn random_seeds(view: &View, index: u64) -> Value {
    let seeds: Vec<Value> = view
        .net
        .epoch(index)
        .map(|epoch| {
            let row = |host: &usize| {
                let address = &view.net.hosts[*host].address;
                let signature = claims::signature(address, index);
                json!({"participant": address, "epoch_index": index.to_string(), "signature": signature})
            };
            epoch.seeds.iter().map(row).collect()
        })
        .unwrap_or_default();
    json!({"seeds": seeds})
}

/// Arguments that the chain prescribes for a model's engine.
pub fn model_args(net: &Network, id: &str) -> Vec<String> {
    let dtype = net.model(id).map_or("auto", |model| match model.dtype {
        Dtype::F32 => "float32",
        Dtype::Bf16 => "bfloat16",
    });
    vec!["--dtype".to_owned(), dtype.to_owned()]
}

/// A governance model in the chain's form.
pub fn model_row(view: &View, id: &str) -> Value {
    let revision = identity::upper_hash(&["revision", id]).to_lowercase();
    let throughput = view.net.model(id).map_or(0, |model| 10_000 / model.seq_len.max(1));
    let dtype = view.net.model(id).map_or("auto", |model| match model.dtype {
        kernels::decoder::Dtype::F32 => "float32",
        kernels::decoder::Dtype::Bf16 => "bfloat16",
    });
    json!({
        "proposed_by": AUTHORITY,
        "id": id,
        "units_of_compute_per_token": "100",
        "context_window": "0",
        "quantization": "",
        "coins_per_input_token": "0",
        "coins_per_output_token": "0",
        "hf_repo": id,
        "hf_commit": revision[..40],
        "model_args": ["--dtype", dtype],
        "v_ram": "24",
        "throughput_per_nonce": throughput.to_string(),
        "validation_threshold": {"value": "85", "exponent": -2},
    })
}

pub fn models_all(view: &View) -> Value {
    let models: Vec<Value> = view
        .net
        .scenario
        .models
        .iter()
        .map(|model| model_row(view, &model.id))
        .collect();
    let total = models.len().to_string();
    json!({"model": models, "pagination": {"next_key": null, "total": total}})
}

/// What excluded a host: its service, else a confirmation.
fn reason(view: &View, host: usize) -> &'static str {
    let rule = &view.net.scenario.parameters.service;
    if view.net.hosts[host].account.service.is_inactive(rule) {
        "downtime"
    } else {
        "failed_confirmation_poc"
    }
}

pub fn excluded_participants(view: &View, index: u64) -> Value {
    let items: Vec<Value> = view
        .net
        .epoch(index)
        .map(|epoch| {
            let row = |(host, height): (&usize, &i64)| {
                json!({
                    "address": view.net.hosts[*host].address,
                    "epoch_index": index.to_string(),
                    "reason": reason(view, *host),
                    "exclusion_block_height": height.to_string(),
                })
            };
            epoch
                .excluded
                .iter()
                .filter(|(_, height)| **height <= view.height())
                .map(row)
                .collect()
        })
        .unwrap_or_default();
    json!({"items": items})
}
