//! Slots' operator doors: one watcher per pod feeds the live board, and promote, demote and rehearse go the same way.
//! Leader only. Works without the API server: pods are known by address, and what was known stays known.

mod client;
pub mod messages;
mod states;
mod watch;

pub use client::{Error, KEEP_ALIVE};
pub use states::{DoorState, Followed, States, Target};
pub use watch::LONGEST_PAUSE;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::ModelDeployment;
use kube::runtime::reflector::ObjectRef;
use proto::v1::SlotReport;
use tokio::sync::{mpsc, watch as channel};
use tonic::transport::Channel;

use crate::chain::now_ms;
use crate::live::Board;
use crate::model_deployment::observed::Link;
use crate::model_deployment::{Demote, Promote, Rehearse};

/// Doors and connections.
#[derive(Debug, Default)]
struct Known {
    states: States,
    channels: BTreeMap<String, Channel>,
}

/// All doors in sight.
#[derive(Debug)]
pub struct Doors {
    board: Arc<Board>,
    token_file: PathBuf,
    known: Mutex<Known>,
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
            known: Mutex::default(),
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
        let followed = {
            let mut known = self.lock();
            let followed = known.states.follow(&self.board, deployment, targets, now_ms());
            known.channels.retain(|uid, _| !followed.broken.contains(uid));
            followed
        };
        if followed.changed {
            self.targets.send_modify(|version| *version += 1);
        }
    }

    /// What is known of a pod's door; absent when it is not followed.
    pub fn state(&self, pod_uid: &str) -> Option<DoorState> {
        self.lock().states.state(pod_uid).cloned()
    }

    /// Opens a chain door.
    pub async fn promote(&self, step: &Promote) -> Result<Promoted, Error> {
        let target = self.target(&step.pod_uid, &step.pod, &step.address)?;
        match client::promote(&self.token_file, self.channel(&step.pod_uid), &target, step).await {
            Ok(report) => {
                self.lock().states.promoted(step);
                self.hear(&step.pod_uid, Some(&step.node_id), report);
                Ok(Promoted::Done)
            }
            Err(Error::Refused { seen: Some(seen), .. }) if seen > step.generation => {
                self.lock().states.fenced(&step.pod_uid, seen);
                Ok(Promoted::Fenced(seen))
            }
            Err(error) => Err(error),
        }
    }

    /// Closes a chain door.
    pub async fn demote(&self, step: &Demote) -> Result<(), Error> {
        let target = self.target(&step.pod_uid, &step.pod, &step.address)?;
        let report = client::demote(&self.token_file, self.channel(&step.pod_uid), &target, step).await?;
        self.lock().states.demoted(step);
        self.hear(&step.pod_uid, None, report);
        Ok(())
    }

    /// Starts a rehearsal and does not wait for it.
    pub fn rehearse(&self, step: Rehearse) {
        self.lock().states.rehearsing(&step.pod_uid);
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
        self.lock().states.rehearsed(&step.pod_uid, now_ms());
        self.ring(&step.pod_uid);
    }

    /// Stores a report.
    fn hear(&self, pod_uid: &str, node_id: Option<&str>, report: SlotReport) {
        let news = self
            .lock()
            .states
            .hear(&self.board, pod_uid, node_id, (report, now_ms()));
        if news {
            self.ring(pod_uid);
        }
    }

    fn link(&self, pod_uid: &str, link: Link, channel: Option<Channel>) {
        let news = {
            let mut known = self.lock();
            match channel.filter(|_| known.states.target(pod_uid).is_some()) {
                Some(channel) => known.channels.insert(pod_uid.to_owned(), channel),
                None => known.channels.remove(pod_uid),
            };
            known.states.link(&self.board, pod_uid, link, now_ms())
        };
        if news {
            self.ring(pod_uid);
        }
    }

    /// Wakes the deployment of a pod.
    fn ring(&self, pod_uid: &str) {
        let deployment = self
            .lock()
            .states
            .target(pod_uid)
            .map(|target| target.deployment.clone());
        if let Some(deployment) = deployment {
            // Fails only when the controller has ended.
            let _ending = self.wake.send(deployment);
        }
    }

    fn target(&self, pod_uid: &str, pod: &str, address: &str) -> Result<Target, Error> {
        let target = self.lock().states.target(pod_uid).cloned();
        target
            .map(|target| Target {
                address: address.to_owned(),
                ..target
            })
            .ok_or_else(|| Error::Unfollowed { pod: pod.to_owned() })
    }

    fn channel(&self, pod_uid: &str) -> Option<Channel> {
        self.lock().channels.get(pod_uid).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
