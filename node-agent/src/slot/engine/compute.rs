//! Apply: the thread that computes. Blocking, away from the async runtime; looks at its stop flag before every nonce.

use super::pace::Pace;
use kernels::{nonces::Enumeration, scheme::Prepared};
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
pub fn generate(mut job: Job, stop: &AtomicBool, total: &AtomicU64, out: &mpsc::Sender<Result<ArtifactBatch, Status>>) {
    let started = Instant::now();
    let mut next_index = job.first_index;
    let mut batch = ArtifactBatch {
        next_index,
        ..ArtifactBatch::default()
    };
    let mut batch_since = started;
    let gone = || stop.load(Ordering::Relaxed) || out.is_closed();
    loop {
        let wait = job.pace.take(started.elapsed());
        // What is ready does not wait for what is capped.
        if !batch.artifacts.is_empty() && batch_since.elapsed() + wait >= LINGER && !send(&mut batch, out) {
            return;
        }
        if !sleep_unless(wait, &gone) {
            return;
        }
        let Some(nonce) = job.enumeration.nonce(next_index) else {
            send(&mut batch, out);
            return;
        };
        match job.prepared.generate(&[nonce]) {
            Ok(computed) => {
                if batch.artifacts.is_empty() {
                    batch_since = Instant::now();
                }
                total.fetch_add(computed.artifacts.len() as u64, Ordering::Relaxed);
                batch.artifacts.extend(computed.artifacts.into_iter().map(to_wire));
                batch.rejected_non_finite += computed.rejected_non_finite;
            }
            Err(error) => {
                drop(out.blocking_send(Err(Status::internal(error.to_string()))));
                return;
            }
        }
        next_index += 1;
        batch.next_index = next_index;
        if batch.artifacts.len() >= job.batch_size && !send(&mut batch, out) {
            return;
        }
    }
}

/// Artifacts of given nonces, for validation and rehearsal. `None`: stopped.
pub fn compute(
    prepared: &mut dyn Prepared,
    nonces: &[i64],
    stop: &AtomicBool,
) -> Option<Result<Vec<Artifact>, kernels::scheme::Error>> {
    let mut artifacts = Vec::with_capacity(nonces.len());
    for nonce in nonces {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        match prepared.generate(&[*nonce]) {
            Ok(batch) => artifacts.extend(batch.artifacts.into_iter().map(to_wire)),
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(artifacts))
}

/// An artifact for the wire. Nonces come from 32-bit enumerations or were checked on their way in.
pub fn to_wire(artifact: kernels::scheme::Artifact) -> Artifact {
    Artifact {
        nonce: artifact.nonce as i32,
        vector: artifact.vector,
    }
}

/// Sends and empties the batch; false when nobody listens.
fn send(batch: &mut ArtifactBatch, out: &mpsc::Sender<Result<ArtifactBatch, Status>>) -> bool {
    let fresh = ArtifactBatch {
        next_index: batch.next_index,
        ..ArtifactBatch::default()
    };
    out.blocking_send(Ok(std::mem::replace(batch, fresh))).is_ok()
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
