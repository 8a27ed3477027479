//! DAPI's public door, port 9000.

use super::{Inbound, Outbound, percent_decode};
use crate::{
    dapi::reply::Reply,
    driver::Shared,
    event::{Call, Origin, Request},
    faults::Port,
    views::dapi,
};
use futures::future::join_all;
use serde_json::json;

pub async fn answer(shared: &Shared, inbound: &Inbound) -> Outbound {
    let segments: Vec<String> = inbound.segments().into_iter().map(percent_decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (inbound.method.as_str(), segments.as_slice()) {
        ("GET", ["v1", "mlnodes", "metrics"]) => metrics(shared).await,
        (_, ["v1", "chat", "completions"] | ["v1", "completions"]) => {
            let gone = json!({"error": "deprecated", "message": "classic inference is deprecated; use devshard"});
            Outbound::json(410, gone)
                .with("deprecation", "true")
                .with("link", "</devshard/{version}>; rel=\"successor-version\"")
        }
        ("GET", segments) => read(shared, segments, inbound).into(),
        _ => Reply::error(405, "Method Not Allowed").into(),
    }
}

fn read(shared: &Shared, segments: &[&str], inbound: &Inbound) -> Reply {
    shared.view(Port::DapiPublic, |view| {
        let net = view.net;
        let body = match segments {
            ["v1", "status"] => json!({"status": "ok"}),
            ["v1", "identity"] => dapi::identity(net),
            ["v1", "versions"] => dapi::versions(net),
            ["v1", "epochs", "latest"] => dapi::epochs_latest(view),
            ["v1", "epochs", _] => {
                return Reply::error(400, "Only getting info for current epoch is supported at the moment");
            }
            ["v1", "epochs", which, "participants"] => {
                let index = if *which == "current" {
                    Some(net.effective_epoch())
                } else {
                    which.parse().ok()
                };
                let Some(index) = index else {
                    return Reply::error(400, "invalid epoch");
                };
                return match dapi::participants(view, index) {
                    Some(body) => Reply::json(200, body),
                    None => Reply::error(500, "failed to query active participants"),
                };
            }
            ["v1", "participants"] => dapi::all_participants(view),
            ["v1", "participants", address] | ["v2", "accounts", address] => {
                return dapi::account(view, address).map_or_else(
                    || Reply::error(404, "participant not found"),
                    |body| Reply::json(200, body),
                );
            }
            ["v1", "models"] => dapi::models(view),
            ["v1", "governance", "models"] => dapi::governance_models(view),
            ["v1", "pricing"] => dapi::pricing(view),
            ["v1", "poc-batches", _] => json!({"poc_batch": null}),
            ["v1", "poc", "artifacts", "state"] => return artifacts_state(shared, view, inbound),
            ["v1", "restrictions", "status"] => json!({"current_block_height": view.height()}),
            ["v1", "bridge", "status"] => json!({
                "pendingBlocksCount": 0,
                "pendingReceiptsCount": 0,
                "blockCountByNumber": {},
                "earliestBlockNumber": 0,
                "latestBlockNumber": 0,
            }),
            _ => return Reply::error(404, "Not Found"),
        };
        Reply::json(200, body)
    })
}

fn artifacts_state(_shared: &Shared, view: &crate::views::View, inbound: &Inbound) -> Reply {
    let Some(height) = inbound.query("height").filter(|text| !text.is_empty()) else {
        return Reply::error(400, "height query parameter required");
    };
    let Some(model) = inbound.query("model_id").filter(|text| !text.is_empty()) else {
        return Reply::error(400, "model_id query parameter required");
    };
    let Ok(height) = height.parse() else {
        return Reply::error(400, "invalid height");
    };
    match dapi::artifacts_state(view.net, height, model) {
        Some(body) => Reply::json(200, body),
        None => Reply::error(404, "artifact store not found"),
    }
}

/// The nodes' own metrics, fetched now and marked with their node's id. This path alone has no version prefix.
async fn metrics(shared: &Shared) -> Outbound {
    let calls: Vec<(String, Call)> = shared.read(|net| {
        let call = |node: &crate::dapi::Node| Call {
            request: Request::Other,
            origin: Origin::Job {
                node_id: node.spec.id.clone(),
                job: 0,
            },
            host: node.spec.host.clone(),
            port: node.spec.poc_port,
            method: "GET",
            path: "/api/v1/metrics".to_owned(),
            body: None,
            timeout_ms: net.dapi.timing.request_timeout_ms,
        };
        net.dapi
            .nodes
            .iter()
            .map(|node| (node.spec.id.clone(), call(node)))
            .collect()
    });
    let answers = join_all(calls.iter().map(|(_, call)| shared.nodes.send(call))).await;
    let mut text =
        "# HELP mlnode_up Whether the mlnode's metrics endpoint was reachable on the last scrape (1 = up).\n\
                    # TYPE mlnode_up gauge\n"
            .to_owned();
    let mut series = String::new();
    for ((id, _), answer) in calls.iter().zip(answers) {
        let answer = answer.ok().filter(crate::event::Answer::is_success);
        text.extend([format!(
            "mlnode_up{{node_id=\"{id}\"}} {}\n",
            u8::from(answer.is_some())
        )]);
        let body = answer.map(|answer| answer.text().into_owned()).unwrap_or_default();
        series.extend(
            body.lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .map(|line| marked(line, id)),
        );
    }
    Outbound::text(200, &(text + &series))
}

fn marked(line: &str, id: &str) -> String {
    if let Some((labels, value)) = line.split_once('}') {
        return format!("{labels},node_id=\"{id}\"}}{value}\n");
    }
    let (name, value) = line.split_once(' ').unwrap_or((line, ""));
    format!("{name}{{node_id=\"{id}\"}} {value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_gets_its_nodes_id() {
        assert_eq!(
            marked("up{schema=\"v1\"} 1", "ml-a"),
            "up{schema=\"v1\",node_id=\"ml-a\"} 1\n"
        );
        assert_eq!(marked("up 1", "ml-a"), "up{node_id=\"ml-a\"} 1\n");
    }
}
