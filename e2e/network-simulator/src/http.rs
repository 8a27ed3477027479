//! The servers: one per port. What is broken about a port is broken here, what is asked is answered by the module of
//! the door.

pub mod control;
pub mod dapi_admin;
pub mod dapi_ml;
pub mod dapi_public;
pub mod gate;
pub mod rest;
pub mod rpc;
pub mod websocket;

use crate::{dapi::reply::Reply, driver::Shared, faults::Port, release};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::watch};

/// Largest body of a callback; other doors take less.
const MAX_CALLBACK: usize = 32 << 20;
const MAX_BODY: usize = 1 << 20;

/// A request, read whole.
#[derive(Debug)]
pub struct Inbound {
    pub method: String,
    /// As sent, still percent-encoded.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub body: Bytes,
}

impl Inbound {
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Path segments, still percent-encoded.
    pub fn segments(&self) -> Vec<&str> {
        self.path.trim_matches('/').split('/').collect()
    }
}

/// An answer before it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbound {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Empty,
    Json(Value),
    Text(String),
}

impl Outbound {
    pub fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Content::Json(body),
        }
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Content::Text(body.to_owned()),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl From<Reply> for Outbound {
    fn from(reply: Reply) -> Self {
        let content = reply.body.map_or(Content::Empty, Content::Json);
        Self {
            status: reply.status,
            headers: Vec::new(),
            content,
        }
    }
}

#[derive(Debug, Clone)]
struct Served {
    shared: Arc<Shared>,
    port: Port,
    closed: watch::Receiver<()>,
}

/// Serves a port until its sender is dropped; idle connections are closed then.
pub async fn serve(shared: Arc<Shared>, port: Port, listener: TcpListener, closed: watch::Receiver<()>) {
    let served = Served {
        shared,
        port,
        closed: closed.clone(),
    };
    let mut app = Router::new().fallback(answer);
    if matches!(port, Port::Rpc(_)) {
        app = app.route("/websocket", axum::routing::any(websocket::upgrade));
    }
    let service = app
        .with_state(served)
        .into_make_service_with_connect_info::<SocketAddr>();
    let mut until = closed;
    let shutdown = async move {
        // An error means the sender is gone: the port is to close.
        while until.changed().await.is_ok() {}
    };
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(shutdown).await {
        tracing::error!(port = port.name(), %error, "server ended");
    }
}

/// Serves the control API as long as the program lives.
pub async fn serve_control(shared: Arc<Shared>, listener: TcpListener) {
    let app = Router::new().fallback(answer_control).with_state(shared);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "control API ended");
    }
}

async fn answer(
    State(served): State<Served>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let Served { shared, port, .. } = &served;
    if let Some(response) = gate::before(shared, *port).await {
        return response;
    }
    let limit = if *port == Port::DapiMl { MAX_CALLBACK } else { MAX_BODY };
    let inbound = match read(request, limit).await {
        Ok(inbound) => inbound,
        Err(outbound) => return response(outbound),
    };
    if Port::DAPI.contains(port) {
        gate::note(shared, *port, caller, &inbound);
    }
    let outbound = match port {
        Port::Rpc(_) => rpc::answer(shared, *port, &inbound),
        Port::Rest(_) => rest::answer(shared, *port, &inbound),
        Port::DapiPublic => dapi_public::answer(shared, &inbound).await,
        Port::DapiMl => dapi_ml::answer(shared, &inbound),
        Port::DapiAdmin => dapi_admin::answer(shared, &inbound).await,
    };
    gate::after(shared, *port, of_release(shared, *port, &inbound.path, outbound))
}

/// An answer in the shape of the network's release.
pub fn of_release(shared: &Shared, port: Port, path: &str, mut outbound: Outbound) -> Outbound {
    if let (200, Content::Json(body)) = (outbound.status, &mut outbound.content) {
        release::shape(
            shared.view(port, |view| view.net.release(view.height())),
            port,
            path,
            body,
        );
    }
    outbound
}

async fn answer_control(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match read(request, MAX_BODY).await {
        Ok(inbound) => response(control::answer(&shared, &inbound)),
        Err(outbound) => response(outbound),
    }
}

async fn read(request: Request, limit: usize) -> Result<Inbound, Outbound> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, limit)
        .await
        .map_err(|_| Reply::error(413, &format!("request body: at most {limit} bytes are read")))?;
    Ok(Inbound {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parse_query(parts.uri.query().unwrap_or_default()),
        body,
    })
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (
            percent_decode(&name.replace('+', " ")),
            percent_decode(&value.replace('+', " ")),
        )
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// The answer as axum sends it.
pub fn response(outbound: Outbound) -> Response {
    let (kind, body) = match outbound.content {
        Content::Empty => (None, String::new()),
        // The real servers end JSON with a line feed.
        Content::Json(value) => (Some("application/json"), format!("{value}\n")),
        Content::Text(text) => (Some("text/plain; charset=utf-8"), text),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(outbound.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    for (name, value) in outbound.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Percent-encodes everything but unreserved characters.
pub fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}

/// Decodes percent escapes once; what is no escape stays as it is.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_twice_is_what_the_callback_paths_show() {
        let once = percent_encode("Qwen/Qwen2.5-7B-Instruct");
        assert_eq!(percent_encode(&once), "Qwen%252FQwen2.5-7B-Instruct");
        assert_eq!(
            percent_decode(&percent_decode("Qwen%252FQwen2.5-7B-Instruct")),
            "Qwen/Qwen2.5-7B-Instruct"
        );
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%2"), "%zz%2");
        assert_eq!(percent_decode("é%"), "é%");
    }

    #[test]
    fn queries_are_decoded() {
        let query = parse_query("height=145&model_id=Qwen%2FQwen&flag");
        assert_eq!(query[1], ("model_id".to_owned(), "Qwen/Qwen".to_owned()));
        assert_eq!(query[2], ("flag".to_owned(), String::new()));
    }
}
