//! FleetSignal: facts early, to everybody with a token. Every replica serves it, leader or not, without the API server.
//! It never carries a command. Clients hear nothing, and show no token, before the replica has proven who it is.

mod door;
mod frame;
mod hub;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::v1::fleet_signal_server::FleetSignalServer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::certificate::{Served, server_config};
use crate::context::Book;
use crate::metrics::Metrics;
use crate::trust::Trust;

pub use frame::frame;
pub use hub::{Hub, MAX_SUBSCRIBERS};
pub use service::Service;

const KEEPALIVE: Duration = Duration::from_secs(10);
/// Connections that have shaken hands and wait to be served.
const ARRIVALS: usize = 64;

/// Why FleetSignal is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("FleetSignal cannot listen on {address}; free the port or choose another with --signal-address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be spoken.
    #[error("FleetSignal's TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The server ended.
    #[error("the FleetSignal server ended")]
    Serve(#[source] tonic::transport::Error),
}

/// What serving needs.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Replica id in frames.
    pub source: String,
    /// Facts.
    pub book: Arc<Book>,
    /// Who may listen.
    pub trust: Arc<Trust>,
    /// What proves to clients who serves.
    pub served: Arc<Served>,
    /// Clients from before there was TLS are let in.
    pub plaintext: bool,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves on `address` until `stop`.
pub async fn serve(address: SocketAddr, serving: Serving, stop: CancellationToken) -> Result<(), Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    serve_on(listener, serving, stop).await
}

/// Serves on a listener that is bound already, until `stop`.
pub async fn serve_on(listener: TcpListener, serving: Serving, stop: CancellationToken) -> Result<(), Error> {
    let hub = Arc::new(Hub::new(serving.source, Arc::clone(&serving.metrics)));
    let service = Service::new(Arc::clone(&hub), Arc::clone(&serving.trust));
    let config = server_config(serving.served).map_err(Error::Tls)?;
    let door = door::Door {
        listener,
        acceptor: TlsAcceptor::from(Arc::new(config)),
        plaintext: serving.plaintext,
        metrics: serving.metrics,
    };
    let (arrivals, connections) = mpsc::channel(ARRIVALS);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .concurrency_limit_per_connection(16)
        .add_service(FleetSignalServer::new(service))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled());
    // The door goes on until the server has dropped what it receives from.
    let both = async { tokio::join!(server, door.run(arrivals)).0 };
    tokio::select! {
        ended = both => ended.map_err(Error::Serve),
        () = hub.run(serving.book, stop.clone()) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
