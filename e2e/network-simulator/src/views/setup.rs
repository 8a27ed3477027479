//! The setup report: what people look at when a host does not earn. Built from the network and from what each ML node
//! answered when the report was made.

use super::consensus_key;
use crate::{network::Network, time};
use serde_json::{Value, json};

const CACHED_MS: u64 = 60_000;

/// What one ML node answered to `/health` and `/api/v1/gpu/devices`.
#[derive(Debug, Clone)]
pub struct NodeAnswer {
    pub node_id: String,
    pub host: String,
    pub models: Vec<String>,
    /// The devices, or why there is no answer.
    pub devices: Result<Value, String>,
}

fn check(id: &str, status: &str, message: &str, details: Option<Value>) -> Value {
    let mut row = json!({"id": id, "status": status, "message": message});
    if let Some(details) = details {
        row["details"] = details;
    }
    row
}

/// The whole report.
pub fn report(net: &Network, nodes: &[NodeAnswer]) -> Value {
    let mut checks = account_checks(net);
    checks.push(active_in_epoch(net));
    let (key, _) = consensus_key(net, net.ours);
    let consensus = json!({"consensus_pubkey": key});
    checks.push(check(
        "validator_in_set",
        "PASS",
        "Validator is active in consensus validator set",
        Some(consensus),
    ));
    checks.push(check(
        "missed_requests_threshold",
        "PASS",
        "Missed requests: 0.0% (below 10% threshold)",
        Some(json!({"inference_count": 0, "missed_percentage": 0, "missed_requests": 0, "total_requests": 0})),
    ));
    checks.extend(nodes.iter().map(node_check));
    checks.push(block_sync(net));
    summarised(net, &checks)
}

fn account_checks(net: &Network) -> Vec<Value> {
    let host = &net.hosts[net.ours];
    let pubkey = kernels::artifact::to_base64(&hex::decode(&host.public_key).unwrap_or_default());
    let (consensus, _) = consensus_key(net, net.ours);
    let keys = json!({"cold_key_address": host.address, "warm_key_address": host.warm_address});
    let mut granted = keys.clone();
    granted["granted"] = 20.into();
    granted["missing"] = 0.into();
    let mut allowance = keys;
    let feegrant = if let Some(granted) = net.allowance(net.ours) {
        allowance["allowance_type"] = "BasicAllowance".into();
        allowance["expiration"] = time::rfc3339(granted.expires_ms).into();
        allowance["spend_limit"] = format!("{}ngonka", granted.left_ngonka).into();
        check(
            "feegrant_allowance",
            "PASS",
            "Fee allowance from cold to warm key is configured",
            Some(allowance),
        )
    } else {
        let message = "No fee allowance from cold to warm key. Warm-key txs cannot pay fees from the cold account";
        check("feegrant_allowance", "FAIL", message, Some(allowance))
    };
    let cold = json!({"address": host.address, "pubkey": pubkey});
    vec![
        check("cold_key_configured", "PASS", "Cold key is configured", Some(cold)),
        check(
            "cold_key_not_in_keyring",
            "PASS",
            "Cold key correctly NOT in keyring",
            None,
        ),
        check("warm_key_in_keyring", "PASS", "Warm key 'warm' found in keyring", None),
        check(
            "warm_key_address_match",
            "PASS",
            "Warm key address matches signer address",
            None,
        ),
        check(
            "permissions_granted",
            "PASS",
            "All 20 required permissions granted",
            Some(granted),
        ),
        feegrant,
        check(
            "consensus_key_match",
            "PASS",
            "Consensus key matches participant registration",
            Some(json!({"consensus_pubkey": consensus})),
        ),
    ]
}

