//! DAPI's admin door, port 9200. Nobody has to say who they are.

use super::{Inbound, Outbound, percent_decode};
use crate::{
    dapi::{claims, job, nodes, reply::Reply},
    driver::Shared,
    event::{Answer, Call, Origin, Request},
    faults::Port,
    network::Network,
    views::{
        admin,
        setup::{self, NodeAnswer},
    },
};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts listings: each has another order.
static LISTINGS: AtomicU64 = AtomicU64::new(0);

pub async fn answer(shared: &Shared, inbound: &Inbound) -> Outbound {
    let segments: Vec<String> = inbound.segments().into_iter().map(percent_decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["admin", "v1", rest @ ..] = segments.as_slice() else {
        return Reply::error(404, "Not Found").into();
    };
    match (inbound.method.as_str(), rest) {
        ("GET", ["setup", "report"]) => Outbound::json(200, report(shared).await),
        ("POST", ["nodes", "version-status"]) => version_status(shared, &inbound.body).await.into(),
        ("GET", rest) => read(shared, rest).into(),
        (method, rest) => shared.change(|net| write(net, method, rest, &inbound.body)).into(),
    }
}

fn read(shared: &Shared, rest: &[&str]) -> Reply {
    let dapi = shared.ports.dapi;
    shared.view(Port::DapiAdmin, |view| match rest {
        ["nodes"] => Reply::json(200, admin::nodes(view, LISTINGS.fetch_add(1, Ordering::Relaxed))),
        ["nodes", "upgrade-status"] => Reply::json(200, json!({"message": "No upgrade plan active"})),
        ["config"] => Reply::json(200, admin::config(view.net, [dapi.public, dapi.ml, dapi.admin])),
        ["unit-of-compute-price-proposal"] => Reply::json(200, json!({"default": 100})),
        _ => Reply::error(404, "Not Found"),
    })
}

fn write(net: &mut Network, method: &str, rest: &[&str], body: &[u8]) -> (Reply, Vec<crate::event::Effect>) {
    let quiet = |reply| (reply, Vec::new());
    match (method, rest) {
        // The id in the path of a PUT is not looked at.
        ("POST", ["nodes"]) | ("PUT", ["nodes", _]) => nodes::upsert(net, body),
        ("POST", ["nodes", "batch"]) => nodes::upsert_batch(net, body),
        ("DELETE", ["nodes", id]) => quiet(nodes::delete(net, id)),
        ("POST", ["nodes", id, "enable"]) => quiet(nodes::set_enabled(net, id, true)),
        ("POST", ["nodes", id, "disable"]) => quiet(nodes::set_enabled(net, id, false)),
        ("POST", ["claim-reward", "recover"]) => quiet(recover(net, body)),
        _ => quiet(Reply::error(404, "Not Found")),
    }
}

#[derive(Debug, Default, Deserialize)]
struct Recover {
    #[serde(default)]
    force_claim: bool,
    #[serde(default)]
    epoch_index: Option<u64>,
    #[serde(default)]
    seed: Option<i64>,
}

/// A claim by hand, valid for the previous epoch only; the seed may come from outside when the database is lost.
fn recover(net: &mut Network, body: &[u8]) -> Reply {
    let wanted: Recover = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(error) => return Reply::error(400, &error.to_string()),
    };
    let Some(previous) = net.effective_epoch().checked_sub(1) else {
        return Reply::error(400, "there is no previous epoch");
    };
    let epoch = wanted.epoch_index.unwrap_or(previous);
    if epoch != previous {
        return Reply::error(400, &format!("epoch {epoch} can no longer be claimed, only {previous}"));
    }
    let known = net.dapi.seeds.get(&epoch).map(|seed| (seed.seed, seed.claimed));
    let Some(seed) = wanted.seed.or_else(|| known.map(|(seed, _)| seed)) else {
        return Reply::error(400, "seed not found: pass it in the request");
    };
    let already = known.is_some_and(|(_, claimed)| claimed);
    let (ours, height) = (net.ours, net.height());
    let paid = (wanted.force_claim || !already) && net.dapi.can_transact() && claims::claim(net, ours, epoch, height);
    Reply::json(
        200,
        json!({
            "success": paid || already,
            "message": if paid { "Claim executed" } else { "Nothing to claim" },
            "epoch_index": epoch,
            "seed": seed,
            "missed_validations": 0,
            "already_claimed": already,
            "claim_executed": paid,
        }),
    )
}

