//! The sockets of the proxy: plain HTTP on one side, the server on the other. Carries out what the gate's plan says.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::call::{Call, Verb};
use super::gate::Gate;
use super::plan::{Fate, Line};

/// Largest request that is read.
const MAX_BODY: usize = 8 << 20;

/// Who is asked.
#[derive(Clone)]
pub enum Upstream {
    /// An API server, in the name of this user and these groups.
    Kubernetes {
        client: kube::Client,
        user: String,
        groups: Vec<String>,
    },
    /// A plain server at this address.
    Http { client: reqwest::Client, base: String },
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kubernetes { user, .. } => formatter
                .debug_struct("Kubernetes")
                .field("user", user)
                .finish_non_exhaustive(),
            Self::Http { base, .. } => formatter
                .debug_struct("Http")
                .field("base", base)
                .finish_non_exhaustive(),
        }
    }
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Door {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Shared,
    _server: JoinSet<()>,
}

#[derive(Clone, Debug)]
struct Shared {
    upstream: Upstream,
    gate: Arc<Gate>,
}

impl Door {
    /// Listens on `address`; port 0 is any.
    pub async fn open(address: SocketAddr, upstream: Upstream, gate: Arc<Gate>) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the proxy cannot listen on {address}"))?;
        let address = listener.local_addr().context("the proxy has no address")?;
        let shared = Shared { upstream, gate };
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the proxy ended");
            }
        });
        Ok(Self {
            address,
            shared,
            _server: server,
        })
    }

    /// Reads every list again that was ever asked for: what stale lists will say.
    pub async fn remember(&self) -> Result<()> {
        let mut remembered = BTreeMap::new();
        for key in self.shared.gate.lists() {
            let asked = Asked {
                method: Method::GET,
                uri: key.parse().context("a list's address")?,
                headers: HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]),
                body: Bytes::new(),
            };
            let (status, _, body) = self.shared.ask(&asked).await?.whole().await?;
            // A list that names a version it continues from may be over.
            if status.is_success() {
                remembered.insert(key, body);
            }
        }
        self.shared.gate.remember(remembered);
        Ok(())
    }
}

async fn handle(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(&parts.method, &parts.uri);
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return refusal(413, "the proxy takes no request of this size");
    };
    let asked = Asked {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
    };
    match call.verb {
        Verb::Watch => shared.watch(call, &asked).await,
        Verb::List => shared.list(&call, &asked).await,
        Verb::Get => shared.pass(&asked).await,
        Verb::Create | Verb::Apply | Verb::Update | Verb::Delete => shared.write(&call, &asked).await,
    }
}

/// A request, whole.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// An answer whose body is still coming.
struct Answer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: BoxStream<'static, Result<Bytes, axum::Error>>,
}

impl Answer {
    async fn whole(mut self) -> Result<(StatusCode, Option<HeaderValue>, Bytes)> {
        let mut body = Vec::new();
        while let Some(part) = self.body.next().await {
            body.extend_from_slice(&part.context("the server's answer broke off")?);
        }
        Ok((self.status, self.content_type, body.into()))
    }
}

impl Shared {
    async fn write(&self, call: &Call, asked: &Asked) -> Response {
        let (number, fate) = self.gate.write(call, &asked.body);
        let response = match fate {
            Fate::Pass | Fate::PassInSilence | Fate::PassAndAnswer(_) => {
                let response = self.pass(asked).await;
                self.gate.answered(number, response.status().as_u16());
                response
            }
            Fate::Silence => refusal(503, "never sent"),
            Fate::Answer(code) => refusal(code, "refused by the proxy"),
        };
        if fate != Fate::Pass {
            self.gate.announce();
        }
        match fate {
            Fate::Pass | Fate::Answer(_) => response,
            Fate::PassAndAnswer(code) => refusal(code, "carried out, whatever this says"),
            // Until the program that waits for an answer ends.
            Fate::PassInSilence | Fate::Silence => std::future::pending().await,
        }
    }

    async fn list(&self, call: &Call, asked: &Asked) -> Response {
        let key = asked.uri.to_string();
        if let Some(old) = self.gate.remembered(call, &key) {
            return answer(
                StatusCode::OK,
                Some(HeaderValue::from_static("application/json")),
                Body::from(old),
            );
        }
        let whole = async { self.ask(asked).await?.whole().await };
        match whole.await {
            Ok((status, content_type, body)) => {
                if status.is_success() {
                    self.gate.listed(key);
                }
                answer(status, content_type, Body::from(body))
            }
            Err(error) => refusal(502, &format!("{error:#}")),
        }
    }

    async fn pass(&self, asked: &Asked) -> Response {
        let whole = async { self.ask(asked).await?.whole().await };
        match whole.await {
            Ok((status, content_type, body)) => answer(status, content_type, Body::from(body)),
            Err(error) => refusal(502, &format!("{error:#}")),
        }
    }

