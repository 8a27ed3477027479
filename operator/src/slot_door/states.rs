//! What is known of every followed door, as values: the clock comes in. Connections are [`super::watch`]'s.

use std::collections::BTreeMap;

use crds::ModelDeployment;
use kube::runtime::reflector::ObjectRef;
use proto::v1::{SlotKey, SlotReport};

use crate::live::{Board, Observation};
use crate::model_deployment::observe;
use crate::model_deployment::observed::{Link, Live, Told};
use crate::model_deployment::{Demote, Promote};

/// A pod whose door is kept in sight.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Pod UID.
    pub pod_uid: String,
    /// Pod IP.
    pub address: String,
    /// Its deployment.
    pub deployment: ObjectRef<ModelDeployment>,
    /// UID of its deployment.
    pub deployment_uid: String,
    /// DAPI node the pod holds, when it holds one.
    pub node_id: Option<String>,
    /// Slot it holds; -1 = none.
    pub slot: i32,
    /// Generation it holds it with.
    pub generation: i64,
}

impl Target {
    /// How the pod is addressed.
    pub fn key(&self) -> SlotKey {
        SlotKey {
            deployment_uid: self.deployment_uid.clone(),
            slot: self.slot,
            pod_uid: self.pod_uid.clone(),
            generation: self.generation,
        }
    }
}

/// What is known of one door beside its reports.
#[derive(Clone, Debug, Default)]
pub struct DoorState {
    /// The connection.
    pub link: Link,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// Since when the pod says that it holds the slot it does, Unix milliseconds.
    pub held_since_ms: i64,
    /// Since when as many of its engines are ready as are, Unix milliseconds.
    pub engines_since_ms: i64,
    /// What a promote said last.
    pub told: Option<Told>,
    /// Generation a promote was refused with.
    pub fence: i64,
    /// A rehearsal runs.
    pub rehearsing: bool,
    /// When the last one was over, Unix milliseconds: a report from before does not tell of it yet.
    pub rehearsed_ms: i64,
    last: Option<Live>,
}

#[derive(Debug)]
struct Door {
    target: Target,
    state: DoorState,
}

/// All doors in sight.
#[derive(Debug, Default)]
pub struct States {
    by_pod: BTreeMap<String, Door>,
}

/// What a new set of pods changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Followed {
    /// Other pods, or other addresses.
    pub changed: bool,
    /// Pods whose connection leads nowhere: they have another address, or are not followed any more.
    pub broken: Vec<String>,
}

impl States {
    /// Replaces the pods of one deployment. The board forgets pods that nobody follows.
    pub fn follow(
        &mut self,
        board: &Board,
        deployment: &ObjectRef<ModelDeployment>,
        targets: Vec<Target>,
        now_ms: i64,
    ) -> Followed {
        let mut followed = Followed::default();
        let wanted: BTreeMap<&str, &Target> = targets.iter().map(|target| (target.pod_uid.as_str(), target)).collect();
        self.by_pod.retain(|uid, door| {
            let keep = door.target.deployment != *deployment || wanted.contains_key(uid.as_str());
            if !keep {
                followed.changed = true;
                followed.broken.push(uid.clone());
            }
            keep
        });
        for target in targets {
            match self.by_pod.get_mut(&target.pod_uid) {
                Some(door) => {
                    if door.target.address != target.address {
                        followed.changed = true;
                        followed.broken.push(target.pod_uid.clone());
                    }
                    door.target = target;
                }
                None => {
                    followed.changed = true;
                    let state = DoorState {
                        since_ms: now_ms,
                        ..DoorState::default()
                    };
                    self.by_pod.insert(target.pod_uid.clone(), Door { target, state });
                }
            }
        }
        if followed.changed {
            board.retain(|uid| self.by_pod.contains_key(uid));
        }
        followed
    }