fn active_in_epoch(net: &Network) -> Value {
    let index = net.effective_epoch();
    let Some(epoch) = net.epoch(index).filter(|epoch| epoch.index > 0) else {
        let message = format!("Failed to query active participants for epoch {index}");
        return check("active_in_epoch", "UNAVAILABLE", &message, None);
    };
    match epoch
        .seats
        .get(&net.ours)
        .map(|seat| seat.weight)
        .filter(|weight| *weight > 0)
    {
        Some(weight) => {
            let message = format!("Participant is active in epoch {index} with weight {weight}");
            check(
                "active_in_epoch",
                "PASS",
                &message,
                Some(json!({"epoch": index, "weight": weight})),
            )
        }
        None => {
            let message = format!("Participant is not active in epoch {index}");
            check("active_in_epoch", "FAIL", &message, Some(json!({"epoch": index})))
        }
    }
}

fn node_check(node: &NodeAnswer) -> Value {
    let id = format!("mlnode_{}", node.node_id);
    let mut details = json!({"host": node.host, "id": node.node_id, "models": node.models});
    match &node.devices {
        Ok(devices) => {
            details["gpus"] = gpus(devices);
            check(&id, "PASS", "MLNode is healthy", Some(details))
        }
        Err(error) => check(&id, "FAIL", &format!("MLNode is not healthy: {error}"), Some(details)),
    }
}

fn gpus(devices: &Value) -> Value {
    let rows = devices["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let gigabytes = |row: &Value, name: &str| row[name].as_f64().unwrap_or_default() / 1024.0;
    let shown: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "index": row["index"],
                "name": row["name"],
                "total_memory_gb": gigabytes(row, "total_memory_mb"),
                "free_memory_gb": gigabytes(row, "free_memory_mb"),
                "used_memory_gb": gigabytes(row, "used_memory_mb"),
                "utilization_percent": row["utilization_percent"],
                "temperature_c": row["temperature_c"],
                "available": row["is_available"],
            })
        })
        .collect();
    shown.into()
}

fn block_sync(net: &Network) -> Value {
    let block_ms = net.block(net.height()).map_or(net.started_ms, |block| block.unix_ms);
    let age = net.now_ms.saturating_sub(block_ms) / 1000;
    let details = json!({
        "latest_block_time": time::rfc3339(block_ms),
        "latest_height": net.height(),
        "seconds_since_block": age,
    });
    if age > 60 {
        let message = format!("Chain is behind. Latest block: {}, age: {age}s", net.height());
        check("block_sync", "FAIL", &message, Some(details))
    } else {
        let message = format!("Chain is synced. Latest block: {}, age: {age}s", net.height());
        check("block_sync", "PASS", &message, Some(details))
    }
}

fn summarised(net: &Network, checks: &[Value]) -> Value {
    let with = |status: &str| checks.iter().filter(|check| check["status"] == status).count();
    let (failed, unavailable) = (with("FAIL"), with("UNAVAILABLE"));
    let message = |check: &Value| check["message"].as_str().unwrap_or_default().to_owned();
    let mut issues: Vec<String> = checks
        .iter()
        .filter(|check| check["status"] == "FAIL")
        .map(message)
        .collect();
    let missing = checks.iter().filter(|check| check["status"] == "UNAVAILABLE");
    issues.extend(missing.map(|check| format!("Check unavailable: {}", message(check))));
    let mut recommendations = Vec::new();
    if net.allowance(net.ours).is_none() {
        recommendations.push(
            "Run `inferenced tx inference grant-ml-ops-permissions <cold-key> <warm-address>` to (re)grant the fee allowance",
        );
    }
    json!({
        "experimental": true,
        "generated_at": time::rfc3339(net.now_ms),
        "cached_until": time::rfc3339(net.now_ms + CACHED_MS),
        "overall_status": if failed > 0 { "FAIL" } else if unavailable > 0 { "UNAVAILABLE" } else { "PASS" },
        "summary": {
            "total_checks": checks.len(),
            "passed_checks": with("PASS"),
            "failed_checks": failed,
            "unavailable_checks": unavailable,
            "issues": issues,
            "recommendations": recommendations,
        },
        "checks": checks,
    })
}
