//! Whether what is served has the shape of what was recorded: the same keys, and values of the same kinds.

use super::{directory, twin};
use crate::{
    driver::{
        Shared,
        clock::Clock,
        ports::{DapiNumbers, Numbers},
    },
    faults::Port,
    http::{Content, Inbound, dapi_admin, dapi_ml, dapi_public, rest, rpc},
    scenario::verb::Verb,
    views::rpc::new_block_event,
};
use axum::body::Bytes;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

/// Keys whose objects are maps: their keys are data.
const MAPS: [&str; 6] = [
    "models",
    "epoch_models",
    "epoch_ml_nodes",
    "preserved_models",
    "details",
    "events",
];

fn recorded() -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory())
        .expect("recordings")
        .map(|entry| entry.expect("entry").path())
        .collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.extension().is_some_and(|extension| extension == "json") && !name.starts_with("sequence-")
    });
    files.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a recording");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("JSON"))
    };
    files.iter().map(read).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Differences in shape, as paths.
fn differences(path: &str, recorded: &Value, served: &Value, found: &mut Vec<String>) {
    match (recorded, served) {
        (Value::Object(recorded), Value::Object(served)) => {
            let is_map = MAPS.iter().any(|name| path.ends_with(&format!(".{name}")));
            if is_map {
                if let (Some(one), Some(other)) = (recorded.values().next(), served.values().next()) {
                    differences(&format!("{path}.*"), one, other, found);
                }
                return;
            }
            let keys: BTreeSet<&String> = recorded.keys().chain(served.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                match (recorded.get(key), served.get(key)) {
                    (Some(one), Some(other)) => differences(&path, one, other, found),
                    (Some(_), None) => found.push(format!("{path} is missing")),
                    (None, _) => found.push(format!("{path} is not recorded")),
                }
            }
        }
        (Value::Array(recorded), Value::Array(served)) => {
            if let (Some(one), Some(other)) = (recorded.first(), served.first()) {
                differences(&format!("{path}[0]"), one, other, found);
            }
        }
        // What may be absent is null in one and there in the other.
        (Value::Null, _) | (_, Value::Null) => {}
        (one, other) if kind(one) != kind(other) => {
            found.push(format!("{path} is a {}, recorded is a {}", kind(other), kind(one)));
        }
        _ => {}
    }
}

/// Known and meant: what the simulator leaves out or adds.
fn is_known(name: &str, difference: &str) -> bool {
    let known = [
        // Nothing on this chain pays inflation, so there are no events to show; nothing is proven by IAVL.
        ("rpc-block_results", ".finalize_block_events"),
        ("ws-newblock", ".result.events"),
        ("dapi-epochs-current-participants", ".proof_ops"),
        ("dapi-epochs-current-participants", ".block"),
        (
            "rest-cosmos_base_tendermint_node_info",
            ".application_version.cosmos_sdk_version",
        ),
        ("admin-nodes", ".state.reconcile_info"),
    ];
    known
        .iter()
        .any(|(of, path)| name.starts_with(of) && difference.contains(path))
}

struct Stage {
    shared: Arc<Shared>,
    _effects: tokio::sync::mpsc::UnboundedReceiver<crate::event::Effect>,
}

/// The simulated twin of the recorded network at a height.
fn stage(height: i64) -> Stage {
    let mut world = twin();
    world.run_to(height);
    assert!(
        world.net().commands.len() <= 1
            && world
                .net()
                .commands
                .iter()
                .all(|(_, c)| c.verb == Verb::TriggerConfirmation)
    );
    let ports = Numbers {
        rpc: vec![26657; 3],
        rest: vec![1317; 3],
        dapi: DapiNumbers {
            public: 9000,
            ml: 9100,
            admin: 9200,
        },
        control: 9999,
    };
    let net = world.net.take().expect("a network");
    let (shared, effects) = Shared::new(net, Clock::start(), ports);
    Stage {
        shared,
        _effects: effects,
    }
}

/// A recorded path with this network's names in it.
fn path_here(stage: &Stage, path: &str) -> (String, String) {
    let (cold, warm) = stage.shared.read(|net| {
        let host = &net.hosts[net.ours];
        (host.address.clone(), host.warm_address.clone())
    });
    let path = path
        .replace("gonka1r4zmwd8gvw7kguhfzk82eua7myrfx5glqtg86r", &cold)
        .replace("gonka1gnrqxfd88hn5s8t82rc50zvuh3dc5aha2xc8c4", &warm);
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    (path.to_owned(), query.to_owned())
}

