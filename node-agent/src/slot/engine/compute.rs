//! Apply: the thread that computes. Blocking, away from the async runtime; looks at its stop flag before every nonce.

use super::{model::chain, pace::Pace};
use kernels::{
    nonces::Enumeration,
    scheme::{Batch, Feed, Prepared},
};
use proto::v1::{Artifact, ArtifactBatch};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tonic::Status;

/// A batch leaves at the latest this long after its first nonce: a slow engine must not hold its first artifacts back.
const LINGER: Duration = Duration::from_millis(50);
/// Longest sleep between two looks at the stop flag.
const GLANCE: Duration = Duration::from_millis(10);

/// What a round's thread needs.
pub struct Job {
    /// The round.
    pub prepared: Box<dyn Prepared>,
    /// Its nonces.
    pub enumeration: Enumeration,
    /// Where to begin.
    pub first_index: u64,
    /// Most artifacts in one message.
    pub batch_size: usize,
    /// The cap.
    pub pace: Pace,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("enumeration", &self.enumeration)
            .field("first_index", &self.first_index)
            .finish_non_exhaustive()
    }
}

/// Computes until stopped, until nobody listens, or until there are no more nonces.
///
/// # Errors
/// What the device said; whoever listens has heard it too.
pub fn generate(
    mut job: Job,
    stop: &AtomicBool,
    total: &AtomicU64,
    out: &mpsc::Sender<Result<ArtifactBatch, Status>>,
) -> Result<(), kernels::scheme::Error> {
    let mut round = Running {
        enumeration: job.enumeration,
        asked_index: job.first_index,
        batch_size: job.batch_size,
        pace: job.pace,
        started: Instant::now(),
        batch_since: Instant::now(),
        batch: ArtifactBatch {
            next_index: job.first_index,
            ..ArtifactBatch::default()
        },
        stop,
        total,
        out,
    };
    let ended = job.prepared.run(&mut round);
    match &ended {
        Ok(()) if !round.gone() => {
            round.send();
        }
        Ok(()) => {}
        Err(error) => drop(out.blocking_send(Err(Status::internal(chain(error))))),
    }
    ended
}

/// A round under way: where its nonces come from, and its artifacts go.
struct Running<'a> {
    enumeration: Enumeration,
    asked_index: u64,
    batch_size: usize,
    pace: Pace,
    started: Instant,
    batch: ArtifactBatch,
    batch_since: Instant,
    stop: &'a AtomicBool,
    total: &'a AtomicU64,
    out: &'a mpsc::Sender<Result<ArtifactBatch, Status>>,
}

impl Running<'_> {
    fn gone(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.out.is_closed()
    }

    /// Sends and empties the batch; false when nobody listens.
    fn send(&mut self) -> bool {
        if self.batch.artifacts.is_empty() && self.batch.rejected_non_finite == 0 {
            return true;
        }
        let fresh = ArtifactBatch {
            next_index: self.batch.next_index,
            ..ArtifactBatch::default()
        };
        self.out
            .blocking_send(Ok(std::mem::replace(&mut self.batch, fresh)))
            .is_ok()
    }

    /// Waits until the cap allows a nonce more; false when told to go. What is ready does not wait for what is capped.
    fn wait(&mut self) -> bool {
        let wait = self.pace.take(self.started.elapsed());
        if !self.batch.artifacts.is_empty() && self.batch_since.elapsed() + wait >= LINGER && !self.send() {
            return false;
        }
        sleep_unless(wait, &|| self.gone())
    }
}

impl Feed for Running<'_> {
    fn next(&mut self, most: usize) -> Option<Vec<i64>> {
        let mut nonces = Vec::with_capacity(most);
        while nonces.len() < most {
            let Some(nonce) = self.enumeration.nonce(self.asked_index) else {
                break;
            };
            if !self.wait() {
                return None;
            }
            nonces.push(nonce);
            self.asked_index += 1;
        }
        (!nonces.is_empty()).then_some(nonces)
    }

    fn done(&mut self, computed: Batch) -> bool {
        if self.batch.artifacts.is_empty() {
            self.batch_since = Instant::now();
        }
        let count = computed.artifacts.len() as u64;
        self.total.fetch_add(count, Ordering::Relaxed);
        self.batch.next_index += count + u64::from(computed.rejected_non_finite);
        self.batch.artifacts.extend(computed.artifacts.into_iter().map(to_wire));
        self.batch.rejected_non_finite += computed.rejected_non_finite;
        if self.gone() {
            return false;
        }
        self.batch.artifacts.len() < self.batch_size || self.send()
    }
}

/// Artifacts of given nonces, for validation and rehearsal. `None`: stopped.
pub fn compute(
    prepared: &mut dyn Prepared,
    nonces: &[i64],
    stop: &AtomicBool,
) -> Option<Result<Vec<Artifact>, kernels::scheme::Error>> {
    let mut listed = Listed {
        nonces,
        artifacts: Vec::with_capacity(nonces.len()),
        stop,
    };
    let ended = prepared.run(&mut listed);
    match ended {
        Ok(()) if stop.load(Ordering::Relaxed) => None,
        ended => Some(ended.map(|()| listed.artifacts)),
    }
}

/// Given nonces, until a stop.
struct Listed<'a> {
    nonces: &'a [i64],
    artifacts: Vec<Artifact>,
    stop: &'a AtomicBool,
}

impl Feed for Listed<'_> {
    fn next(&mut self, most: usize) -> Option<Vec<i64>> {
        let (next, rest) = self.nonces.split_at(most.min(self.nonces.len()));
        self.nonces = rest;
        (!next.is_empty() && !self.stop.load(Ordering::Relaxed)).then(|| next.to_vec())
    }

    fn done(&mut self, computed: Batch) -> bool {
        self.artifacts.extend(computed.artifacts.into_iter().map(to_wire));
        !self.stop.load(Ordering::Relaxed)
    }
}

/// An artifact for the wire. Nonces come from 32-bit enumerations or were checked on their way in.
pub fn to_wire(artifact: kernels::scheme::Artifact) -> Artifact {
    Artifact {
        nonce: artifact.nonce as i32,
        vector: artifact.vector,
    }
}

/// Sleeps; false when told to go.
fn sleep_unless(mut wait: Duration, gone: &impl Fn() -> bool) -> bool {
    loop {
        if gone() {
            return false;
        }
        if wait.is_zero() {
            return true;
        }
        let slice = wait.min(GLANCE);
        std::thread::sleep(slice);
        wait -= slice;
    }
}