    async fn watch(&self, call: Call, asked: &Asked) -> Response {
        match self.ask(asked).await {
            Ok(upstream) if upstream.status.is_success() => {
                let (status, content_type) = (upstream.status, upstream.content_type.clone());
                let lines = Lines::new(upstream, call, Arc::clone(&self.gate));
                let body = stream::unfold(lines, |mut lines| async move {
                    let line = lines.next().await?;
                    Some((Ok::<_, Infallible>(line), lines))
                });
                answer(status, content_type, Body::from_stream(body))
            }
            Ok(upstream) => match upstream.whole().await {
                Ok((status, content_type, body)) => answer(status, content_type, Body::from(body)),
                Err(error) => refusal(502, &format!("{error:#}")),
            },
            Err(error) => refusal(502, &format!("{error:#}")),
        }
    }

    async fn ask(&self, asked: &Asked) -> Result<Answer> {
        match &self.upstream {
            Upstream::Kubernetes { client, user, groups } => {
                let mut request = http::Request::builder().method(&asked.method).uri(asked.uri.clone());
                for name in [header::CONTENT_TYPE, header::ACCEPT] {
                    if let Some(value) = asked.headers.get(&name) {
                        request = request.header(name, value);
                    }
                }
                request = request.header("Impersonate-User", user);
                for group in groups {
                    request = request.header("Impersonate-Group", group);
                }
                let request = request
                    .body(kube::client::Body::from(asked.body.to_vec()))
                    .context("the request cannot be made again")?;
                let response = client.send(request).await.context("the API server does not answer")?;
                let (parts, body) = response.into_parts();
                Ok(Answer {
                    status: parts.status,
                    content_type: parts.headers.get(header::CONTENT_TYPE).cloned(),
                    body: Body::new(body).into_data_stream().boxed(),
                })
            }
            Upstream::Http { client, base } => {
                let mut request = client
                    .request(asked.method.clone(), format!("{base}{}", asked.uri))
                    .body(asked.body.clone());
                for (name, value) in &asked.headers {
                    if name != header::HOST && name != header::CONTENT_LENGTH {
                        request = request.header(name, value);
                    }
                }
                let response = request.send().await.context("the server does not answer")?;
                Ok(Answer {
                    status: response.status(),
                    content_type: response.headers().get(header::CONTENT_TYPE).cloned(),
                    body: response
                        .bytes_stream()
                        .map(|part| part.map_err(axum::Error::new))
                        .boxed(),
                })
            }
        }
    }
}

fn answer(status: StatusCode, content_type: Option<HeaderValue>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// A `Status` as API servers write it.
fn refusal(code: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer(
        status,
        Some(HeaderValue::from_static("application/json")),
        Body::from(failure(code, message).to_string()),
    )
}

fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
}

/// The lines of one watch, as the plan lets them through. What comes is taken at once, so that being late does not add up.
struct Lines {
    call: Call,
    gate: Arc<Gate>,
    plans: watch::Receiver<u64>,
    /// Number of the plan it was opened under.
    opened: u64,
    coming: mpsc::UnboundedReceiver<(Instant, Bytes)>,
    /// Taken, and not let through yet.
    held: Option<(Instant, Bytes)>,
    seen: u64,
    ended: bool,
    _pump: JoinSet<()>,
}

impl Lines {
    fn new(upstream: Answer, call: Call, gate: Arc<Gate>) -> Self {
        let (send, coming) = mpsc::unbounded_channel();
        let mut pump = JoinSet::new();
        pump.spawn(pump_lines(upstream.body, send));
        Self {
            call,
            plans: gate.plans(),
            opened: gate.number(),
            gate,
            coming,
            held: None,
            seen: 0,
            ended: false,
            _pump: pump,
        }
    }

    /// The next line; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            self.plans.borrow_and_update();
            if self.gate.is_gone(&self.call, self.opened) {
                return Some(self.gone());
            }
            if self.held.is_none() {
                tokio::select! {
                    line = self.coming.recv() => self.held = Some(line?),
                    // A plan that ends streams ends those, too, on which nothing happens.
                    _ = self.plans.changed() => continue,
                }
            }
            let (came, line) = self.held.clone()?;
            match self.gate.line(&self.call, &kind_of(&line), self.seen) {
                Line::Pass => return Some(self.let_through(line)),
                Line::Lost => {
                    self.held = None;
                    self.seen += 1;
                }
                Line::After(delay) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(came + delay) => return Some(self.let_through(line)),
                        _ = self.plans.changed() => {}
                    }
                }
                Line::Held => {
                    let _changed = self.plans.changed().await;
                }
                Line::Gone => return Some(self.gone()),
            }
        }
    }

    fn let_through(&mut self, line: Bytes) -> Bytes {
        self.held = None;
        self.seen += 1;
        line
    }

    fn gone(&mut self) -> Bytes {
        self.ended = true;
        let mut line = json!({"type": "ERROR", "object": failure(410, "too old resource version")}).to_string();
        line.push('\n');
        line.into()
    }
}

/// ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.
fn kind_of(line: &[u8]) -> String {
    serde_json::from_slice::<Value>(line)
        .ok()
        .and_then(|line| line["type"].as_str().map(str::to_owned))
        .unwrap_or_default()
}

async fn pump_lines(
    mut body: BoxStream<'static, Result<Bytes, axum::Error>>,
    send: mpsc::UnboundedSender<(Instant, Bytes)>,
) {
    let mut rest: VecDeque<u8> = VecDeque::new();
    while let Some(Ok(part)) = body.next().await {
        rest.extend(part);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if send.send((Instant::now(), line.into())).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
