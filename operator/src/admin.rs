//! The operator's own HTTP doors: probes on one port, metrics and the live Sprint view on another.
//!
//! Readiness does not depend on leadership: a replica is ready when its chain readers and FleetSignal run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use crds::sprint_view::{GateHistory, View};
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::sprint_view::SprintView;

/// What stops a door from opening.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// Address of the flag.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server ended.
    #[error("server on {address} ended")]
    Serve {
        /// Address of the flag.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Gates of readiness, set by the parts as they come up.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Chain readers were started from the cache or from the API server.
    pub chain: AtomicBool,
    /// FleetSignal listens.
    pub signal: AtomicBool,
    /// Names of CRDs that lack fields this operator writes; a pruned schema loses data silently.
    pub crds: std::sync::RwLock<Vec<String>>,
}

impl Readiness {
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.chain.load(Ordering::Relaxed) {
            missing.push("chain readers have not started".to_owned());
        }
        if !self.signal.load(Ordering::Relaxed) {
            missing.push("FleetSignal does not listen".to_owned());
        }
        let pruned = self.crds.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        missing.extend(
            pruned
                .iter()
                .map(|what| format!("{what}; install the chart gonka-fleet-crds of this version")),
        );
        missing
    }
}

/// Serves `/healthz` and `/readyz` until told to stop.
pub async fn serve_probes(
    address: SocketAddr,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let router = axum::Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(readiness);
    serve(address, router, stop).await
}

/// Serves `/metrics`, `/fleet/v1/sprint` and `/fleet/v1/gate` until told to stop.
pub async fn serve_metrics(
    address: SocketAddr,
    registry: Registry,
    view: Arc<SprintView>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let metrics = axum::Router::new().route("/metrics", get(render)).with_state(registry);
    let sprint = axum::Router::new()
        .route("/fleet/v1/sprint", get(sprint))
        .route("/fleet/v1/gate", get(gate))
        .with_state(view);
    serve(address, metrics.merge(sprint), stop).await
}

async fn serve(address: SocketAddr, router: axum::Router, stop: CancellationToken) -> Result<(), Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Bind { address, source })?;
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(|source| Error::Serve { address, source })
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", missing.join("\n")))
    }
}

async fn render(State(registry): State<Registry>) -> Response {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut body) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn gate(State(view): State<Arc<SprintView>>) -> Json<GateHistory> {
    Json(view.gate())
}

async fn sprint(State(view): State<Arc<SprintView>>) -> Json<View> {
    Json(view.render())
}
