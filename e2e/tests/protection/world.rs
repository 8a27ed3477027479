//! The cluster, the charts, the network and the objects of these tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use crds::conditions::ConditionType;
use crds::{GonkaHost, ModelDeployment, SprintRun, labels};
use e2e::args::Environment;
use e2e::fleet::conditions::holds;
use e2e::fleet::control::Control;
use e2e::fleet::product::{self, Programs};
use e2e::fleet::{evidence, objects, repository, until};
use e2e::harness::process::Cmd;
use e2e::harness::{Cluster, ClusterId, Options};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

/// Id of the cluster: others may be up at the same time.
const CLUSTER: u8 = 5;
/// Slots of the deployment; a spare comes on top.
pub const SLOTS: usize = 2;
/// Cap of each slot: below what a busy machine computes.
const NONCES_PER_SECOND: u64 = 5;

/// A switch of gpu-operator, and what its owner had set it to.
pub const SKIP: &str = "nvidia.com/gpu-driver-upgrade.skip";
pub const SKIPPED_BEFORE: &str = "false";

/// What the tests work with.
pub struct World<'a> {
    pub cluster: &'a Cluster,
    pub client: Client,
    pub control: Control,
    /// The program behind `kubectl gonka`.
    gonka: PathBuf,
    started: Instant,
}

