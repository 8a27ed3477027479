//! Frames to subscribers. One sequence per chain; a subscriber that does not keep up is dropped, and comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::v1::Frame;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::frame::frame;
use crate::chain::now_ms;
use crate::context::Book;
use crate::facts::Facts;
use crate::metrics::Metrics;

/// Most subscribers of one replica: every agent and slot pod of 5,000 machines.
pub const MAX_SUBSCRIBERS: usize = 25_000;
/// Frames a subscriber may be behind.
const BEHIND: usize = 32;
/// Longest silence.
const HEARTBEAT_MILLIS: i64 = 4500;
/// How often facts are looked at; a change is one look away at most.
const LOOK: Duration = Duration::from_millis(50);

/// What subscribers receive.
pub type Received = Result<Frame, Status>;

/// All subscribers.
#[derive(Debug)]
pub struct Hub {
    source: String,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chains: BTreeMap<String, Chain>,
    subscribers: Vec<Subscriber>,
}

#[derive(Debug)]
struct Chain {
    last: Arc<Frame>,
    sent_ms: i64,
}

#[derive(Debug)]
struct Subscriber {
    chain_id: String,
    frames: mpsc::Sender<Received>,
}

impl Hub {
    /// Without subscribers.
    pub fn new(source: String, metrics: Arc<Metrics>) -> Self {
        Self {
            source,
            metrics,
            state: Mutex::default(),
        }
    }

    /// Follows the book until `stop`.
    pub async fn run(&self, book: Arc<Book>, stop: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked: BTreeMap<String, (Arc<Facts>, i64)> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).subscribers.clear();
                    return;
                }
                _ = look.tick() => {}
            }
            let now_ms = now_ms();
            for schedule in book.schedules() {
                let facts = book.facts(&schedule);
                // Equal facts are the same value: only its age makes a heartbeat of it.
                let (seen, at) = looked.entry(schedule).or_insert_with(|| (Arc::default(), 0));
                if !Arc::ptr_eq(seen, &facts) || now_ms - *at >= 500 {
                    (*seen, *at) = (Arc::clone(&facts), now_ms);
                    self.publish(frame(&facts), now_ms);
                }
            }
        }
    }

    /// Sends `content` when it differs from the chain's last frame, or as a heartbeat when that is long ago.
    pub fn publish(&self, content: Frame, now_ms: i64) {
        if content.chain_id.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Frame {
            source: self.source.clone(),
            ..content
        };
        let known = state.chains.get(&next.chain_id);
        if let Some(chain) = known {
            next.sequence = chain.last.sequence;
            next.heartbeat = chain.last.heartbeat;
            if next == *chain.last {
                if now_ms - chain.sent_ms < HEARTBEAT_MILLIS {
                    return;
                }
                next.heartbeat = true;
            } else {
                next.heartbeat = false;
            }
            next.sequence += 1;
        } else {
            // A restarted replica begins above what it sent before: sequences never run backwards.
            next.sequence = u64::try_from(now_ms).unwrap_or(1);
        }
        let last = Arc::new(next);
        let kind = if last.heartbeat { "heartbeat" } else { "change" };
        let sent = self.metrics.signal_frames_total.with_label_values(&[kind]);
        state.subscribers.retain(|subscriber| {
            if subscriber.chain_id != last.chain_id {
                return !subscriber.frames.is_closed();
            }
            let kept = subscriber.frames.try_send(Ok(last.as_ref().clone())).is_ok();
            if kept {
                sent.inc();
            }
            kept
        });
        self.count(&state);
        state
            .chains
            .insert(last.chain_id.clone(), Chain { last, sent_ms: now_ms });
    }

    /// A new subscriber; its first frame waits for it already, unless it has it from before.
    pub fn subscribe(&self, chain_id: &str, resume_sequence: u64) -> Result<mpsc::Receiver<Received>, Status> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.chains.is_empty() {
            return Err(Status::unavailable("no chain is read yet, try again"));
        }
        let Some(chain) = state.chains.get(chain_id) else {
            let known: Vec<&str> = state.chains.keys().map(String::as_str).collect();
            return Err(Status::failed_precondition(format!(
                "chain {chain_id:?} is not read here, these are: {}",
                known.join(", ")
            )));
        };
        let (frames, receiver) = mpsc::channel(BEHIND);
        if chain.last.sequence != resume_sequence {
            let first = Frame {
                heartbeat: false,
                ..chain.last.as_ref().clone()
            };
            // The channel is empty: there is room.
            drop(frames.try_send(Ok(first)));
        }
        if state.subscribers.len() >= MAX_SUBSCRIBERS {
            // Only here: a whole fleet that comes back at once must not look through itself for each of its members.
            state.subscribers.retain(|subscriber| !subscriber.frames.is_closed());
        }
        if state.subscribers.len() >= MAX_SUBSCRIBERS {
            return Err(Status::resource_exhausted(format!(
                "{MAX_SUBSCRIBERS} subscribers are connected, try another replica"
            )));
        }
        state.subscribers.push(Subscriber {
            chain_id: chain_id.to_owned(),
            frames,
        });
        self.count(&state);
        Ok(receiver)
    }

    fn count(&self, state: &State) {
        self.metrics
            .signal_subscribers
            .set(i64::try_from(state.subscribers.len()).unwrap_or(i64::MAX));
    }
}
