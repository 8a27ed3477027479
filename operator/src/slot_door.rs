//! Slots' operator doors: one watcher per pod feeds the live board, and promote, demote and rehearse go the same way.
//! Leader only. Works without the API server: pods are known by address, and what was known stays known.

mod client;
mod watch;

pub use client::Error;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::ModelDeployment;
use kube::runtime::reflector::ObjectRef;
use proto::v1::{SlotKey, SlotReport};
use tokio::sync::{mpsc, watch as channel};
use tonic::transport::Channel;

use crate::chain::now_ms;
use crate::live::{Board, Observation};
use crate::model_deployment::observe;
use crate::model_deployment::observed::{Link, Live, Told};
use crate::model_deployment::{Demote, Promote, Rehearse};

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
    fn key(&self) -> SlotKey {
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
    /// What a promote said last.
    pub told: Option<Told>,
    /// Generation a promote was refused with.
    pub fence: i64,
    /// A rehearsal runs.
    pub rehearsing: bool,
    /// When the last one was over, Unix milliseconds: a report from before does not tell of it yet.
    pub rehearsed_ms: i64,
    channel: Option<Channel>,
    last: Option<Live>,
}

#[derive(Debug)]
struct Door {
    target: Target,
    state: DoorState,
}

/// All doors in sight.
#[derive(Debug)]
pub struct Doors {
    board: Arc<Board>,
    token_file: PathBuf,
    by_pod: Mutex<BTreeMap<String, Door>>,
    targets: channel::Sender<u64>,
    wake: mpsc::UnboundedSender<ObjectRef<ModelDeployment>>,
    rehearsals: mpsc::UnboundedSender<Rehearse>,
}

/// What a promote came to.
#[derive(Debug)]
pub enum Promoted {
    /// The door is open.
    Done,
    /// The pod has seen this higher generation.
    Fenced(i64),
}

/// The other end of rehearsals that were asked for; taken by [`Doors::run`].
pub type Rehearsals = mpsc::UnboundedReceiver<Rehearse>;

impl Doors {
    /// Doors whose reports go to `board`; `wake` hears of every deployment with news that can change a decision.
    pub fn new(
        board: Arc<Board>,
        token_file: PathBuf,
        wake: mpsc::UnboundedSender<ObjectRef<ModelDeployment>>,
    ) -> (Arc<Self>, Rehearsals) {
        let (rehearsals, asked) = mpsc::unbounded_channel();
        let doors = Self {
            board,
            token_file,
            by_pod: Mutex::default(),
            targets: channel::channel(0).0,
            wake,
            rehearsals,
        };
        (Arc::new(doors), asked)
    }

    /// Watches the doors until cancelled.
    pub async fn run(self: Arc<Self>, rehearsals: Rehearsals) {
        watch::run(self, rehearsals).await;
    }

    /// Replaces the pods of one deployment.
    pub fn follow(&self, deployment: &ObjectRef<ModelDeployment>, targets: Vec<Target>) {
        let mut changed = false;
        {
            let mut doors = self.lock();
            let wanted: BTreeMap<&str, &Target> =
                targets.iter().map(|target| (target.pod_uid.as_str(), target)).collect();
            doors.retain(|uid, door| {
                let keep = door.target.deployment != *deployment || wanted.contains_key(uid.as_str());
                changed |= !keep;
                keep
            });
            for target in targets {
                match doors.get_mut(&target.pod_uid) {
                    Some(door) => {
                        if door.target.address != target.address {
                            door.state.channel = None;
                            changed = true;
                        }
                        door.target = target;
                    }
                    None => {
                        changed = true;
                        let state = DoorState {
                            since_ms: now_ms(),
                            ..DoorState::default()
                        };
                        doors.insert(target.pod_uid.clone(), Door { target, state });
                    }
                }
            }
        }
        if changed {
            let known: Vec<String> = self.lock().keys().cloned().collect();
            self.board.retain(|uid| known.iter().any(|known| known == uid));
            self.targets.send_modify(|version| *version += 1);
        }
    }

    /// What is known of a pod's door; absent when it is not followed.
    pub fn state(&self, pod_uid: &str) -> Option<DoorState> {
        self.lock().get(pod_uid).map(|door| door.state.clone())
    }