/// Brings everything up, hands it to `body`, shows what there is when it fails, and takes everything away.
pub async fn with_world<F>(environment: &Environment, body: F) -> Result<()>
where
    F: AsyncFnOnce(&World<'_>) -> Result<()>,
{
    let programs = Programs::find(environment, "e2e-protection")?;
    let started = Instant::now();
    let options = Options::new(ClusterId::try_from(CLUSTER)?);
    Cluster::with_cluster(environment, options, async |cluster| {
        let mut control = None;
        let told = Box::pin(async {
            let scenario = repository().join("e2e/network-simulator/scenarios/protection.yaml");
            let network = product::install(cluster, &programs, &scenario, |_| ()).await?;
            control = Some(network.control.clone());
            let world = World {
                cluster,
                client: cluster.client().await?,
                control: network.control,
                gonka: environment.target().join("debug/kubectl-gonka"),
                started,
            };
            // Its owner had set it before any slot came.
            let skip = format!("{SKIP}={SKIPPED_BEFORE}");
            cluster.kubectl(&["label", "nodes", "--all", &skip]).await?;
            objects::apply(cluster, &fleet(cluster)?).await?;
            world.is_ready().await?;
            let start = json!({"verb": "start", "target": "chain"});
            world.control.fault(&start).await?;
            world.say("ready");
            body(&world).await
        })
        .await;
        if let Err(error) = &told {
            eprintln!("{:6.1} s  FAILED: {error:#}", started.elapsed().as_secs_f64());
            evidence::show(cluster, control.as_ref()).await;
        }
        told
    })
    .await
}

/// The example, at the pace of these tests.
fn fleet(cluster: &Cluster) -> Result<Vec<serde_json::Value>> {
    let mut fleet = objects::example(cluster)?;
    let schedule = objects::of_kind(&mut fleet, "SprintSchedule")?;
    schedule["spec"]["margins"] =
        json!({"coldLoadSeconds": 10, "readyBySeconds": 6, "drainSeconds": 3, "firstNonceSeconds": 3});
    let deployment = objects::of_kind(&mut fleet, "ModelDeployment")?;
    deployment["spec"]["slots"] = SLOTS.into();
    deployment["spec"]["engine"]["native"]["maxNoncesPerSecond"] = NONCES_PER_SECOND.into();
    Ok(fleet)
}

impl World<'_> {
    /// Tells a person how far the story is.
    pub fn say(&self, text: &str) {
        eprintln!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
    }

    /// Waits until every slot will pass.
    pub async fn is_ready(&self) -> Result<()> {
        let hosts: Api<GonkaHost> = Api::namespaced(self.client.clone(), "gonka");
        until("the host to be SprintReady", Duration::from_secs(150), async || {
            let status = hosts.get("ours").await?.status.unwrap_or_default();
            Ok(holds(&status.conditions, ConditionType::SprintReady).map(drop))
        })
        .await
    }

    /// Our deployment.
    pub async fn deployment(&self) -> Result<ModelDeployment> {
        Ok(Api::namespaced(self.client.clone(), "gonka").get("tiny").await?)
    }

    /// Pods with engines.
    pub async fn slot_pods(&self) -> Result<Vec<Pod>> {
        let role = format!("{}={}", labels::ROLE, labels::ROLE_SLOT_POD);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "gonka");
        Ok(pods.list(&ListParams::default().labels(&role)).await?.items)
    }

    /// Pod and machine of each slot.
    pub async fn holders(&self) -> Result<BTreeMap<i32, (String, String)>> {
        let status = self.deployment().await?.status.context("no status")?;
        status
            .slots
            .into_iter()
            .map(|slot| {
                let pod = slot
                    .pod_ref
                    .with_context(|| format!("nobody holds slot {}", slot.index))?;
                Ok((slot.index, (pod.name, slot.node_name.unwrap_or_default())))
            })
            .collect()
    }

    /// UID and restarts of each slot pod.
    pub async fn lives(&self) -> Result<BTreeMap<String, i32>> {
        let pods = self.slot_pods().await?;
        Ok(pods
            .iter()
            .map(|pod| {
                let containers = pod
                    .status
                    .iter()
                    .flat_map(|status| &status.container_statuses)
                    .flatten();
                (
                    pod.uid().unwrap_or_default(),
                    containers.map(|container| container.restart_count).sum(),
                )
            })
            .collect())
    }

    /// Every pod of `lives` is still there, has not started again, and is not being deleted.
    pub async fn lived_on(&self, lives: &BTreeMap<String, i32>) -> Result<()> {
        let now = self.lives().await?;
        let gone: Vec<_> = lives
            .iter()
            .filter(|(uid, restarts)| now.get(*uid) != Some(*restarts))
            .collect();
        ensure!(
            gone.is_empty(),
            "of {lives:?} these did not live on: {gone:?}; now {now:?}"
        );
        let leaving = self
            .slot_pods()
            .await?
            .iter()
            .any(|pod| pod.metadata.deletion_timestamp.is_some());
        ensure!(!leaving, "a slot pod is being deleted");
        Ok(())
    }

    /// kubectl is told no, with these words.
    pub async fn refused(&self, args: &[&str], words: &str) -> Result<()> {
        match self.cluster.kubectl(args).await {
            Ok(printed) => bail!("kubectl {} was carried out: {printed}", args.join(" ")),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains(words), "kubectl {} says {text}", args.join(" "));
                Ok(())
            }
        }
    }

    /// An eviction, as a drain asks for it, is refused by the budget. Through kubectl: the library's client tries again by itself.
    pub async fn eviction_is_refused(&self, pod: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/gonka/pods/{pod}/eviction");
        let body =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "gonka"}});
        let asked = self
            .cluster
            .kubectl_command()
            .args(["create", "--raw", &path, "-f", "-"])
            .stdin_bytes(body.to_string())
            .text()
            .await;
        match asked {
            Ok(printed) => bail!("{pod} was evicted: {printed}"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains("disruption budget"), "the eviction says {text}");
                Ok(())
            }
        }
    }

    /// What `kubectl gonka` prints.
    pub async fn gonka(&self, args: &[&str]) -> Result<String> {
        Cmd::new(self.gonka.display().to_string())
            .args(args)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .text()
            .await
    }

    /// Every slot's nonces of these Sprints are on chain, and the records blame nobody.
    pub async fn nothing_was_lost(&self, starts: &[i64]) -> Result<()> {
        for start in starts {
            self.it_counted(*start).await?;
        }
        Ok(())
    }

    async fn it_counted(&self, start: i64) -> Result<()> {
        let runs: Api<SprintRun> = Api::namespaced(self.client.clone(), "gonka");
        let run = until("the record of the Sprint", Duration::from_secs(150), async || {
            let all = runs.list(&ListParams::default()).await?.items;
            let sealed = all
                .into_iter()
                .find(|run| run.spec.poc_start_height == start)
                .filter(|run| run.status.as_ref().is_some_and(|status| status.sealed_time.is_some()));
            Ok(sealed.ok_or_else(|| "it is not sealed".to_owned()))
        })
        .await?;
        let status = run.status.context("a record without status")?;
        let totals = status.totals.clone().context("no totals")?;
        // A commit more or less at the very end is the network's own measure, and nobody's doing here.
        let counts = totals.committed > 0
            && totals.committed * 100 >= totals.accepted * 95
            && totals.measured * 100 >= totals.expected * 90;
        ensure!(
            status.takeovers.is_empty() && counts,
            "Sprint {start}: {totals:?}, {:?}",
            status.takeovers
        );
        self.say(&format!("Sprint {start}: {totals:?}"));
        Ok(())
    }

    /// Waits for an Event with this reason about this object.
    pub async fn event(&self, namespace: &str, reason: &str, of: &str) -> Result<()> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        until(
            &format!("an Event {reason} of {of}"),
            Duration::from_secs(40),
            async || {
                let all = events.list(&ListParams::default()).await?;
                let about =
                    |event: &&Event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(of);
                let seen: Vec<String> = all
                    .items
                    .iter()
                    .filter(about)
                    .filter_map(|event| event.reason.clone())
                    .collect();
                Ok(if seen.iter().any(|seen| seen == reason) {
                    Ok(())
                } else {
                    Err(format!("there are {seen:?}"))
                })
            },
        )
        .await
    }

    /// First block of the next Sprint that there is time to prepare for.
    pub async fn next_sprint(&self) -> Result<i64> {
        until("a Sprint ahead", Duration::from_secs(90), async || {
            let state = self.control.state().await?;
            let next = state["next_poc_start"].as_i64().context("no next Sprint")?;
            let height = state["height"].as_i64().context("no height")?;
            Ok(if next - height >= 3 {
                Ok(next)
            } else {
                Err(format!("height {height}, the next begins at {next}"))
            })
        })
        .await
    }
}
