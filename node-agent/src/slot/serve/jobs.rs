//! Decide: validation jobs. Queued per replica group in turn, worked off first in, first out, while no round runs;
//! results are kept for five minutes. Pure; the clock is an argument.

pub mod courier;

use super::request::RoundRequest;
use kernels::scheme::{Artifact, StatTest, compare};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// Most nonces that may wait.
pub const MAX_QUEUED_NONCES: usize = 100_000;
/// How long a result is kept.
const KEPT_MS: i64 = 300_000;
/// Most results kept.
const MAX_RESULTS: usize = 10_000;
/// Most callbacks that wait.
const MAX_POSTS: usize = 10_000;

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// `port:uuid`.
    pub id: String,
    /// The round its artifacts belong to; key and hash are the prover's.
    pub request: RoundRequest,
    /// Nonces, without repetition, in the order asked.
    pub nonces: Vec<i64>,
    /// What the prover sent; nothing: compute only.
    pub received: Option<Vec<Artifact>>,
    /// Thresholds.
    pub test: StatTest,
    /// Nonces computed so far, in order.
    pub done: usize,
    /// Their artifacts.
    pub computed: Vec<Artifact>,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Waits.
    Queued,
    /// Has begun.
    Running,
    /// Result fields.
    Completed(Value),
    /// Why not.
    Failed(String),
    /// By a stop.
    Cancelled,
}

/// A callback that waits to be posted.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// Full address.
    pub url: String,
    /// Body.
    pub body: Value,
}

#[derive(Debug, Clone, PartialEq)]
struct Known {
    outcome: Outcome,
    at_ms: i64,
}

/// All jobs of a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Jobs {
    queues: Vec<VecDeque<Job>>,
    known: BTreeMap<String, Known>,
    posts: VecDeque<Post>,
    next_group: usize,
}

impl Jobs {
    /// None yet, for this many replica groups.
    pub fn new(groups: u32) -> Self {
        Self {
            queues: vec![VecDeque::new(); groups as usize],
            known: BTreeMap::new(),
            posts: VecDeque::new(),
            next_group: 0,
        }
    }

    /// The group whose turn it is, among those that are ready.
    pub fn take_turn(&mut self, is_ready: impl Fn(usize) -> bool) -> Option<usize> {
        let groups = self.queues.len();
        let group = (0..groups)
            .map(|offset| (self.next_group + offset) % groups)
            .find(|group| is_ready(*group))?;
        self.next_group = (group + 1) % groups;
        Some(group)
    }

    /// Nonces that wait.
    pub fn queued_nonces(&self) -> usize {
        self.queues
            .iter()
            .flatten()
            .map(|job| job.nonces.len() - job.done)
            .sum()
    }

    /// Adds a job to a group's queue.
    pub fn push(&mut self, group: usize, job: Job, now_ms: i64) {
        self.note(&job.id, Outcome::Queued, now_ms);
        if let Some(queue) = self.queues.get_mut(group) {
            queue.push_back(job);
        }
    }

    /// What a group should compute next: the job, and at most `batch_size` of its nonces.
    pub fn next_chunk(&self, group: usize) -> Option<(&Job, &[i64])> {
        let job = self.queues.get(group)?.front()?;
        let rest = &job.nonces[job.done..];
        let size = (job.request.batch_size.max(1) as usize).min(rest.len());
        Some((job, &rest[..size]))
    }

    /// Notes that a group began with the job at the front of its queue.
    pub fn begin(&mut self, id: &str, now_ms: i64) {
        if matches!(self.outcome(id), Some(Outcome::Queued)) {
            self.note(id, Outcome::Running, now_ms);
        }
    }

