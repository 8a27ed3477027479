//! FleetSignal's door: TLS before anything else is heard. Handshakes are bounded in time and number.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::metrics::Metrics;

/// A client must have said enough within this time.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once; who comes beyond waits in the kernel's queue.
const MOST_HANDSHAKES: usize = 512;
/// After a connection could not be taken (no file left).
const PAUSE: Duration = Duration::from_millis(100);
/// First byte of every TLS connection.
const TLS: u8 = 0x16;

/// Takes connections.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) acceptor: TlsAcceptor,
    /// Clients from before there was TLS are let in.
    pub(super) plaintext: bool,
    pub(super) metrics: Arc<Metrics>,
}

/// A client.
pub(super) enum Connection {
    Secure(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

impl Door {
    /// Hands on who may speak, until the receiver is gone.
    pub(super) async fn run(self, arrivals: mpsc::Sender<io::Result<Connection>>) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                Some(_greeted) = handshakes.join_next() => {}
                () = arrivals.closed() => return,
                accepted = self.listener.accept(), if handshakes.len() < MOST_HANDSHAKES => match accepted {
                    Ok((stream, _)) => {
                        let (acceptor, plaintext) = (self.acceptor.clone(), self.plaintext);
                        let (arrivals, metrics) = (arrivals.clone(), Arc::clone(&self.metrics));
                        handshakes.spawn(async move {
                            if let Some(connection) = greet(stream, &acceptor, plaintext, &metrics).await {
                                // Nobody receives while the server stops.
                                let _stopping = arrivals.send(Ok(connection)).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "FleetSignal took no connection");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
    }
}

async fn greet(stream: TcpStream, acceptor: &TlsAcceptor, plaintext: bool, metrics: &Metrics) -> Option<Connection> {
    let peer = stream.peer_addr().ok();
    let greeted = timeout(HANDSHAKE, shake_hands(stream, acceptor, plaintext)).await;
    let (result, connection) = match greeted {
        Ok(Ok(Some(connection @ Connection::Secure(_)))) => ("tls", Some(connection)),
        Ok(Ok(Some(connection @ Connection::Plain(_)))) => ("plaintext", Some(connection)),
        Ok(Ok(None)) => {
            tracing::info!(
                ?peer,
                "a client without TLS was turned away; fleetSignal.acceptPlaintext lets it in while pods are rolled"
            );
            ("plaintext_refused", None)
        }
        // It came and went: a probe.
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotConnected => return None,
        Ok(Err(error)) => {
            tracing::info!(
                ?peer,
                error = &error as &dyn std::error::Error,
                "a client's TLS handshake failed"
            );
            ("failed", None)
        }
        Err(_) => {
            tracing::info!(?peer, "a client did not finish its TLS handshake in time");
            ("failed", None)
        }
    };
    metrics.signal_handshakes_total.with_label_values(&[result]).inc();
    connection
}

/// Nothing: a client without TLS, which is not let in.
async fn shake_hands(stream: TcpStream, acceptor: &TlsAcceptor, plaintext: bool) -> io::Result<Option<Connection>> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::NotConnected.into());
    }
    if first[0] == TLS {
        let secure = acceptor.accept(stream).await?;
        return Ok(Some(Connection::Secure(Box::new(secure))));
    }
    Ok(plaintext.then_some(Connection::Plain(stream)))
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Self::Secure(stream) => stream.get_ref().0.connect_info(),
            Self::Plain(stream) => stream.connect_info(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Secure(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Secure(stream) => Pin::new(stream).poll_flush(context),
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
