//! The chain's REST on one participant: itself, its nodes, its rewards.

use super::View;
use crate::{
    dapi::{PocStatus, Status, claims},
    network::{Conduct, Reward, Settlement},
};
use serde_json::{Value, json};

pub fn participant(view: &View, host: usize) -> Value {
    json!({"participant": row(view, host)})
}

pub fn participants(view: &View) -> Value {
    let rows: Vec<Value> = (0..view.net.hosts.len()).map(|host| row(view, host)).collect();
    json!({
        "pagination": {"next_key": null, "total": rows.len().to_string()},
        "participant": rows,
        "block_height": view.height().to_string(),
    })
}

/// Status of a host: inactive from a failed confirmation to the next epoch.
pub fn is_active(view: &View, host: usize) -> bool {
    view.net
        .epoch(view.effective_epoch())
        .is_none_or(|epoch| !epoch.excluded.contains_key(&host))
}

fn row(view: &View, host: usize) -> Value {
    let net = view.net;
    let joined = (net.started_ms / 1000).to_string();
    let seat = net
        .epoch(view.effective_epoch())
        .and_then(|epoch| epoch.seats.get(&host));
    let ratio = seat
        .filter(|seat| seat.ratio_bp < 10_000)
        .map(|seat| ratio(seat.ratio_bp));
    let completed = net.epochs.values().filter(|epoch| epoch.settlement.is_some()).count();
    let address = &net.hosts[host].address;
    let service = &net.hosts[host].account.service;
    json!({
        "index": address,
        "address": address,
        "weight": 1,
        "join_time": joined,
        "join_height": "0",
        "last_inference_time": joined,
        "inference_url": public_url(view, host),
        "status": if is_active(view, host) { "ACTIVE" } else { "INACTIVE" },
        "coin_balance": "0",
        "validator_key": super::consensus_key(net, host).0,
        "consecutive_invalid_inferences": "0",
        "worker_public_key": "",
        "epochs_completed": completed,
        "current_epoch_stats": {
            "inference_count": service.served.to_string(),
            "missed_requests": service.missed.to_string(),
            "earned_coins": "0",
            "rewarded_coins": "0",
            "burned_coins": "0",
            "validated_inferences": "0",
            "invalidated_inferences": service.invalid.to_string(),
            "invalidLLR": {"value": "0", "exponent": 0},
            "inactiveLLR": {"value": "0", "exponent": 0},
            "confirmationPoCRatio": ratio,
        },
    })
}

fn ratio(basis_points: u64) -> Value {
    json!({"value": basis_points.to_string(), "exponent": -4})
}

/// Where others reach a host.
pub fn public_url(view: &View, host: usize) -> String {
    if host == view.net.ours {
        view.net.dapi.public_url.clone()
    } else {
        format!("http://{}.gonka.test:9000", view.net.hosts[host].name)
    }
}

pub fn hardware_nodes(view: &View, host: usize) -> Value {
    json!({"nodes": hardware(view, host)})
}

pub fn hardware_nodes_all(view: &View) -> Value {
    let rows: Vec<Value> = (0..view.net.hosts.len()).map(|host| hardware(view, host)).collect();
    json!({"nodes": rows})
}

fn hardware(view: &View, host: usize) -> Value {
    let net = view.net;
    let rows: Vec<Value> = match net.hosts[host].conduct {
        Conduct::External => net.dapi.nodes.iter().map(external_row).collect(),
        Conduct::Simulated(conduct) => {
            let busy = net.exam.as_ref().is_some_and(|exam| exam.window.start <= view.height());
            let row = |index: u32| {
                json!({
                    "local_id": format!("{}-{index}", net.hosts[host].name),
                    "status": if busy { "POC" } else { "INFERENCE" },
                    "models": [net.scenario.models[conduct.model].id],
                    "hardware": [{"type": "NVIDIA H200 | 140GB", "count": 8}],
                    "host": format!("{}.gonka.test", net.hosts[host].name),
                    "port": "8080",
                    "version": "3.0.16",
                })
            };
            (0..conduct.nodes).map(row).collect()
        }
    };
    json!({"participant": net.hosts[host].address, "hardware_nodes": rows})
}

fn external_row(node: &crate::dapi::Node) -> Value {
    let (status, _): (Status, PocStatus) = node.current;
    json!({
        "local_id": node.spec.id,
        "status": status.to_string(),
        "models": node.spec.models.keys().collect::<Vec<_>>(),
        "hardware": node.spec.hardware,
        "host": node.spec.host,
        "port": node.spec.poc_port.to_string(),
        "version": node.version,
    })
}

/// The newest settlement that can still be claimed at this height, with its epoch.
pub fn claimable<'a>(view: &View<'a>) -> Option<(u64, &'a Settlement)> {
    let settled = view
        .net
        .epochs
        .iter()
        .rev()
        .filter_map(|(index, epoch)| epoch.settlement.as_ref().map(|settlement| (*index, settlement)));
    settled
        .filter(|(_, settlement)| settlement.height <= view.height())
        .max_by_key(|(index, _)| *index)
}

/// A reward not yet claimed.
pub fn settle_amount(view: &View, host: usize) -> Option<Value> {
    let (epoch, settlement) = claimable(view)?;
    let reward = settlement
        .rewards
        .get(&host)
        .filter(|reward| reward.claimed_height == 0)?;
    Some(json!({"settle_amount": amount(view, host, epoch, *reward)}))
}

pub fn settle_amounts(view: &View) -> Value {
    let rows: Vec<Value> = claimable(view)
        .map(|(epoch, settlement)| {
            let open = settlement
                .rewards
                .iter()
                .filter(|(_, reward)| reward.claimed_height == 0);
            open.map(|(host, reward)| amount(view, *host, epoch, *reward)).collect()
        })
        .unwrap_or_default();
    json!({"pagination": {"next_key": null, "total": rows.len().to_string()}, "settle_amount": rows})
}

fn amount(view: &View, host: usize, epoch: u64, reward: Reward) -> Value {
    let address = &view.net.hosts[host].address;
    json!({
        "participant": address,
        "reward_coins": reward.ngonka.to_string(),
        "work_coins": "0",
        "epoch_index": epoch.to_string(),
        "seed_signature": claims::signature(address, epoch),
        "last_claim_attempt": "0",
    })
}

pub fn epoch_performance_summary(view: &View, epoch: u64, host: usize) -> Option<Value> {
    let settlement = view.net.epoch(epoch)?.settlement.as_ref()?;
    let reward = settlement.rewards.get(&host)?;
    let claimed = reward.claimed_height > 0 && reward.claimed_height <= view.height();
    Some(json!({"epochPerformanceSummary": {
        "epoch_index": epoch.to_string(),
        "participant_id": view.net.hosts[host].address,
        "inference_count": "0",
        "missed_requests": "0",
        "earned_coins": "0",
        "rewarded_coins": if claimed { reward.ngonka } else { 0 }.to_string(),
        "burned_coins": "0",
        "validated_inferences": "0",
        "invalidated_inferences": "0",
        "claimed": claimed,
    }}))
}

pub fn current_stats(view: &View, host: usize) -> Value {
    let seat = view
        .net
        .epoch(view.effective_epoch())
        .and_then(|epoch| epoch.seats.get(&host));
    json!({"weight": seat.map_or(0, |seat| seat.weight).to_string(), "reputation": 0})
}