async fn serve(stage: &Stage, name: &str, recording: &Value) -> (u16, Value) {
    if name.starts_with("ws-") {
        let event = stage.shared.view(Port::Rpc(0), |view| {
            new_block_event(view, view.height(), "tm.event='NewBlock'")
        });
        return (200, json!({"jsonrpc": "2.0", "id": "1", "result": event}));
    }
    let (path, query) = path_here(stage, recording["path"].as_str().expect("a path"));
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), crate::http::percent_decode(value)))
        .collect();
    let method = recording["method"].as_str().expect("a method").to_owned();
    let inbound = Inbound {
        method,
        path,
        query,
        body: Bytes::new(),
    };
    let outbound = match name.split('-').next() {
        Some("rest") => rest::answer(&stage.shared, Port::Rest(0), &inbound),
        Some("rpc") => rpc::answer(&stage.shared, Port::Rpc(0), &inbound),
        Some("dapi") => dapi_public::answer(&stage.shared, &inbound).await,
        Some("dapiml") => dapi_ml::answer(&stage.shared, &inbound),
        Some("admin") => dapi_admin::answer(&stage.shared, &inbound).await,
        other => panic!("no door for {other:?}"),
    };
    match outbound.content {
        Content::Json(value) => (outbound.status, value),
        other => panic!("{name}: {other:?} is not JSON"),
    }
}

#[tokio::test]
async fn every_recorded_answer_is_served_in_its_shape() {
    let recordings = recorded();
    assert!(recordings.len() > 80, "only {} recordings", recordings.len());
    let heights: BTreeSet<i64> = recordings
        .iter()
        .filter_map(|(_, recording)| recording["height"].as_i64())
        .collect();
    let mut wrong = Vec::new();
    for height in heights {
        let stage = stage(height);
        for (name, recording) in recordings.iter().filter(|(_, recording)| recording["height"] == height) {
            let (status, served) = serve(&stage, name, recording).await;
            if recording["status"]
                .as_u64()
                .is_some_and(|recorded| recorded != u64::from(status))
            {
                wrong.push(format!(
                    "{name}: status {status}, recorded {}: {served}",
                    recording["status"]
                ));
                continue;
            }
            let mut found = Vec::new();
            differences("", &recording["body"], &served, &mut found);
            wrong.extend(
                found
                    .into_iter()
                    .filter(|line| !is_known(name, line))
                    .map(|line| format!("{name}: {line}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn stages_and_phases_are_those_recorded_value_by_value() {
    for (name, recording) in recorded()
        .iter()
        .filter(|(name, _)| name.starts_with("dapi-epochs-latest"))
    {
        let stage = stage(recording["height"].as_i64().expect("a height"));
        let served = stage.shared.view(Port::DapiPublic, crate::views::dapi::epochs_latest);
        for field in [
            "block_height",
            "latest_epoch",
            "phase",
            "epoch_stages",
            "next_epoch_stages",
            "epoch_params",
        ] {
            assert_eq!(served[field], recording["body"][field], "{name} {field}");
        }
        let event = |value: &Value| value["active_confirmation_poc_event"]["phase"].clone();
        assert_eq!(event(&served), event(&recording["body"]), "{name}");
    }
}

#[test]
fn node_states_are_those_recorded() {
    for (name, recording) in recorded().iter().filter(|(name, _)| name.starts_with("admin-nodes__")) {
        let height = recording["height"].as_i64().expect("a height");
        let stage = stage(height);
        let served = stage
            .shared
            .view(Port::DapiAdmin, |view| crate::views::admin::nodes(view, 0));
        let states = |body: &Value, id: &str| -> Vec<Value> {
            let rows = body.as_array().expect("a list");
            let row = rows.iter().find(|row| row["node"]["id"] == id).expect("the node");
            ["current_status", "poc_current_status"]
                .map(|field| row["state"][field].clone())
                .to_vec()
        };
        assert_eq!(states(&served, "ml-a"), states(&recording["body"], "ml-a"), "{name}");
    }
}
