//! `slot engine`, `node-agent engine`: one replica group's engine behind a unix socket: the CPU reference of the proof, or a GPU. A sibling of
//! `serve`, not its child: it outlives it, model loaded.

pub mod compute;
pub mod model;
pub mod pace;
pub mod service;
pub mod weights;

use super::{args::EngineArgs, socket};
use model::Loader;
use proto::v1::engine_server::EngineServer;
use std::{io, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// From a device's failure to the end of the process.
const LAST_WORDS: Duration = Duration::from_millis(200);

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
    /// The device failed under a round.
    #[error("the device failed: a new process starts with a new context")]
    Device,
}

/// Waits for a broken device, and then for its error to reach whoever listens.
async fn last_words(broken: &Notify) {
    broken.notified().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// Serves until SIGTERM, or until the device fails. Work under way does not delay the end.
pub async fn run(args: EngineArgs, cuda: Option<Loader>) -> Result<(), Error> {
    let listener = socket::listen(&args.socket).map_err(Error::Socket)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    tracing::info!(socket = %args.socket.display(), "engine is up");
    let broken = Arc::new(Notify::new());
    let service = service::Service::new(cuda, Arc::clone(&broken));
    let service = Server::builder()
        .add_service(EngineServer::new(service).max_decoding_message_size(16 << 20))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        ended = service => ended.map_err(Error::Serve),
        _ = terminate.recv() => Ok(()),
        () = last_words(&broken) => Err(Error::Device),
    }
}
