//! Watches every slot pod over its operator door, as the operator does: two pods must never hold a slot with one
//! generation, a slot never goes back to an older one, and who was out of sight steps down soon after it is back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::ModelDeployment;
use e2e::harness::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use proto::v1::slot_client::SlotClient;
use proto::v1::{Door, RoundState, SlotKey, SlotReport, SlotWatchRequest};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;

/// Between looks at which pods there are.
const GLANCE: Duration = Duration::from_secs(1);
/// A report comes every five seconds at least.
const SILENCE: Duration = Duration::from_secs(7);
/// How long a pod that was out of sight may go on with its exam once it is back: the operator's longest pause between two
/// attempts is five seconds.
const STEPS_DOWN: Duration = Duration::from_secs(9);

/// What one pod was seen to hold.
#[derive(Clone, Debug)]
pub struct Sighting {
    at: Instant,
    pod: String,
    /// Slot and generation; absent when it holds none or is out of sight.
    holds: Option<(i32, i64)>,
    /// Height of the round it computes.
    computes: Option<i64>,
}

/// The watch; ends when dropped.
#[derive(Debug)]
pub struct Eyes {
    seen: Arc<Mutex<Vec<Sighting>>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Watcher {
    client: Client,
    token: AsciiMetadataValue,
    deployment_uid: String,
    seen: Arc<Mutex<Vec<Sighting>>>,
}

impl Eyes {
    /// Begins to watch.
    pub async fn open(cluster: &Cluster, client: &Client) -> Result<Self> {
        let token = cluster
            .kubectl(&[
                "-n",
                "gonka-system",
                "create",
                "token",
                "gonka-operator",
                "--audience=fleet-slot",
                "--duration=2h",
            ])
            .await
            .context("no token for operator doors")?;
        let deployments: Api<ModelDeployment> = Api::namespaced(client.clone(), "gonka");
        let watcher = Watcher {
            client: client.clone(),
            token: format!("Bearer {}", token.trim()).parse()?,
            deployment_uid: deployments.get("tiny").await?.uid().unwrap_or_default(),
            seen: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&watcher.seen);
        tasks.spawn(watcher.run());
        Ok(Self { seen, _tasks: tasks })
    }

