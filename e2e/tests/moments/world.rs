//! The cluster, the charts, the network and the objects of the runner.

use std::time::Duration;

use anyhow::{Context as _, Result};
use crds::conditions::ConditionType;
use crds::{GonkaHost, ModelDeployment};
use e2e::args::Environment;
use e2e::fleet::conditions::holds;
use e2e::fleet::control::Control;
use e2e::fleet::product::{self, Programs};
use e2e::fleet::yardstick::Yardstick;
use e2e::fleet::{evidence, objects, repository, until};
use e2e::harness::{Cluster, ClusterId, Options};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::json;
use tokio::time::Instant;

/// Id of the cluster: the demo's may be up at the same time.
const CLUSTER: u8 = 4;
/// Slots of the deployment; a spare comes on top.
pub const SLOTS: i32 = 3;
/// Cap of each slot: below what a busy machine of two cores computes.
const NONCES_PER_SECOND: u64 = 10;
/// Blocks before a Sprint in which nothing new is prepared.
const AHEAD: i64 = 8;

/// What the runner works with.
pub struct World<'a> {
    pub cluster: &'a Cluster,
    pub client: Client,
    pub control: Control,
    /// What the machine can compute.
    pub yardstick: Yardstick,
    started: Instant,
}

/// Who holds a slot; slot −1 is the spare.
#[derive(Clone, Debug)]
pub struct Holder {
    pub slot: i32,
    pub pod: String,
    pub node: u8,
}

/// Brings everything up, hands it to `body`, shows what there is when it fails, and takes everything away.
pub async fn with_world<F>(environment: &Environment, body: F) -> Result<()>
where
    F: AsyncFnOnce(&World<'_>) -> Result<()>,
{
    let programs = Programs::find(environment, "e2e-moments")?;
    let started = Instant::now();
    let options = Options::new(ClusterId::try_from(CLUSTER)?);
    Cluster::with_cluster(environment, options, async |cluster| {
        let mut control = None;
        let told = Box::pin(async {
            let scenario = repository().join("e2e/network-simulator/scenarios/moments.yaml");
            let network = product::install(cluster, &programs, &scenario, |_| ()).await?;
            control = Some(network.control.clone());
            let world = World {
                cluster,
                client: cluster.client().await?,
                control: network.control,
                yardstick: programs.yardstick(NONCES_PER_SECOND).await?,
                started,
            };
            fleet(cluster).await?;
            world.is_ready().await?;
            world
                .control
                .fault(&json!({"verb": "start", "target": "chain"}))
                .await?;
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
async fn fleet(cluster: &Cluster) -> Result<()> {
    let mut fleet = objects::example(cluster)?;
    let schedule = objects::of_kind(&mut fleet, "SprintSchedule")?;
    schedule["spec"]["margins"] =
        json!({"coldLoadSeconds": 10, "readyBySeconds": 6, "drainSeconds": 3, "firstNonceSeconds": 3});
    let deployment = objects::of_kind(&mut fleet, "ModelDeployment")?;
    deployment["spec"]["slots"] = SLOTS.into();
    deployment["spec"]["engine"]["native"]["maxNoncesPerSecond"] = NONCES_PER_SECOND.into();
    objects::apply(cluster, &fleet).await
}

impl World<'_> {
    /// Tells a person how far the story is.
    pub fn say(&self, text: &str) {
        eprintln!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
    }

    /// Waits until every slot will pass.
    pub async fn is_ready(&self) -> Result<()> {
        let hosts: Api<GonkaHost> = Api::namespaced(self.client.clone(), "gonka");
        until(
            "GonkaHost ours to be SprintReady",
            Duration::from_secs(120),
            async || {
                let status = hosts.get("ours").await?.status.unwrap_or_default();
                Ok(holds(&status.conditions, ConditionType::SprintReady).map(drop))
            },
        )
        .await
    }

    /// Pods by label.
    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(pods.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// First block of the next Sprint that there is time to prepare for.
    pub async fn next_sprint(&self) -> Result<i64> {
        until("a Sprint ahead", Duration::from_secs(60), async || {
            let state = self.control.state().await?;
            let next = state["next_poc_start"].as_i64().context("no next Sprint")?;
            let height = state["height"].as_i64().context("no height")?;
            Ok(if next - height >= AHEAD {
                Ok(next)
            } else {
                Err(format!("height {height}, the next begins at {next}"))
            })
        })
        .await
    }

    /// Who holds which slot now.
    pub async fn holders(&self) -> Result<Vec<Holder>> {
        let deployments: Api<ModelDeployment> = Api::namespaced(self.client.clone(), "gonka");
        let status = deployments.get("tiny").await?.status.context("no status")?;
        let number = |machine: Option<&str>| {
            let machine = machine.context("a pod without a machine")?;
            machine
                .trim_start_matches('n')
                .parse()
                .with_context(|| machine.to_owned())
        };
        let slots = status.slots.iter().map(|slot| {
            Ok(Holder {
                slot: slot.index,
                pod: slot.pod_ref.as_ref().context("a slot without a pod")?.name.clone(),
                node: number(slot.node_name.as_deref())?,
            })
        });
        let spares = status.spares.iter().map(|spare| {
            Ok(Holder {
                slot: -1,
                pod: spare.pod_name.clone(),
                node: number(spare.node_name.as_deref())?,
            })
        });
        slots.chain(spares).collect()
    }

    /// Waits until `millis` (may be negative) after the block at `height`, by the pace of one block a second.
    pub async fn wait_for(&self, height: i64, millis: i64) -> Result<()> {
        // A block that just came tells the time best.
        let near = height - 6;
        self.control.wait_height(near, Duration::from_secs(240)).await?;
        let known = self.control.height().await?;
        let next = until("the next block", Duration::from_secs(10), async || {
            let now = self.control.height().await?;
            Ok(if now > known {
                Ok(now)
            } else {
                Err("none yet".to_owned())
            })
        })
        .await?;
        let left = (height - next) * 1000 + millis;
        tokio::time::sleep(Duration::from_millis(left.max(0).unsigned_abs())).await;
        Ok(())
    }
}