    /// Opens a chain door.
    pub async fn promote(&self, step: &Promote) -> Result<Promoted, Error> {
        let target = self.target(&step.pod_uid, &step.pod, &step.address)?;
        match client::promote(&self.token_file, self.channel(&step.pod_uid), &target, step).await {
            Ok(report) => {
                self.with(&step.pod_uid, |state| {
                    state.told = Some(Told {
                        generation: step.generation,
                        node_num: step.node_num,
                        callback_base: step.callback_base.clone(),
                    });
                    state.fence = 0;
                });
                self.hear(&step.pod_uid, Some(&step.node_id), report);
                Ok(Promoted::Done)
            }
            Err(Error::Refused { seen: Some(seen), .. }) if seen > step.generation => {
                self.with(&step.pod_uid, |state| state.fence = seen);
                Ok(Promoted::Fenced(seen))
            }
            Err(error) => Err(error),
        }
    }

    /// Closes a chain door.
    pub async fn demote(&self, step: &Demote) -> Result<(), Error> {
        let target = self.target(&step.pod_uid, &step.pod, &step.address)?;
        let report = client::demote(&self.token_file, self.channel(&step.pod_uid), &target, step).await?;
        self.with(&step.pod_uid, |state| state.told = None);
        self.hear(&step.pod_uid, None, report);
        Ok(())
    }

    /// Starts a rehearsal and does not wait for it.
    pub fn rehearse(&self, step: Rehearse) {
        self.with(&step.pod_uid, |state| state.rehearsing = true);
        // Fails only when nobody watches doors any more: the process ends.
        let _ending = self.rehearsals.send(step);
    }

    async fn run_rehearsal(&self, step: Rehearse) {
        let result = match self.target(&step.pod_uid, &step.pod, &step.address) {
            Ok(target) => client::rehearse(&self.token_file, self.channel(&step.pod_uid), &target, &step).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => tracing::info!(pod = step.pod, slot = step.slot, "rehearsal ended"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                pod = step.pod,
                slot = step.slot,
                "rehearsal was not done"
            ),
        }
        let now = now_ms();
        self.with(&step.pod_uid, |state| {
            state.rehearsing = false;
            state.rehearsed_ms = now;
        });
        self.ring(&step.pod_uid);
    }

    /// Stores a report. A pod speaks for itself alone.
    fn hear(&self, pod_uid: &str, node_id: Option<&str>, report: SlotReport) {
        let own = report
            .key
            .as_ref()
            .is_some_and(|key| key.pod_uid.is_empty() || key.pod_uid == pod_uid);
        if !own {
            return;
        }
        let significant = observe::significant(&report);
        let holds = significant.slot >= 0;
        let observation = Observation {
            report,
            received_ms: now_ms(),
            connected: true,
        };
        self.board.report(pod_uid, node_id.filter(|_| holds), observation);
        let mut news = false;
        self.with(pod_uid, |state| {
            news = state.last.as_ref() != Some(&significant);
            state.last = Some(significant);
        });
        if news {
            self.ring(pod_uid);
        }
    }

    fn link(&self, pod_uid: &str, link: Link, channel: Option<Channel>) {
        let mut news = false;
        self.with(pod_uid, |state| {
            if state.link != link {
                state.link = link;
                state.since_ms = now_ms();
                news = true;
            }
            state.channel = channel;
        });
        if link == Link::Broken {
            self.board.disconnected(pod_uid);
        }
        if news {
            self.ring(pod_uid);
        }
    }

    /// Wakes the deployment of a pod.
    fn ring(&self, pod_uid: &str) {
        let deployment = self.lock().get(pod_uid).map(|door| door.target.deployment.clone());
        if let Some(deployment) = deployment {
            // Fails only when the controller has ended.
            let _ending = self.wake.send(deployment);
        }
    }

    fn target(&self, pod_uid: &str, pod: &str, address: &str) -> Result<Target, Error> {
        let target = self.lock().get(pod_uid).map(|door| door.target.clone());
        target
            .map(|target| Target {
                address: address.to_owned(),
                ..target
            })
            .ok_or_else(|| Error::Unfollowed { pod: pod.to_owned() })
    }

    fn channel(&self, pod_uid: &str) -> Option<Channel> {
        self.lock().get(pod_uid).and_then(|door| door.state.channel.clone())
    }

    fn with(&self, pod_uid: &str, change: impl FnOnce(&mut DoorState)) {
        if let Some(door) = self.lock().get_mut(pod_uid) {
            change(&mut door.state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Door>> {
        self.by_pod.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