    /// Fails when something was seen since the last call that must not be.
    pub fn judge(&self) -> Result<()> {
        let mut seen = lock(&self.seen);
        let wrong = wrongs(&seen);
        ensure!(!seen.is_empty(), "no slot pod was ever seen");
        seen.clear();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

fn lock(seen: &Mutex<Vec<Sighting>>) -> MutexGuard<'_, Vec<Sighting>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    /// Follows every pod there is, under the address it has; without an API server those known before.
    async fn run(self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "gonka");
        let with_role =
            ListParams::default().labels(&format!("{}={}", crds::labels::ROLE, crds::labels::ROLE_SLOT_POD));
        let mut followed: BTreeMap<(String, String), tokio::task::AbortHandle> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            if let Ok(Ok(list)) = tokio::time::timeout(GLANCE, pods.list(&with_role)).await {
                let now: BTreeMap<(String, String), String> = list
                    .into_iter()
                    .filter_map(|pod| {
                        let address = pod.status.as_ref()?.pod_ip.clone()?;
                        Some(((pod.name_any(), address), pod.uid()?))
                    })
                    .collect();
                followed.retain(|key, task| {
                    let keep = now.contains_key(key);
                    if !keep {
                        task.abort();
                        self.lost(&key.0);
                    }
                    keep
                });
                for ((pod, address), uid) in now {
                    followed
                        .entry((pod.clone(), address.clone()))
                        .or_insert_with(|| tasks.spawn(self.clone().follow(pod, address, uid)));
                }
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn follow(self, pod: String, address: String, uid: String) {
        loop {
            // Why a pod is out of sight is for others to judge.
            let _out_of_sight = self.hear(&pod, &address, &uid).await;
            self.lost(&pod);
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn hear(&self, pod: &str, address: &str, uid: &str) -> Result<()> {
        let channel = Endpoint::from_shared(format!("http://{address}:9410"))?
            .connect_timeout(GLANCE)
            .connect()
            .await?;
        let mut request = Request::new(SlotWatchRequest {
            key: Some(SlotKey {
                deployment_uid: self.deployment_uid.clone(),
                pod_uid: uid.to_owned(),
                slot: -1,
                generation: 0,
            }),
        });
        request.metadata_mut().insert("authorization", self.token.clone());
        let mut reports = SlotClient::new(channel).watch(request).await?.into_inner();
        while let Some(report) = tokio::time::timeout(SILENCE, reports.message()).await?? {
            lock(&self.seen).push(sighting(pod, &report));
        }
        Ok(())
    }

    fn lost(&self, pod: &str) {
        lock(&self.seen).push(Sighting {
            at: Instant::now(),
            pod: pod.to_owned(),
            holds: None,
            computes: None,
        });
    }
}

fn sighting(pod: &str, report: &SlotReport) -> Sighting {
    let key = report.key.clone().unwrap_or_default();
    let round = report
        .round
        .as_ref()
        .filter(|round| round.state() == RoundState::Generating);
    Sighting {
        at: Instant::now(),
        pod: pod.to_owned(),
        holds: (report.chain_door() == Door::Open).then_some((key.slot, key.generation)),
        computes: round.map(|round| round.height),
    }
}

/// Everything that must not be seen, in words.
fn wrongs(seen: &[Sighting]) -> Vec<String> {
    let mut now: BTreeMap<&str, &Sighting> = BTreeMap::new();
    let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
    let mut both_since: BTreeMap<i32, Instant> = BTreeMap::new();
    let mut wrong = Vec::new();
    for sighting in seen {
        now.insert(&sighting.pod, sighting);
        let Some((slot, generation)) = sighting.holds else {
            continue;
        };
        let highest = newest.entry(slot).or_insert(generation);
        *highest = generation.max(*highest);
        let holders: Vec<&&Sighting> = now
            .values()
            .filter(|other| other.holds.is_some_and(|(held, _)| held == slot))
            .collect();
        let same = |other: &&&Sighting| other.pod != sighting.pod && other.holds == sighting.holds;
        if let Some(other) = holders.iter().copied().find(same) {
            wrong.push(format!(
                "{} and {} both hold slot {slot} with generation {generation}",
                sighting.pod, other.pod
            ));
        }
        let computing = holders.iter().filter(|holder| holder.computes.is_some()).count();
        if computing < 2 {
            both_since.remove(&slot);
            continue;
        }
        let since = *both_since.entry(slot).or_insert(sighting.at);
        if sighting.at - since > STEPS_DOWN {
            wrong.push(format!(
                "two generations of slot {slot} computed for {:?}; the newest is {highest}",
                sighting.at - since
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sees(start: Instant, seconds: u64, pod: &str, holds: Option<(i32, i64)>) -> Sighting {
        Sighting {
            at: start + Duration::from_secs(seconds),
            pod: pod.to_owned(),
            holds,
            computes: holds.map(|_| 100),
        }
    }

    #[test]
    fn a_slot_that_changes_hands_is_fine() {
        let start = Instant::now();
        let story = [
            sees(start, 0, "a", Some((0, 1))),
            sees(start, 1, "b", None),
            sees(start, 2, "a", None),
            sees(start, 2, "b", Some((0, 2))),
            sees(start, 60, "b", Some((0, 2))),
        ];
        assert_eq!(wrongs(&story), Vec::<String>::new());
    }

    #[test]
    fn one_generation_in_two_pods_is_seen_at_once() {
        let start = Instant::now();
        let story = [sees(start, 0, "a", Some((0, 2))), sees(start, 0, "b", Some((0, 2)))];
        assert_eq!(wrongs(&story).len(), 1);
    }

    #[test]
    fn a_pod_that_comes_back_has_a_few_seconds_to_step_down() {
        let start = Instant::now();
        let mut story = vec![
            sees(start, 0, "b", Some((0, 2))),
            sees(start, 1, "a", Some((0, 1))),
            sees(start, 6, "b", Some((0, 2))),
            sees(start, 7, "a", None),
            sees(start, 30, "b", Some((0, 2))),
        ];
        assert_eq!(wrongs(&story), Vec::<String>::new());
        story[3] = sees(start, 12, "a", Some((0, 1)));
        assert_eq!(
            wrongs(&story).len(),
            2,
            "and it is still there at the end: {:?}",
            wrongs(&story)
        );
    }
}