    /// Takes in a computed chunk. A job that was cancelled meanwhile takes none.
    pub fn finish_chunk(&mut self, group: usize, id: &str, count: usize, artifacts: Vec<Artifact>, now_ms: i64) {
        let Some(queue) = self.queues.get_mut(group) else {
            return;
        };
        let Some(job) = queue.front_mut().filter(|job| job.id == id) else {
            return;
        };
        job.done += count;
        job.computed.extend(artifacts);
        if job.done < job.nonces.len() {
            return;
        }
        if let Some(job) = queue.pop_front() {
            let (result, post) = conclude(&job);
            self.note(&job.id, Outcome::Completed(result), now_ms);
            if let Some(post) = post.filter(|_| self.posts.len() < MAX_POSTS) {
                self.posts.push_back(post);
            }
        }
    }

    /// Gives a job up.
    pub fn fail(&mut self, group: usize, id: &str, reason: &str, now_ms: i64) {
        let Some(queue) = self.queues.get_mut(group) else {
            return;
        };
        if queue.front().is_some_and(|job| job.id == id) {
            queue.pop_front();
            self.note(id, Outcome::Failed(reason.to_owned()), now_ms);
        }
    }

    /// Cancels everything that has not been completed.
    pub fn cancel_all(&mut self, now_ms: i64) {
        let ids: Vec<String> = self
            .queues
            .iter_mut()
            .flat_map(|queue| queue.drain(..))
            .map(|job| job.id)
            .collect();
        for id in ids {
            self.note(&id, Outcome::Cancelled, now_ms);
        }
    }

    /// Where a job stands.
    pub fn outcome(&self, id: &str) -> Option<&Outcome> {
        self.known.get(id).map(|known| &known.outcome)
    }

    /// Whether anything waits or runs.
    pub fn is_busy(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }

    /// The next callback to post.
    pub fn take_post(&mut self) -> Option<Post> {
        self.posts.pop_front()
    }

    /// Forgets old results.
    pub fn expire(&mut self, now_ms: i64) {
        self.known.retain(|_, known| {
            matches!(known.outcome, Outcome::Queued | Outcome::Running) || now_ms - known.at_ms < KEPT_MS
        });
    }

    fn note(&mut self, id: &str, outcome: Outcome, at_ms: i64) {
        self.known.insert(id.to_owned(), Known { outcome, at_ms });
        while self.known.len() > MAX_RESULTS {
            let oldest = self
                .known
                .iter()
                .min_by_key(|(_, known)| known.at_ms)
                .map(|(id, _)| id.clone());
            match oldest {
                Some(id) => self.known.remove(&id),
                None => return,
            };
        }
    }
}

/// Result fields of a finished job and its callback.
fn conclude(job: &Job) -> (Value, Option<Post>) {
    let round = &job.request;
    let (kind, fields) = if let Some(received) = &job.received {
        let verdict = compare(job.computed.clone(), received, &job.test);
        let fields = json!({
            "n_total": verdict.total,
            "n_mismatch": verdict.mismatch_nonces.len(),
            "mismatch_nonces": verdict.mismatch_nonces,
            "p_value": verdict.p_value,
            "fraud_detected": verdict.fraud,
        });
        ("validated", fields)
    } else {
        let artifacts: Vec<Value> = job
            .computed
            .iter()
            .map(|artifact| {
                json!({
                    "nonce": artifact.nonce,
                    "vector_b64": kernels::artifact::to_base64(&artifact.vector),
                })
            })
            .collect();
        (
            "generated",
            json!({ "artifacts": artifacts, "encoding": encoding(round.k_dim) }),
        )
    };
    let post = (!round.callback_url.is_empty()).then(|| {
        let mut body = json!({
            "request_id": job.id,
            "block_hash": round.seed,
            "block_height": round.height,
            "public_key": round.public_key,
            "node_id": round.node_num,
        });
        merge(&mut body, &fields);
        Post {
            url: format!("{}/{kind}", round.callback_url),
            body,
        }
    });
    (fields, post)
}

/// How vectors are written.
pub fn encoding(k_dim: i32) -> Value {
    json!({ "dtype": "f16", "k_dim": k_dim, "endian": "le" })
}

/// Adds the fields of one object to another.
pub fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

#[cfg(test)]
mod tests;
