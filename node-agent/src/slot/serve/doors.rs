//! The chain door's connections: open, drained, reset. A peer with a pooled connection moves to the slot's new pod the
//! moment its old connection is reset.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Between two looks at what is still in flight.
const GLANCE: Duration = Duration::from_millis(5);
/// Pause after a failed accept; the cause is usually a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Both chain listeners' common state.
#[derive(Debug)]
pub struct Doors {
    open: AtomicBool,
    in_flight: AtomicUsize,
    connections: Mutex<CancellationToken>,
}

impl Doors {
    /// Open or closed.
    pub fn new(open: bool) -> Self {
        Self {
            open: AtomicBool::new(open),
            in_flight: AtomicUsize::new(0),
            connections: Mutex::new(CancellationToken::new()),
        }
    }

    /// Whether requests are answered.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// Answers requests from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Refuses new requests at once, lets those in flight finish for a while, then resets every connection.
    pub async fn close(&self, drain: Duration) {
        self.open.store(false, Ordering::SeqCst);
        let deadline = tokio::time::Instant::now() + drain;
        while self.in_flight.load(Ordering::SeqCst) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *connections, CancellationToken::new()).cancel();
    }

    /// Counts a request for as long as the answer takes.
    pub fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(&self.in_flight)
    }

    fn token(&self) -> CancellationToken {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A request under way.
#[derive(Debug)]
pub struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A listener whose connections can be reset.
#[derive(Debug)]
pub struct Resettable {
    listener: TcpListener,
    doors: std::sync::Arc<Doors>,
}

impl Resettable {
    /// Around a bound listener.
    pub fn new(listener: TcpListener, doors: std::sync::Arc<Doors>) -> Self {
        Self { listener, doors }
    }
}

impl axum::serve::Listener for Resettable {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    return (Connection::new(stream, self.doors.token()), peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection; fails as soon as its door's connections are reset.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    token: CancellationToken,
    reset: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn new(stream: TcpStream, token: CancellationToken) -> Self {
        let reset = Box::pin(token.clone().cancelled_owned());
        Self { stream, token, reset }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.token.is_cancelled()
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "the connection ends without a reset");
        }
    }
}

fn was_reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the door was closed")
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reset.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(was_reset()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.token.is_cancelled() {
            return Poll::Ready(Err(was_reset()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.token.is_cancelled() {
            // An orderly end would come before the reset and leave the peer waiting on a half-open connection.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
