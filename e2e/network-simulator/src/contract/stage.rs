//! The recorded network's twin at a height, answering as if over its sockets.

use super::{advance, recording::Recording, twin};
use crate::{
    driver::{
        Shared,
        clock::Clock,
        ports::{DapiNumbers, Numbers},
    },
    event::Effect,
    faults::Port,
    http::{Content, Inbound, dapi_admin, dapi_ml, dapi_public, of_release, percent_decode, rest, rpc},
    release::Version,
    views::rpc::new_block_event,
};
use axum::body::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// Accounts of the recordings.
pub const COLD: &str = "gonka1r4zmwd8gvw7kguhfzk82eua7myrfx5glqtg86r";
const WARM: &str = "gonka1gnrqxfd88hn5s8t82rc50zvuh3dc5aha2xc8c4";

/// The port behind a recording's door.
pub fn port(door: &str) -> Port {
    match door {
        "rest" => Port::Rest(0),
        "rpc" | "ws" => Port::Rpc(0),
        "dapi" => Port::DapiPublic,
        "dapiml" => Port::DapiMl,
        "admin" => Port::DapiAdmin,
        other => panic!("no door {other:?}"),
    }
}

#[derive(Debug)]
pub struct Stage {
    pub shared: Arc<Shared>,
    _effects: UnboundedReceiver<Effect>,
}

impl Stage {
    pub fn at(height: i64) -> Self {
        Self::of(Version::V14, height)
    }

    /// The twin as another release would be.
    pub fn of(version: Version, height: i64) -> Self {
        let mut world = twin();
        Arc::make_mut(&mut world.net().scenario).network.version = version;
        advance(&mut world, height);
        // The first hundred heights are from a run before this one, whose warm account nobody let pay fees.
        if height <= 100 {
            let net = world.net();
            net.hosts[net.ours].account.allowance = None;
        }
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
        Self {
            shared,
            _effects: effects,
        }
    }

    /// The account of our host here.
    pub fn address(&self) -> String {
        self.shared.read(|net| net.hosts[net.ours].address.clone())
    }

    /// A recorded path with this network's names in it.
    fn path(&self, path: &str) -> (String, Vec<(String, String)>) {
        let (cold, warm) = self.shared.read(|net| {
            let host = &net.hosts[net.ours];
            (host.address.clone(), host.warm_address.clone())
        });
        let path = path.replace(COLD, &cold).replace(WARM, &warm);
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), percent_decode(value)))
            .collect();
        (path.to_owned(), query)
    }

    /// Status and body for a recorded question.
    pub async fn serve(&self, recording: &Recording) -> (u64, Value) {
        if recording.door == "ws" {
            let event = self.shared.view(Port::Rpc(0), |view| {
                new_block_event(view, view.height(), "tm.event='NewBlock'")
            });
            return (200, json!({"jsonrpc": "2.0", "id": "1", "result": event}));
        }
        let request = recording.request.as_ref().map(ToString::to_string);
        self.ask(
            &recording.door,
            &recording.method,
            &recording.path,
            request.unwrap_or_default(),
        )
        .await
    }

    /// Status and body for a question at a door.
    pub async fn ask(&self, door: &str, method: &str, path: &str, request: String) -> (u64, Value) {
        let (path, query) = self.path(path);
        let inbound = Inbound {
            method: method.to_owned(),
            path,
            query,
            body: Bytes::from(request),
        };
        let outbound = match port(door) {
            Port::Rest(_) => rest::answer(&self.shared, Port::Rest(0), &inbound),
            Port::Rpc(_) => rpc::answer(&self.shared, Port::Rpc(0), &inbound),
            Port::DapiPublic => dapi_public::answer(&self.shared, &inbound).await,
            Port::DapiMl => dapi_ml::answer(&self.shared, &inbound),
            Port::DapiAdmin => dapi_admin::answer(&self.shared, &inbound).await,
        };
        let outbound = of_release(&self.shared, port(door), &inbound.path, outbound);
        let body = match outbound.content {
            Content::Json(value) => value,
            Content::Text(text) => Value::String(text),
            Content::Empty => Value::Null,
        };
        (u64::from(outbound.status), body)
    }
}
