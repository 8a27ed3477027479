//! Box 4, the agent's two doors: `/metrics` on one, `/healthz` and `/readyz` on the other. They hand out what is there.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::observe::gpu::GpuReading;
use super::observe::{self, seconds_between};

/// The text format of Prometheus.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the newest metrics until the listener fails.
pub async fn serve_metrics(listener: TcpListener, page: watch::Receiver<Bytes>) -> std::io::Result<()> {
    let router = Router::new().route("/metrics", get(metrics)).with_state(page);
    axum::serve(listener, router).await
}

async fn metrics(State(page): State<watch::Receiver<Bytes>>) -> Response {
    let text = page.borrow().clone();
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
}

/// What the probes look at.
#[derive(Clone, Debug)]
pub struct Probes {
    /// Newest reading of the GPUs.
    pub gpus: watch::Receiver<Option<Arc<GpuReading>>>,
    /// Older than this is not ready.
    pub stale_seconds: u32,
}

/// Serves the probes until the listener fails. The agent is alive while this answers; it is ready while its newest reading
/// is young. A machine without NVML is ready: its readings say so.
pub async fn serve_probes(listener: TcpListener, probes: Probes) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(probes);
    axum::serve(listener, router).await
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    let taken_at = probes.gpus.borrow().as_ref().map(|reading| reading.taken_at.clone());
    let Some(taken_at) = taken_at else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the GPUs were not read yet\n".to_owned(),
        );
    };
    let age = seconds_between(&taken_at, &observe::now());
    if age > f64::from(probes.stale_seconds) {
        let text = format!("the newest reading of the GPUs is {age:.0} s old: NVML does not return\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    (StatusCode::OK, "ok\n".to_owned())
}
