//! CometBFT's RPC: blocks, status, validators, and the NewBlock event.

use super::{View, consensus_key};
use crate::{blocks::Block, identity, time};
use serde_json::{Value, json};

/// SHA-256 of nothing: the hash of an empty list.
const EMPTY_HASH: &str = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
const COMET_VERSION: &str = "0.38.19";

/// An answer of the RPC.
pub fn success(id: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

pub fn failure(id: &Value, code: i64, message: &str, data: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, "data": data}})
}

pub fn status(view: &View) -> Value {
    let latest = view.block(view.height()).unwrap_or_else(|| genesis(view));
    let earliest = view.block(1).unwrap_or_else(|| genesis(view));
    json!({
        "node_info": node_info(view),
        "sync_info": {
            "latest_block_hash": latest.hash,
            "latest_app_hash": app_hash(view, latest.height - 1),
            "latest_block_height": latest.height.to_string(),
            "latest_block_time": time::rfc3339(latest.unix_ms),
            "earliest_block_hash": earliest.hash,
            "earliest_app_hash": EMPTY_HASH,
            "earliest_block_height": earliest.height.to_string(),
            "earliest_block_time": time::rfc3339(earliest.unix_ms),
            "catching_up": false,
        },
        "validator_info": {
            "address": consensus_key(view.net, view.net.ours).1,
            "pub_key": {"type": "tendermint/PubKeyEd25519", "value": consensus_key(view.net, view.net.ours).0},
            "voting_power": view.net.voting_powers()[view.net.ours].to_string(),
        },
    })
}

fn genesis(view: &View) -> Block {
    Block {
        height: 0,
        unix_ms: view.net.started_ms,
        hash: String::new(),
    }
}

fn node_info(view: &View) -> Value {
    let id = identity::upper_hash(&["node", &view.endpoint.to_string(), &view.net.seed()]);
    json!({
        "protocol_version": {"p2p": "8", "block": "11", "app": "0"},
        "id": id[..40].to_lowercase(),
        "listen_addr": "tcp://0.0.0.0:26656",
        "network": view.chain_id(),
        "version": COMET_VERSION,
        "channels": "40202122233038606100",
        "moniker": format!("endpoint-{}", view.endpoint + 1),
        "other": {"tx_index": "on", "rpc_address": "tcp://0.0.0.0:26657"},
    })
}

pub fn net_info() -> Value {
    json!({"listening": true, "listeners": ["Listener(@)"], "n_peers": "0", "peers": []})
}

pub fn abci_info(view: &View) -> Value {
    let hash = hex::decode(app_hash(view, view.height())).unwrap_or_default();
    json!({"response": {
        "data": "inference",
        "version": view.net.scenario.network.version.to_string(),
        "last_block_height": view.height().to_string(),
        "last_block_app_hash": kernels::artifact::to_base64(&hash),
    }})
}

pub fn validators(view: &View) -> Value {
    let powers = view.net.voting_powers();
    let rows: Vec<Value> = (0..view.net.hosts.len())
        .filter(|host| powers[*host] > 0)
        .map(|host| {
            let (key, address) = consensus_key(view.net, host);
            json!({
                "address": address,
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": key},
                "voting_power": powers[host].to_string(),
                "proposer_priority": "0",
            })
        })
        .collect();
    let count = rows.len().to_string();
    json!({"block_height": (view.height() + 1).to_string(), "validators": rows, "count": count, "total": count})
}

pub fn block(view: &View, height: i64) -> Option<Value> {
    let block = view.block(height)?;
    Some(json!({"block_id": block_id(&block), "block": block_body(view, &block)}))
}

fn block_id(block: &Block) -> Value {
    if block.hash.is_empty() {
        return json!({"hash": "", "parts": {"total": 0, "hash": ""}});
    }
    json!({"hash": block.hash, "parts": {"total": 1, "hash": identity::upper_hash(&["parts", &block.hash])}})
}

fn block_body(view: &View, block: &Block) -> Value {
    let before = view.block(block.height - 1).unwrap_or_else(|| genesis(view));
    let validators = identity::upper_hash(&["validators", &view.net.seed()]);
    let (_, proposer) = consensus_key(view.net, view.net.ours);
    let time = time::rfc3339(block.unix_ms);
    let signature = identity::signature(&["commit", &before.hash]);
    let signature = kernels::artifact::to_base64(&hex::decode(signature).unwrap_or_default());
    json!({
        "header": {
            "version": {"block": "11"},
            "chain_id": view.chain_id(),
            "height": block.height.to_string(),
            "time": time,
            "last_block_id": block_id(&before),
            "last_commit_hash": identity::upper_hash(&["last commit", &before.hash]),
            "data_hash": EMPTY_HASH,
            "validators_hash": validators,
            "next_validators_hash": validators,
            "consensus_hash": identity::upper_hash(&["consensus parameters"]),
            "app_hash": app_hash(view, block.height - 1),
            "last_results_hash": EMPTY_HASH,
            "evidence_hash": EMPTY_HASH,
            "proposer_address": proposer,
        },
        "data": {"txs": []},
        "evidence": {"evidence": []},
        "last_commit": {
            "height": before.height.to_string(),
            "round": 0,
            "block_id": block_id(&before),
            "signatures": [{
                "block_id_flag": 2,
                "validator_address": proposer,
                "timestamp": time,
                "signature": signature,
            }],
        },
    })
}

fn app_hash(view: &View, height: i64) -> String {
    identity::upper_hash(&["app", &view.net.seed(), &height.to_string()])
}

pub fn block_results(view: &View, height: i64) -> Option<Value> {
    view.block(height)?;
    Some(json!({
        "height": height.to_string(),
        "txs_results": null,
        "finalize_block_events": [],
        "validator_updates": null,
        "consensus_param_updates": consensus_params(),
        "app_hash": app_hash_base64(view, height),
    }))
}

fn consensus_params() -> Value {
    json!({
        "block": {"max_bytes": "22020096", "max_gas": "-1"},
        "evidence": {"max_age_num_blocks": "100000", "max_age_duration": "172800000000000", "max_bytes": "1048576"},
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {},
        "abci": {},
    })
}

fn app_hash_base64(view: &View, height: i64) -> String {
    kernels::artifact::to_base64(&hex::decode(app_hash(view, height)).unwrap_or_default())
}

/// What a subscriber of `tm.event='NewBlock'` gets.
pub fn new_block_event(view: &View, height: i64, query: &str) -> Option<Value> {
    let block = view.block(height)?;
    Some(json!({
        "query": query,
        "data": {"type": "tendermint/event/NewBlock", "value": {
            "block": block_body(view, &block),
            "block_id": block_id(&block),
            "result_finalize_block": {
                "events": [],
                "validator_updates": [],
                "consensus_param_updates": consensus_params(),
                "app_hash": app_hash_base64(view, height),
            },
        }},
        "events": {"tm.event": ["NewBlock"]},
    }))
}
