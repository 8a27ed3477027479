//! What slots report over their operator door, newest first. Written by the slot watchers, read by decisions and `/fleet/v1/sprint`.
//! Lost with the process on purpose: a new leader watches the slots again and hears of the running round at once.

use crate::model_deployment::decide::SlotSteps;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{PoisonError, RwLock};

use proto::v1::{RoundProgress, SlotReport};
use tokio::sync::watch;

/// Rounds remembered per DAPI node.
const ROUNDS_PER_NODE: usize = 8;
/// Takeovers remembered in all.
const TAKEOVERS: usize = 1024;

/// One pod's last report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The report.
    pub report: SlotReport,
    /// When it came, Unix milliseconds.
    pub received_ms: i64,
    /// False once the stream broke; the report is then the last one before.
    pub connected: bool,
}

/// One takeover as it happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TakeoverEvent {
    /// DAPI node id.
    pub node_id: String,
    /// Index of the slot.
    pub slot: i32,
    /// Pod it left; empty when none held it.
    pub from_pod: String,
    /// Pod it went to.
    pub to_pod: String,
    /// Generation of the new assignment.
    pub generation: i64,
    /// Decision, Unix milliseconds.
    pub decided_ms: i64,
    /// `promote` answered, Unix milliseconds; absent while it has not.
    pub promoted_ms: Option<i64>,
}

impl TakeoverEvent {
    /// What is remembered of a slot's steps; nothing when it went to nobody.
    pub fn of(slot: &SlotSteps, promoted_ms: Option<i64>) -> Option<Self> {
        let takeover = slot.takeover.as_ref().filter(|takeover| !takeover.to.is_empty())?;
        Some(Self {
            node_id: takeover.node_id.clone(),
            slot: slot.slot,
            from_pod: takeover.from.clone(),
            to_pod: takeover.to.clone(),
            generation: takeover.generation,
            decided_ms: takeover.decided_ms,
            promoted_ms,
        })
    }
}

#[derive(Debug, Default)]
struct Inner {
    pods: BTreeMap<String, Observation>,
    rounds: BTreeMap<String, VecDeque<RoundProgress>>,
    takeovers: VecDeque<TakeoverEvent>,
}

/// Everything slots said lately.
#[derive(Debug)]
pub struct Board {
    inner: RwLock<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            inner: RwLock::default(),
            changed: watch::channel(0).0,
        }
    }
}

impl Board {
    /// Stores a report of the pod with this UID. `node_id` is the DAPI node the pod holds, when it holds one.
    pub fn report(&self, pod_uid: &str, node_id: Option<&str>, observation: Observation) {
        {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            if let (Some(node_id), Some(round)) = (node_id, &observation.report.round)
                && round.height > 0
            {
                remember_round(inner.rounds.entry(node_id.to_owned()).or_default(), round);
            }
            inner.pods.insert(pod_uid.to_owned(), observation);
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// The stream to this pod broke.
    pub fn disconnected(&self, pod_uid: &str) {
        if let Some(seen) = self
            .inner
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .pods
            .get_mut(pod_uid)
        {
            seen.connected = false;
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Forgets pods that are gone.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.inner
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .pods
            .retain(|uid, _| keep(uid));
    }

    /// The last report of a pod.
    pub fn pod(&self, pod_uid: &str) -> Option<Observation> {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .pods
            .get(pod_uid)
            .cloned()
    }

    /// What matters to `read` in the last report of a pod.
    pub fn of_pod<T>(&self, pod_uid: &str, read: impl FnOnce(&Observation) -> T) -> Option<T> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.pods.get(pod_uid).map(read)
    }

    /// What a DAPI node did in the round of `height`, whoever held it: one entry per pod that worked on it.
    pub fn rounds(&self, node_id: &str, height: i64) -> Vec<RoundProgress> {
        self.of_rounds(node_id, height, RoundProgress::clone)
    }

    /// The same, of each entry what matters to `read`.
    pub fn of_rounds<T>(&self, node_id: &str, height: i64, read: impl Fn(&RoundProgress) -> T) -> Vec<T> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let rounds = inner.rounds.get(node_id).into_iter().flatten();
        rounds.filter(|round| round.height == height).map(read).collect()
    }

    /// Records a takeover.
    pub fn takeover(&self, event: TakeoverEvent) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner
            .takeovers
            .retain(|known| (known.node_id.as_str(), known.generation) != (event.node_id.as_str(), event.generation));
        inner.takeovers.push_back(event);
        if inner.takeovers.len() > TAKEOVERS {
            inner.takeovers.pop_front();
        }
    }

    /// Takeovers of a DAPI node that were decided at this time or later, Unix milliseconds.
    pub fn takeovers(&self, node_id: &str, since_ms: i64) -> Vec<TakeoverEvent> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner
            .takeovers
            .iter()
            .filter(|event| event.decided_ms >= since_ms && event.node_id == node_id)
            .cloned()
            .collect()
    }

    /// Wakes on every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// A pod's round is one entry, known by when it started; progress replaces it.
fn remember_round(rounds: &mut VecDeque<RoundProgress>, round: &RoundProgress) {
    let same = |known: &&mut RoundProgress| known.height == round.height && known.started_ms == round.started_ms;
    match rounds.iter_mut().find(same) {
        Some(known) => *known = round.clone(),
        None => rounds.push_back(round.clone()),
    }
    if rounds.len() > ROUNDS_PER_NODE {
        rounds.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation(height: i64, started_ms: i64, generated: u64) -> Observation {
        let round = RoundProgress {
            height,
            started_ms,
            generated,
            ..RoundProgress::default()
        };
        Observation {
            report: SlotReport {
                round: Some(round),
                ..SlotReport::default()
            },
            received_ms: 1,
            connected: true,
        }
    }

    #[test]
    fn progress_replaces_and_a_takeover_adds() {
        let board = Board::default();
        board.report("pod-a", Some("node-0"), observation(61, 10, 5));
        board.report("pod-a", Some("node-0"), observation(61, 10, 9));
        board.report("pod-b", Some("node-0"), observation(61, 20, 3));
        let generated: Vec<u64> = board.rounds("node-0", 61).iter().map(|round| round.generated).collect();
        assert_eq!(generated, [9, 3]);
    }

    #[test]
    fn a_broken_stream_keeps_the_report_and_says_so() {
        let board = Board::default();
        board.report("pod-a", None, observation(61, 10, 5));
        board.disconnected("pod-a");
        assert!(!board.pod("pod-a").expect("known").connected);
    }
}
