//! `slot engine`: one replica group's engine, the CPU reference of the proof behind a unix socket. A sibling of
//! `serve`, not its child: it outlives it, model loaded.

pub mod compute;
pub mod model;
pub mod pace;
pub mod service;
pub mod weights;

use super::{args::EngineArgs, socket};
use proto::v1::engine_server::EngineServer;
use std::io;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// Why the engine ended.
#[derive(Debug, Error)]
pub enum Error {
    /// Its socket cannot be made.
    #[error("cannot offer the socket of the engine")]
    Socket(#[source] socket::Error),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// The socket failed.
    #[error("the socket of the engine failed")]
    Serve(#[source] tonic::transport::Error),
}

/// Serves until SIGTERM. Work under way does not delay the end.
pub async fn run(args: EngineArgs) -> Result<(), Error> {
    let listener = socket::listen(&args.socket).map_err(Error::Socket)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    tracing::info!(socket = %args.socket.display(), "engine is up");
    let service = Server::builder()
        .add_service(EngineServer::new(service::Service::default()).max_decoding_message_size(16 << 20))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        ended = service => ended.map_err(Error::Serve),
        _ = terminate.recv() => Ok(()),
    }
}
