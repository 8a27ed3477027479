//! `slot hold`: PID 1 of a slot pod. Keeps `serve` and the engines as siblings, each in its own process group, reaps
//! whatever the pod leaves behind, and never exits on purpose before it is told to: a container restart costs more
//! than any restart in here.

pub mod decide;
pub mod keeper;
pub mod process;
pub mod service;

use super::{args::HoldArgs, socket, telemetry::LogFormat};
use decide::Spec;
use keeper::Keeper;
use proto::v1::hold_server::HoldServer;
use std::{collections::BTreeMap, io};
use thiserror::Error;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// `serve` may use this long to hand its slot over and to deliver what it has when the pod ends; the engines have two seconds
/// more, and the kubelet gives thirty in all.
const SERVE_GRACE_MS: i64 = 24_000;

/// Why hold cannot do its work. There is nothing above PID 1 to help, so all of them happen at its start only.
#[derive(Debug, Error)]
pub enum Error {
    /// Its own path is not known.
    #[error("cannot find this binary: is /proc mounted?")]
    OwnPath(#[source] io::Error),
    /// Its socket cannot be made.
    #[error("cannot offer the socket of hold")]
    Socket(#[source] socket::Error),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// Runs until SIGTERM and the end of every child.
pub async fn run(args: HoldArgs, log_format: LogFormat) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(Error::OwnPath)?;
    process::adopt_orphans();
    let listener = socket::listen(&socket::hold_path(&args.run_dir)).map_err(Error::Socket)?;
    let (keeper, handle) = Keeper::new();
    let service = Server::builder()
        .add_service(HoldServer::new(service::Service::new(handle)))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let mut command = vec![
        own.display().to_string(),
        "serve".to_owned(),
        "--run-dir".to_owned(),
        args.run_dir.display().to_string(),
    ];
    command.extend(args.serve);
    let serve = Spec {
        name: "serve".to_owned(),
        argv: command,
        env: BTreeMap::from([log_format.variable()]),
        gpu_uuids: Vec::new(),
        restart: true,
        stop_grace_ms: SERVE_GRACE_MS,
    };
    let keep = keeper.run(serve);
    tokio::pin!(keep);
    tokio::select! {
        kept = &mut keep => return kept.map_err(Error::Signals),
        ended = service => {
            // The children matter more than the socket: without it nothing new starts, but all that runs is kept.
            tracing::error!(?ended, "the socket of hold failed; its children are still kept");
        }
    }
    keep.await.map_err(Error::Signals)
}
