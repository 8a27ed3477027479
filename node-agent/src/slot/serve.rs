//! `slot serve`: the doors of a slot.
//!
//! ```text
//! DAPI ──► chain door ──► state ◄── group tasks ──► engines       observe: signal, processes, doors
//!                           │                                     decide:  round, outbox, jobs, fence, report (pure)
//! operator ─► operator door ┴──► sender ──► DAPI                  apply:   group, sender, journal, courier
//! ```
//!
//! It may be killed at any time: the assignment is in `state.json`, the round in the journal, the engines run on.

pub mod chain;
pub mod config;
pub mod doors;
pub mod farewell;
pub mod fence;
pub mod group;
pub mod jobs;
pub mod journal;
pub mod memory;
pub mod metrics;
pub mod operator;
pub mod outbox;
pub mod processes;
pub mod report;
pub mod request;
pub mod round;
pub mod sender;
pub mod signal;
mod stagger;
pub mod start;
pub mod state;
pub mod trust;
pub mod upkeep;

use super::{args::ServeArgs, clock::now_ms, telemetry::LogFormat};
use axum::{Router, extract::State as Shared, routing::get};
use chain::{Context, Port};
use config::Config;
use doors::{Doors, Resettable};
use metrics::Metrics;
use proto::v1::slot_server::SlotServer;
use serde::Serialize;
use state::{Core, State};
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use trust::Trust;

