//! The chain door: what DAPI calls. Two ports, any version prefix on both, JSON whatever the `Content-Type`, bodies
//! bounded. Statuses and shapes are those of the recordings; the divergences are a repeated start, answered 200, and a
//! newer exam's, which ends the older. Every answer says which assignment gave it.

pub mod answers;
pub mod fields;
pub mod headers;
pub mod inference;
pub mod management;
pub mod pow;
pub mod validation;

use super::{
    config::backend_port,
    doors::{Doors, Peer, Visit},
    metrics::Metrics,
    state::Core,
};
use answers::{Answer, detail};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State as Shared, connect_info::IntoMakeServiceWithConnectInfo},
    response::Response,
};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use std::sync::Arc;

/// Longest body of a validation: 100,000 nonces with their vectors.
const MAX_VALIDATION_BODY: usize = 16 << 20;
/// Longest body of anything else.
const MAX_BODY: usize = 256 << 10;

/// Which of the two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 8080: management and PoC.
    Management,
    /// 5000: inference.
    Inference,
}

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The slot.
    pub core: Arc<Core>,
    /// Its doors.
    pub doors: Arc<Doors>,
    /// For `/api/v1/metrics`.
    pub metrics: Arc<Metrics>,
}

/// The service of one port.
pub fn router(context: Context, port: Port) -> IntoMakeServiceWithConnectInfo<Router, Peer> {
    Router::new()
        .fallback(answer)
        .with_state((context, port))
        .into_make_service_with_connect_info()
}

async fn answer(
    Shared((context, port)): Shared<(Context, Port)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response<Body> {
    let visit = peer.enter();
    let assignment = context.core.read(|state| headers::of(state.memory.assignment.as_ref()));
    let version = request.version();
    let mut response = answer_inside(&context, port, &visit, request).await;
    response.headers_mut().extend(assignment);
    if version < http::Version::HTTP_2 && (visit.is_late() || response.headers().contains_key(header::CONNECTION)) {
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        visit.say_farewell();
    }
    // The server drops a response's extensions when it has written the answer down; the socket is flushed afterwards.
    response.extensions_mut().insert(Arc::new(visit));
    response
}

async fn answer_inside(context: &Context, port: Port, visit: &Visit, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = strip_version(parts.uri.path());
    // Liveness is the process's own affair, held slot or not.
    let always = matches!(path, "/livez" | "/readyz");
    let is_closed = || !always && (visit.is_late() || !context.doors.is_open());
    if is_closed() {
        return closed();
    }
    let limit = if path.ends_with("/pow/generate") {
        MAX_VALIDATION_BODY
    } else {
        MAX_BODY
    };
    let Ok(body) = to_bytes(body, limit).await else {
        let answer = detail(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {limit} bytes"),
        );
        return answer.into_response();
    };
    // The slot may have been taken away while the body came.
    if is_closed() {
        return closed();
    }
    let answer = match port {
        Port::Management => on_management(context, &parts.method, path, body).await,
        Port::Inference => inference::answer(context, &parts.method, path),
    };
    tracing::debug!(method = %parts.method, path = parts.uri.path(), status = answer.status.as_u16(), "answered");
    answer.into_response()
}

/// Routes of the management port.
async fn on_management(context: &Context, method: &Method, path: &str, body: Bytes) -> Answer {
    const POW: &str = "/api/v1/inference/pow";
    if let Some(id) = path.strip_prefix("/api/v1/inference/pow/generate/") {
        return match *method {
            Method::GET => validation::result(context, id),
            _ => answers::wrong_method(),
        };
    }
    let core = &context.core;
    match (method, path.strip_prefix(POW)) {
        (&Method::GET, Some("/status")) => pow::status(core),
        (&Method::POST, Some("/init/generate")) => pow::start(core, &body).await,
        (&Method::POST, Some("/stop")) => pow::stop(core),
        (&Method::POST, Some("/generate")) => validation::generate(core, &body).await,
        (_, Some("/status" | "/init/generate" | "/stop" | "/generate")) => answers::wrong_method(),
        _ => management::answer(context, method, path, &body).await,
    }
}

/// A closed door says so and does not keep the connection.
fn closed() -> Response<Body> {
    let mut response = detail(
        StatusCode::SERVICE_UNAVAILABLE,
        "this pod holds no slot: its chain door is closed",
    )
    .into_response();
    response
        .headers_mut()
        .insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// Takes a version segment off: `/v3.0.8/api/v1/state` is `/api/v1/state`, while `/v1/models` is itself.
pub fn strip_version(path: &str) -> &str {
    let Some(rest) = path.strip_prefix('/') else {
        return path;
    };
    let Some((segment, _)) = rest.split_once('/') else {
        return path;
    };
    let is_version = segment
        .strip_prefix('v')
        .is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()));
    let after = &rest[segment.len()..];
    let known = ["/api/", "/v1/", "/health", "/livez", "/readyz"];
    if is_version && known.iter().any(|start| after.starts_with(start)) {
        after
    } else {
        path
    }
}

/// Ports of the replica groups, as answers name them.
fn ports(core: &Core) -> impl Iterator<Item = (usize, u16)> + use<> {
    (0..core.config.replicas as usize).map(|group| (group, backend_port(group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_prefix_is_taken_off_and_nothing_else() {
        for (path, stripped) in [
            ("/v3.0.8/api/v1/state", "/api/v1/state"),
            (
                "/v0.2.14-rc1/api/v1/inference/pow/status",
                "/api/v1/inference/pow/status",
            ),
            ("/api/v1/state", "/api/v1/state"),
            ("/v3.0.8/health", "/health"),
            ("/v3.0.8/v1/models", "/v1/models"),
            ("/v1/v1/models", "/v1/models"),
            ("/v1/models", "/v1/models"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/version/api/v1/state", "/version/api/v1/state"),
            ("/v3", "/v3"),
            ("", ""),
        ] {
            assert_eq!(strip_version(path), stripped);
        }
    }
}
