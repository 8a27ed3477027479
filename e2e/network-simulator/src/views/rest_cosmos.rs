//! The Cosmos SDK's own REST: node, blocks, balances, grants, upgrade plan.

use super::{View, expiry};
use crate::{economy::allowance::Allowance, time};
use kernels::artifact::to_base64;
use serde_json::{Value, json};

/// Messages the warm key may sign for the cold one.
const GRANTED: [&str; 20] = [
    "/inference.bls.MsgRequestThresholdSignature",
    "/inference.bls.MsgRespondDealerComplaints",
    "/inference.bls.MsgSubmitDealerPart",
    "/inference.bls.MsgSubmitGroupKeyValidationSignature",
    "/inference.bls.MsgSubmitPartialSignature",
    "/inference.bls.MsgSubmitVerificationVector",
    "/inference.inference.MsgBridgeExchange",
    "/inference.inference.MsgClaimRewards",
    "/inference.inference.MsgFinishInference",
    "/inference.inference.MsgInvalidateInference",
    "/inference.inference.MsgMLNodeWeightDistribution",
    "/inference.inference.MsgPoCV2StoreCommit",
    "/inference.inference.MsgRevalidateInference",
    "/inference.inference.MsgSettleDevshardEscrow",
    "/inference.inference.MsgStartInference",
    "/inference.inference.MsgSubmitHardwareDiff",
    "/inference.inference.MsgSubmitPocValidationsV2",
    "/inference.inference.MsgSubmitSeed",
    "/inference.inference.MsgValidation",
    "/inference.restrictions.MsgExecuteEmergencyTransfer",
];

pub fn syncing() -> Value {
    json!({"syncing": false})
}

pub fn current_plan(view: &View) -> Value {
    view.net.upgrades.current_plan(view.height())
}

pub fn node_info(view: &View) -> Value {
    let status = super::rpc::status(view);
    let info = &status["node_info"];
    json!({
        "default_node_info": {
            "protocol_version": info["protocol_version"],
            "default_node_id": info["id"],
            "listen_addr": info["listen_addr"],
            "network": info["network"],
            "version": info["version"],
            "channels": to_base64(&hex::decode(info["channels"].as_str().unwrap_or_default()).unwrap_or_default()),
            "moniker": info["moniker"],
            "other": info["other"],
        },
        "application_version": {
            "name": "inference-chain",
            "app_name": "inferenced",
            "version": view.net.release(view.height()).to_string(),
            "git_commit": "26f7db559711ab5368633a46c70a192472e2fa12",
            "build_tags": "",
            "go_version": "go version go1.26.8 linux/amd64",
            "build_deps": [],
            "cosmos_sdk_version": "v0.53.3",
        },
    })
}

fn base64_of(value: &Value) -> Value {
    let bytes = hex::decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    to_base64(&bytes).into()
}

/// The RPC's block with hashes in base64, as the SDK shows it.
pub fn block(view: &View, height: i64) -> Option<Value> {
    let shown = super::rpc::block(view, height)?;
    let id = block_id(&shown["block_id"]);
    let mut block = shown["block"].clone();
    let header = &mut block["header"];
    header["version"]["app"] = "0".into();
    header["last_block_id"] = block_id(&header["last_block_id"]);
    for name in [
        "last_commit_hash",
        "data_hash",
        "validators_hash",
        "next_validators_hash",
        "consensus_hash",
        "app_hash",
        "last_results_hash",
        "evidence_hash",
    ] {
        header[name] = base64_of(&header[name]);
    }
    let proposer = header["proposer_address"].clone();
    header["proposer_address"] = base64_of(&proposer);
    block["last_commit"]["block_id"] = block_id(&block["last_commit"]["block_id"]);
    for signature in block["last_commit"]["signatures"].as_array_mut()? {
        signature["block_id_flag"] = "BLOCK_ID_FLAG_COMMIT".into();
        signature["validator_address"] = base64_of(&signature["validator_address"]);
    }
    let mut sdk_block = block.clone();
    let valcons = crate::identity::address("gonkavalcons", proposer.as_str().unwrap_or_default());
    sdk_block["header"]["proposer_address"] = valcons.into();
    Some(json!({"block_id": id, "block": block, "sdk_block": sdk_block}))
}

fn block_id(id: &Value) -> Value {
    let parts = &id["parts"];
    json!({
        "hash": base64_of(&id["hash"]),
        "part_set_header": {"total": parts["total"], "hash": base64_of(&parts["hash"])},
    })
}

pub fn balances(view: &View, address: &str) -> Value {
    let balance = view
        .net
        .host_index(address)
        .map(|host| view.net.hosts[host].balance)
        .filter(|amount| *amount > 0);
    let rows: Vec<Value> = balance
        .iter()
        .map(|amount| json!({"denom": "ngonka", "amount": amount.to_string()}))
        .collect();
    json!({"pagination": {"next_key": null, "total": rows.len().to_string()}, "balances": rows})
}

/// The cold account's fee allowance for the warm one; nothing when it was never granted.
pub fn allowance(view: &View, cold: &str, warm: &str) -> Option<Value> {
    let host = view.net.host_index(cold)?;
    if view.net.hosts[host].warm_address != warm {
        return None;
    }
    let allowance = view.net.allowance(host)?;
    Some(json!({"allowance": one_allowance(&allowance, cold, warm)}))
}

fn one_allowance(allowance: &Allowance, cold: &str, warm: &str) -> Value {
    json!({
        "granter": cold,
        "grantee": warm,
        "allowance": {
            "@type": "/cosmos.feegrant.v1beta1.BasicAllowance",
            "spend_limit": [{"denom": "ngonka", "amount": allowance.left_ngonka.to_string()}],
            "expiration": time::rfc3339(allowance.expires_ms),
        },
    })
}

pub fn allowances_issued(view: &View, granter: &str) -> Value {
    let rows: Vec<Value> = view
        .net
        .host_index(granter)
        .and_then(|host| {
            let warm = &view.net.hosts[host].warm_address;
            Some(one_allowance(&view.net.allowance(host)?, granter, warm))
        })
        .into_iter()
        .collect();
    json!({"pagination": {"next_key": null, "total": rows.len().to_string()}, "allowances": rows})
}

pub fn authz_grants(view: &View, granter: &str) -> Value {
    let rows: Vec<Value> = view
        .net
        .host_index(granter)
        .map(|host| {
            let grant = |message: &&str| {
                json!({
                    "granter": granter,
                    "grantee": view.net.hosts[host].warm_address,
                    "authorization": {"@type": "/cosmos.authz.v1beta1.GenericAuthorization", "msg": message},
                    "expiration": expiry(view.net),
                })
            };
            GRANTED.iter().map(grant).collect()
        })
        .unwrap_or_default();
    json!({"pagination": {"next_key": null, "total": rows.len().to_string()}, "grants": rows})
}