    /// Every followed pod.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.by_pod.values().map(|door| &door.target)
    }

    /// A followed pod.
    pub fn target(&self, pod_uid: &str) -> Option<&Target> {
        self.by_pod.get(pod_uid).map(|door| &door.target)
    }

    /// What is known of a pod's door; absent when it is not followed.
    pub fn state(&self, pod_uid: &str) -> Option<&DoorState> {
        self.by_pod.get(pod_uid).map(|door| &door.state)
    }

    /// A promote was taken.
    pub fn promoted(&mut self, step: &Promote) {
        self.with(&step.pod_uid, |state| {
            state.told = Some(Told {
                generation: step.generation,
                node_num: step.node_num,
                callback_base: step.callback_base.clone(),
            });
            state.fence = 0;
        });
    }

    /// A promote was refused: the pod has seen this higher generation.
    pub fn fenced(&mut self, pod_uid: &str, seen: i64) {
        self.with(pod_uid, |state| state.fence = seen);
    }

    /// A demote was taken.
    pub fn demoted(&mut self, step: &Demote) {
        self.with(&step.pod_uid, |state| state.told = None);
    }

    /// A rehearsal was asked for.
    pub fn rehearsing(&mut self, pod_uid: &str) {
        self.with(pod_uid, |state| state.rehearsing = true);
    }

    /// A rehearsal is over, however it went.
    pub fn rehearsed(&mut self, pod_uid: &str, now_ms: i64) {
        self.with(pod_uid, |state| {
            state.rehearsing = false;
            state.rehearsed_ms = now_ms;
        });
    }

    /// Stores a report. A pod speaks for itself alone. True when it can change a decision.
    pub fn hear(
        &mut self,
        board: &Board,
        pod_uid: &str,
        node_id: Option<&str>,
        (report, now_ms): (SlotReport, i64),
    ) -> bool {
        let own = report
            .key
            .as_ref()
            .is_some_and(|key| key.pod_uid.is_empty() || key.pod_uid == pod_uid);
        if !own {
            return false;
        }
        let significant = observe::significant(&report);
        let holds = significant.slot >= 0;
        let observation = Observation {
            report,
            received_ms: now_ms,
            connected: true,
        };
        board.report(pod_uid, node_id.filter(|_| holds), observation);
        let mut news = false;
        self.with(pod_uid, |state| {
            news = state.last.as_ref() != Some(&significant);
            let held = |live: &Live| (live.slot, live.generation);
            if state.last.as_ref().map(held) != Some(held(&significant)) {
                state.held_since_ms = now_ms;
            }
            let engines = |live: &Live| (live.backends_ready, live.backends_expected);
            if state.last.as_ref().map(engines) != Some(engines(&significant)) {
                state.engines_since_ms = now_ms;
            }
            state.last = Some(significant);
        });
        news
    }

    /// The connection is so now. True when that is news.
    pub fn link(&mut self, board: &Board, pod_uid: &str, link: Link, now_ms: i64) -> bool {
        let mut news = false;
        self.with(pod_uid, |state| {
            if state.link != link {
                state.link = link;
                state.since_ms = now_ms;
                news = true;
            }
        });
        if link == Link::Broken {
            board.disconnected(pod_uid);
        }
        news
    }

    fn with(&mut self, pod_uid: &str, change: impl FnOnce(&mut DoorState)) {
        if let Some(door) = self.by_pod.get_mut(pod_uid) {
            change(&mut door.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{Resume, RoundProgress, RoundState};

    use super::*;

    fn in_exam(generated: u64, accepted: u64, first_nonce_ms: i64) -> SlotReport {
        SlotReport {
            key: Some(SlotKey {
                pod_uid: "p".to_owned(),
                ..SlotKey::default()
            }),
            backends_ready: 1,
            backends_expected: 1,
            round: Some(RoundProgress {
                height: 100,
                state: RoundState::Generating.into(),
                first_nonce_ms,
                generated,
                accepted,
                next: vec![Resume {
                    group: 0,
                    next_index: accepted,
                }],
                ..RoundProgress::default()
            }),
            ..SlotReport::default()
        }
    }

    #[test]
    fn nonces_of_a_round_wake_nobody_after_the_first() {
        let board = Board::default();
        let deployment = ObjectRef::new("tiny").within("gonka");
        let target = Target {
            pod_uid: "p".to_owned(),
            address: "10.0.0.1".to_owned(),
            deployment: deployment.clone(),
            deployment_uid: "d".to_owned(),
            node_id: None,
            slot: 0,
            generation: 1,
        };
        let mut states = States::default();
        states.follow(&board, &deployment, vec![target], 0);
        let mut hear = |report, at| states.hear(&board, "p", None, (report, at));
        assert!(hear(in_exam(0, 0, 0), 1_000), "a round begins");
        assert!(hear(in_exam(4, 0, 1_500), 2_000), "its first nonce is there");
        for second in 3_u64..10 {
            let report = in_exam(4 * second, 2 * second, 1_500);
            assert!(!hear(report, 1_000 * second.cast_signed()), "after {second} s");
        }
        let mut lost = in_exam(60, 30, 1_500);
        lost.backends_ready = 0;
        assert!(hear(lost, 10_000), "an engine is lost");
    }
}
