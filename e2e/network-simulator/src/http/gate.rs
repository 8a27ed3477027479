//! Before and after every request: what is broken about a port, and the record of who asked the DAPI what.

use super::{Content, Inbound, Outbound, response};
use crate::{driver::Shared, faults::Port, ledger::ExternalRequest};
use axum::{
    body::{Body, Bytes},
    http::header,
    response::Response,
};
use futures::stream;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    time::Duration,
};
use tokio::time::sleep;

/// Between looks at whether a stall is over.
const STALL_STEP: Duration = Duration::from_millis(50);
/// A client waits no longer than this for an answer that is lost.
const LOST: Duration = Duration::from_secs(30);
/// Slow answers go out in so many pieces per second.
const PIECES_PER_SECOND: u64 = 10;

/// Waits out a stall; an answer only when the port does not answer properly.
pub async fn before(shared: &Shared, port: Port) -> Option<Response> {
    let is_lossy = shared.read(|net| net.faults.port(port).lost_percent > 0);
    if is_lossy && shared.change(|net| (net.loses(port), Vec::new())) {
        sleep(LOST).await;
        return Some(response(Outbound::text(503, "lost").with("connection", "close")));
    }
    loop {
        let fault = shared.read(|net| net.faults.port(port));
        if fault.stopped {
            // A kept connection to a port that is closed: nothing sensible comes over it any more.
            return Some(response(Outbound::text(503, "stopped").with("connection", "close")));
        }
        if let Some(status) = fault.status.filter(|_| !fault.stalled) {
            return Some(response(Outbound::text(status, "fault injected by the scenario")));
        }
        if !fault.stalled {
            return None;
        }
        sleep(STALL_STEP).await;
    }
}

/// Lies and slowness.
pub fn after(shared: &Shared, port: Port, mut outbound: Outbound) -> Response {
    let fault = shared.read(|net| net.faults.port(port));
    if let Content::Json(value) = &mut outbound.content {
        lie(value, &fault.lies);
    }
    let answer = response(outbound);
    match fault.bytes_per_second {
        Some(rate) => slowed(answer, rate),
        None => answer,
    }
}

/// Replaces the named fields wherever they occur.
pub fn lie(value: &mut Value, lies: &BTreeMap<String, Value>) {
    if lies.is_empty() {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match lies.get(name) {
                    Some(lie) => *field = lie.clone(),
                    None => lie_within(field, lies),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| lie_within(item, lies)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn lie_within(value: &mut Value, lies: &BTreeMap<String, Value>) {
    lie(value, lies);
}

fn slowed(answer: Response, bytes_per_second: u64) -> Response {
    let (mut parts, body) = answer.into_parts();
    let piece = (bytes_per_second / PIECES_PER_SECOND).max(1) as usize;
    let pause = Duration::from_millis(1000 * piece as u64 / bytes_per_second.max(1));
    parts.headers.remove(header::CONTENT_LENGTH);
    let pieces = stream::unfold((Some(body), VecDeque::new()), move |(body, mut left)| async move {
        if let Some(body) = body {
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            left = (0..bytes.len())
                .step_by(piece)
                .map(|at| bytes.slice(at..(at + piece).min(bytes.len())))
                .collect();
        }
        sleep(pause).await;
        let next: Bytes = left.pop_front()?;
        Some((Ok::<_, Infallible>(next), (None, left)))
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Puts a request to the DAPI on record.
pub fn note(shared: &Shared, port: Port, caller: SocketAddr, inbound: &Inbound) {
    let number = shared.ports.of(port);
    shared.change(|net| {
        let request = ExternalRequest {
            t_ms: net.now_ms.saturating_sub(net.started_ms),
            height: net.height(),
            port: number,
            method: inbound.method.clone(),
            path: inbound.path.clone(),
            caller: caller.ip().to_string(),
            body_sha256: hex::encode(Sha256::digest(&inbound.body)),
        };
        net.note_request(request);
        ((), Vec::new())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lie_is_told_at_every_depth() {
        let mut value =
            json!({"height": "5", "block": {"header": {"height": "5"}}, "list": [{"height": 5}], "other": 1});
        lie(&mut value, &BTreeMap::from([("height".to_owned(), json!("9"))]));
        assert_eq!(
            value,
            json!({"height": "9", "block": {"header": {"height": "9"}}, "list": [{"height": "9"}], "other": 1})
        );
    }
}
