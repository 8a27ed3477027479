//! CometBFT's RPC over WebSocket: the same methods, and the NewBlock event for subscribers.

use super::{
    Served, gate,
    rpc::{named, respond},
};
use crate::{
    driver::Shared,
    faults::Port,
    views::rpc::{failure, new_block_event, success},
};
use axum::{
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

const MAX_MESSAGE: usize = 1 << 20;
/// Subscriptions of one connection, as CometBFT limits them.
const MAX_SUBSCRIPTIONS: usize = 5;
const NEW_BLOCK: &str = "tm.event='NewBlock'";

pub(super) async fn upgrade(State(served): State<Served>, upgrade: WebSocketUpgrade) -> Response {
    if let Some(response) = gate::before(&served.shared, served.port).await {
        return response;
    }
    let Served { shared, port, closed } = served;
    upgrade
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(move |socket| Session::new(shared, port).run(socket, closed))
}

struct Session {
    shared: Arc<Shared>,
    port: Port,
    /// Id and query of each subscription.
    subscriptions: Vec<(Value, String)>,
    sent: i64,
}

impl Session {
    fn new(shared: Arc<Shared>, port: Port) -> Self {
        let sent = shared.newest(port);
        Self {
            shared,
            port,
            subscriptions: Vec::new(),
            sent,
        }
    }

    async fn run(mut self, mut socket: WebSocket, mut closed: watch::Receiver<()>) {
        let mut heights = self.shared.heights();
        loop {
            let messages = tokio::select! {
                received = socket.recv() => match received {
                    Some(Ok(Message::Text(text))) => vec![self.answer(&text)],
                    Some(Ok(Message::Binary(bytes))) => vec![self.answer(&String::from_utf8_lossy(&bytes))],
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Vec::new(),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                },
                changed = heights.changed() => match changed {
                    Ok(()) => self.events(),
                    Err(_) => return,
                },
                // The sender is gone when the port closes.
                _ = closed.changed() => return,
            };
            for message in messages {
                if gate::before(&self.shared, self.port).await.is_some() {
                    return;
                }
                if socket.send(Message::Text(message.to_string().into())).await.is_err() {
                    return;
                }
            }
        }
    }

    fn answer(&mut self, text: &str) -> Value {
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return failure(&Value::Null, -32700, "Parse error. Invalid JSON", "");
        };
        let id = request.get("id").cloned().unwrap_or(Value::Null);
        let method = request["method"].as_str().unwrap_or_default();
        let params = named(method, &request["params"]);
        let query = params.get("query").and_then(Value::as_str).unwrap_or_default();
        match method {
            "subscribe" if !is_new_block(query) => failure(
                &id,
                -32603,
                "Internal error",
                &format!("only {NEW_BLOCK} can be subscribed to here"),
            ),
            "subscribe" if self.subscriptions.iter().any(|(_, known)| known == query) => {
                failure(&id, -32603, "Internal error", "already subscribed")
            }
            "subscribe" if self.subscriptions.len() >= MAX_SUBSCRIPTIONS => {
                failure(&id, -32603, "Internal error", "max_subscriptions_per_client 5 reached")
            }
            "subscribe" => {
                self.subscriptions.push((id.clone(), query.to_owned()));
                success(&id, &json!({}))
            }
            "unsubscribe" => {
                self.subscriptions.retain(|(_, known)| known != query);
                success(&id, &json!({}))
            }
            "unsubscribe_all" => {
                self.subscriptions.clear();
                success(&id, &json!({}))
            }
            _ => self.shared.view(self.port, |view| respond(view, &id, method, &params)),
        }
    }

    /// Events of blocks this endpoint has and this connection has not.
    fn events(&mut self) -> Vec<Value> {
        let (first, subscriptions) = (self.sent + 1, &self.subscriptions);
        let (last, events) = self.shared.view(self.port, |view| {
            let last = view.height();
            let mut events = Vec::new();
            for height in first..=last {
                for (id, query) in subscriptions {
                    if let Some(event) = new_block_event(view, height, query) {
                        let mut message = success(id, &event);
                        gate::lie(&mut message, &view.fault.lies);
                        events.push(message);
                    }
                }
            }
            (last, events)
        });
        self.sent = self.sent.max(last);
        events
    }
}

fn is_new_block(query: &str) -> bool {
    let compact: String = query.chars().filter(|c| !c.is_whitespace()).collect();
    compact == NEW_BLOCK || compact == NEW_BLOCK.replace('\'', "\"")
}