/// Between two looks at whether to go.
const GLANCE: Duration = Duration::from_millis(50);
/// What is computed but not delivered when the pod ends may still leave for so long.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// Why `serve` ended.
#[derive(Debug, Error)]
pub enum Error {
    /// A door's port is taken.
    #[error("cannot listen on {address}: is another process using the port?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ports cannot be told.
    #[error("cannot write ports.json into the run folder")]
    Ports(#[source] io::Error),
    /// No HTTP client.
    #[error("cannot make the HTTP client")]
    Client(#[source] reqwest::Error),
    /// Metrics.
    #[error("metrics")]
    Metrics(#[source] metrics::Error),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// A task ended that never should.
    #[error("{0} ended")]
    TaskEnded(&'static str),
}

/// Where the doors are; written to `ports.json` for whoever asked for port 0.
#[derive(Debug, Clone, Copy, Serialize)]
struct Ports {
    management: u16,
    inference: u16,
    operator: u16,
    metrics: u16,
}

/// Serves until SIGTERM.
pub async fn run(args: Box<ServeArgs>, log_format: LogFormat) -> Result<(), Error> {
    // The second of two installations changes nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let config = Config::from_args(&args, log_format);
    let core = Arc::new(Core::new(config.clone(), start::first_state(&config)));
    let doors = Arc::new(Doors::new(core.read(|state| state.memory.assignment.is_some())));
    let metrics = Arc::new(Metrics::new(prometheus::Registry::new()).map_err(Error::Metrics)?);
    let client = sender::client().map_err(Error::Client)?;
    let mut tasks = Tasks::default();
    let context = Context {
        core: Arc::clone(&core),
        doors: Arc::clone(&doors),
        metrics: Arc::clone(&metrics),
    };
    let ports = open_doors(&args, &mut tasks, &context, client.clone()).await?;
    write_ports(&config, ports).map_err(Error::Ports)?;
    for group in 0..config.replicas {
        tasks.spawn("group", group::run(Arc::clone(&core), group));
    }
    tasks.spawn("processes", processes::run(Arc::clone(&core)));
    tasks.spawn("sender", sender::run(Arc::clone(&core), client.clone()));
    tasks.spawn("courier", jobs::courier::run(Arc::clone(&core), client));
    tasks.spawn("upkeep", upkeep::run(Arc::clone(&core)));
    for address in args.signal.iter().filter(|address| !address.is_empty()) {
        let source = signal::client::Source {
            address: address.clone(),
            server_name: args.signal_server_name.clone(),
            authorities: args.signal_ca.clone(),
            token: args.signal_token.clone(),
            chain_id: args.chain_id.clone(),
            host_uid: args.host_uid.clone(),
            client: args.pod_name.clone(),
        };
        tasks.spawn("signal", signal::client::run(Arc::clone(&core), source));
    }
    tracing::info!(
        ?ports,
        model = config.model(),
        replicas = config.replicas,
        "serve is up"
    );
    tokio::select! {
        ended = tasks.first_to_end() => Err(Error::TaskEnded(ended)),
        _ = terminate.recv() => {
            take_leave(&core).await;
            last_flush(&core).await;
            Ok(())
        }
    }
}

/// Binds every door and starts serving it.
async fn open_doors(
    args: &ServeArgs,
    tasks: &mut Tasks,
    context: &Context,
    client: reqwest::Client,
) -> Result<Ports, Error> {
    let bind = async |port| {
        let address = SocketAddr::new(args.bind, port);
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        Ok::<_, Error>((listener, port))
    };
    let (management, management_port) = bind(args.management_port).await?;
    let (inference, inference_port) = bind(args.inference_port).await?;
    let (operator, operator_port) = bind(args.operator_port).await?;
    let (metrics, metrics_port) = bind(args.metrics_port).await?;
    for (listener, port) in [(management, Port::Management), (inference, Port::Inference)] {
        let listener = Resettable::new(listener, Arc::clone(&context.doors));
        let router = chain::router(context.clone(), port);
        tasks.spawn("chain door", async move {
            let served = axum::serve(listener, router).await;
            tracing::error!(?served, "the chain door failed");
        });
    }
    let trust = Trust::new(
        args.trust_jwks.clone(),
        args.trust_audience.clone(),
        args.trust_subject.clone(),
    );
    let service = operator::Service::new(Arc::clone(&context.core), Arc::clone(&context.doors), trust, client);
    tasks.spawn("operator door", async move {
        let served = Server::builder()
            .add_service(SlotServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(operator))
            .await;
        tracing::error!(?served, "the operator door failed");
    });
    let router = Router::new().route("/metrics", get(scrape)).with_state(context.clone());
    tasks.spawn("metrics", async move {
        let served = axum::serve(metrics, router).await;
        tracing::error!(?served, "the metrics port failed");
    });
    Ok(Ports {
        management: management_port,
        inference: inference_port,
        operator: operator_port,
        metrics: metrics_port,
    })
}

async fn scrape(Shared(context): Shared<Context>) -> String {
    context.metrics.render(&context.core)
}

fn write_ports(config: &Config, ports: Ports) -> io::Result<()> {
    let json = serde_json::to_vec(&ports)?;
    let temporary = config.run_dir.join("ports.new");
    std::fs::write(&temporary, json)?;
    std::fs::rename(temporary, config.run_dir.join("ports.json"))
}

/// Stays for as long as somebody may still come here.
async fn take_leave(core: &Core) {
    let told_ms = now_ms();
    core.update(|state| state.closing = true);
    let stays = |state: &State| {
        let held = state.memory.assignment.is_some();
        farewell::stays(told_ms, held, state.released_ms, core.config.farewell_ms, now_ms())
    };
    while core.read(stays) {
        tokio::time::sleep(GLANCE).await;
    }
}

/// Gives the sender a moment for what waits. The round itself stays open in the journal: should the pod live on, the
/// next `serve` goes on with it.
async fn last_flush(core: &Core) {
    let empty = core.until(|state| state.newest().is_none_or(|round| round.outbox.is_empty()));
    if tokio::time::timeout(LAST_FLUSH, empty).await.is_err() {
        tracing::warn!("artifacts were left undelivered");
    }
}

/// The tasks of `serve`; none of them ever ends by itself.
#[derive(Debug, Default)]
struct Tasks(JoinSet<&'static str>);

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    async fn first_to_end(&mut self) -> &'static str {
        match self.0.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                tracing::error!(%error, "a task panicked");
                "a task"
            }
            None => "every task",
        }
    }
}