fn get(net: &Network, node: &crate::dapi::Node, path: String) -> Call {
    Call {
        request: Request::Other,
        origin: Origin::Job {
            node_id: node.spec.id.clone(),
            job: 0,
        },
        host: node.spec.host.clone(),
        port: node.spec.poc_port,
        method: "GET",
        path,
        body: None,
        timeout_ms: net.dapi.timing.request_timeout_ms,
    }
}

/// The setup report asks every node for its health and its GPUs. The real one is cached for a minute; tests do not wait.
async fn report(shared: &Shared) -> Value {
    let asked: Vec<(NodeAnswer, Call, Call)> = shared.read(|net| {
        let ask = |node: &crate::dapi::Node| {
            let prefix = format!("/{}{}", job::NODE_VERSION, job::segment_path(&node.spec.poc_segment));
            let blank = NodeAnswer {
                node_id: node.spec.id.clone(),
                host: node.spec.host.clone(),
                models: node.spec.models.keys().cloned().collect(),
                devices: Err("not asked".to_owned()),
            };
            let health = get(net, node, format!("{prefix}/health"));
            (blank, health, get(net, node, format!("{prefix}/api/v1/gpu/devices")))
        };
        net.dapi.nodes.iter().map(ask).collect()
    });
    let answers = join_all(asked.into_iter().map(|(blank, health, devices)| async move {
        let devices = match shared.nodes.send(&health).await {
            Ok(answer) if answer.is_success() => shared
                .nodes
                .send(&devices)
                .await
                .map(|answer| answer.json().into_owned()),
            Ok(answer) => Err(format!("health answered {}", answer.status)),
            Err(error) => Err(error),
        };
        NodeAnswer { devices, ..blank }
    }))
    .await;
    shared.read(|net| setup::report(net, &answers))
}

#[derive(Debug, Deserialize)]
struct VersionStatus {
    #[serde(default)]
    version: String,
}

/// Whether nodes answer under a version's path. Who was alive once is never asked again while DAPI lives.
async fn version_status(shared: &Shared, body: &[u8]) -> Reply {
    let version = match serde_json::from_slice::<VersionStatus>(body) {
        Ok(VersionStatus { version }) if !version.is_empty() && !version.contains(['/', ' ', '\r', '\n']) => version,
        Ok(_) => return Reply::error(400, "version is required"),
        Err(error) => return Reply::error(400, &error.to_string()),
    };
    let asked: Vec<(String, Option<Call>)> = shared.read(|net| {
        let ask = |node: &crate::dapi::Node| {
            let id = node.spec.id.clone();
            let known = net.dapi.seen_alive.contains(&(id.clone(), version.clone()));
            (id, (!known).then(|| get(net, node, format!("/{version}/api/v1/state"))))
        };
        net.dapi.nodes.iter().map(ask).collect()
    });
    let rows = join_all(asked.into_iter().map(|(id, call)| async move {
        let Some(call) = call else {
            return (id, json!({"is_alive": true, "error": ""}));
        };
        let row = match shared.nodes.send(&call).await {
            Ok(answer) if Answer::is_success(&answer) => json!({"is_alive": true, "error": ""}),
            Ok(answer) => json!({"is_alive": false, "error": format!("status {}", answer.status)}),
            Err(error) => json!({"is_alive": false, "error": error}),
        };
        (id, row)
    }))
    .await;
    shared.change(|net| {
        let alive = rows.iter().filter(|(_, row)| row["is_alive"] == Value::Bool(true));
        net.dapi
            .seen_alive
            .extend(alive.map(|(id, _)| (id.clone(), version.clone())));
        ((), Vec::new())
    });
    Reply::json(200, rows.into_iter().collect::<serde_json::Map<String, Value>>().into())
}
