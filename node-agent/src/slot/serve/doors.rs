//! The chain door's connections: open, drained, reset. A peer with a pooled connection moves to the slot's new pod the
//! moment its old connection is reset.
//!
//! Every connection belongs to the era in which it was accepted; closing the door ends the era. Idle connections are reset
//! at once; one with a request in flight carries the answer first and says `Connection: close` in it, so that what was
//! pipelined behind is answered wholly by the new pod and not half by this one.

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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

/// Longest wait for what was reset to be gone.
const RESETS: Duration = Duration::from_millis(200);
/// Between two looks at what is still there.
const GLANCE: Duration = Duration::from_millis(5);
/// Pause after a failed accept; the cause is usually a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Both chain listeners' common state.
#[derive(Debug)]
pub struct Doors {
    open: AtomicBool,
    era: Mutex<Arc<Era>>,
}

/// The time between two closings of the door.
#[derive(Debug, Default)]
struct Era {
    /// The door was closed: what is idle is reset.
    over: CancellationToken,
    /// The drain is over too: everything is reset.
    drained: CancellationToken,
    /// Connections that are not gone.
    connections: AtomicUsize,
}

impl Doors {
    /// Open or closed.
    pub fn new(open: bool) -> Self {
        Self {
            open: AtomicBool::new(open),
            era: Mutex::default(),
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

    /// Refuses new requests and lets idle connections be reset, at once. What is left is the answer's to drain.
    pub fn shut(&self) -> Closing {
        self.open.store(false, Ordering::SeqCst);
        let era = std::mem::take(&mut *lock(&self.era));
        era.over.cancel();
        Closing(era)
    }

    fn era(&self) -> Arc<Era> {
        Arc::clone(&lock(&self.era))
    }
}

/// A door that was shut, and the connections it had.
#[derive(Debug)]
pub struct Closing(Arc<Era>);

impl Closing {
    /// Lets requests in flight finish for a while and resets what is left then. Afterwards no connection is.
    pub async fn drain(self, drain: Duration) {
        if tokio::time::timeout(drain, self.gone()).await.is_err() {
            self.0.drained.cancel();
            // A task that is late with its reset does not hold up the takeover.
            drop(tokio::time::timeout(RESETS, self.gone()).await);
        }
    }

    async fn gone(&self) {
        while self.0.connections.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(GLANCE).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection's requests and its socket know of one another.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Line>);

#[derive(Debug)]
struct Line {
    era: Arc<Era>,
    traffic: Mutex<Traffic>,
}

#[derive(Debug, Default)]
struct Traffic {
    /// Requests without an answer.
    answering: usize,
    /// Answers that are on their way to the socket.
    leaving: usize,
    /// The last answer said that the connection ends with it.
    farewell: bool,
}

impl Peer {
    /// Counts a request until its answer has left.
    pub fn enter(&self) -> Visit {
        lock(&self.0.traffic).answering += 1;
        Visit(self.clone())
    }

    fn is_idle(&self) -> bool {
        let traffic = lock(&self.0.traffic);
        traffic.answering + traffic.leaving == 0 && !traffic.farewell
    }

    /// Everything handed over has left.
    fn flushed(&self) {
        lock(&self.0.traffic).leaving = 0;
    }
}

impl Connected<IncomingStream<'_, Resettable>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Resettable>) -> Self {
        stream.io().peer.clone()
    }
}

/// A request under way; lives until its answer is handed to the socket.
#[derive(Debug)]
pub struct Visit(Peer);

impl Visit {
    /// Whether the door has been closed since the request's connection was accepted: it must change nothing any more,
    /// even if the door is open again.
    pub fn is_late(&self) -> bool {
        self.0.0.era.over.is_cancelled()
    }

    /// The answer says that the connection ends with it.
    pub fn say_farewell(&self) {
        lock(&self.0.0.traffic).farewell = true;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut traffic = lock(&self.0.0.traffic);
        traffic.answering -= 1;
        traffic.leaving += 1;
    }
}

/// A listener whose connections can be reset.
#[derive(Debug)]
pub struct Resettable {
    listener: TcpListener,
    doors: Arc<Doors>,
}

impl Resettable {
    /// Around a bound listener.
    pub fn new(listener: TcpListener, doors: Arc<Doors>) -> Self {
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
                    return (Connection::new(stream, self.doors.era()), peer);
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

/// One connection; fails as soon as it is to be reset.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    peer: Peer,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    /// It ended in order: a reset would tear up what the peer has not read.
    ended: bool,
}

impl Connection {
    fn new(stream: TcpStream, era: Arc<Era>) -> Self {
        era.connections.fetch_add(1, Ordering::SeqCst);
        Self {
            stream,
            over: Box::pin(era.over.clone().cancelled_owned()),
            drained: Box::pin(era.drained.clone().cancelled_owned()),
            peer: Peer(Arc::new(Line {
                era,
                traffic: Mutex::default(),
            })),
            ended: false,
        }
    }

    /// Whether it is to be reset now.
    fn is_cut(&self) -> bool {
        let era = &self.peer.0.era;
        era.drained.is_cancelled() || (era.over.is_cancelled() && self.peer.is_idle())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peer.0.era.connections.fetch_sub(1, Ordering::SeqCst);
        if self.peer.0.era.over.is_cancelled()
            && !self.ended
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
        // Both are polled for their wake-up.
        let over = self.over.as_mut().poll(context).is_ready();
        let drained = self.drained.as_mut().poll(context).is_ready();
        if drained || (over && self.peer.is_idle()) {
            return Poll::Ready(Err(was_reset()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.drained.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(was_reset()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.peer.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            // An orderly end would come before the reset and leave the peer waiting on a half-open connection.
            return Poll::Ready(Ok(()));
        }
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.ended |= matches!(ended, Poll::Ready(Ok(())));
        ended
    }
}
