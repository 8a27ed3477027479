//! The cluster, the charts, the network and the objects of these tests; taken away again however they end.

use std::time::Duration;

use anyhow::{Context as _, Result};
use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::{GonkaHost, ModelDeployment, SprintSchedule};
use e2e::args::Environment;
use e2e::fleet::conditions::says;
use e2e::fleet::control::Control;
use e2e::fleet::product::{self, Programs};
use e2e::fleet::yardstick::Yardstick;
use e2e::fleet::{evidence, ledger, objects, repository};
use e2e::harness::{Cluster, ClusterId, Options};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Id of the cluster: the demo's may be up at the same time.
const CLUSTER: u8 = 3;
/// Slots of the deployment; a spare comes on top.
pub const SLOTS: usize = 3;
/// Cap of each slot: well below what a busy machine of two cores computes, so that every Sprint delivers the same.
const NONCES_PER_SECOND: u32 = 5;
/// DAPI's port for callbacks of slots.
const CALLBACKS: u16 = 9100;

/// What the tests work with.
pub struct World<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// An administrator's client.
    pub client: Client,
    /// The network's control door.
    pub control: Control,
    /// What the machine can compute.
    pub yardstick: Yardstick,
    started: Instant,
}

/// Brings everything up, hands it to `body`, shows what there is when it fails, and takes everything away.
pub async fn with_world<F>(environment: &Environment, body: F) -> Result<()>
where
    F: AsyncFnOnce(&World<'_>) -> Result<()>,
{
    let programs = Programs::find(environment, "e2e-sprint")?;
    let started = Instant::now();
    let options = Options::new(ClusterId::try_from(CLUSTER)?);
    Cluster::with_cluster(environment, options, async |cluster| {
        let mut control = None;
        let told = Box::pin(async {
            let world = bring_up(cluster, &programs, started).await?;
            control = Some(world.control.clone());
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

async fn bring_up<'a>(cluster: &'a Cluster, programs: &Programs, started: Instant) -> Result<World<'a>> {
    let say = |text: &str| eprintln!("{:6.1} s  {text}", started.elapsed().as_secs_f64());
    say("cluster up");
    let scenario = repository().join("e2e/network-simulator/scenarios/sprint.yaml");
    let network = product::install(cluster, programs, &scenario, say).await?;
    objects::apply(cluster, &fleet(cluster)?).await?;
    Ok(World {
        cluster,
        client: cluster.client().await?,
        control: network.control,
        yardstick: programs.yardstick(NONCES_PER_SECOND.into()).await?,
        started,
    })
}

/// The example, observed at first, at the pace of these tests.
fn fleet(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut fleet = objects::example(cluster)?;
    let schedule = objects::of_kind(&mut fleet, "SprintSchedule")?;
    schedule["spec"]["margins"] =
        json!({"coldLoadSeconds": 20, "readyBySeconds": 10, "drainSeconds": 4, "firstNonceSeconds": 3});
    let host = objects::of_kind(&mut fleet, "GonkaHost")?;
    host["spec"]["managementPolicy"] = "Observe".into();
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

    /// The schedule of the network.
    pub async fn schedule(&self) -> Result<SprintSchedule> {
        Ok(Api::all(self.client.clone()).get("devnet").await?)
    }

    /// Our host.
    pub async fn host(&self) -> Result<GonkaHost> {
        Ok(Api::namespaced(self.client.clone(), "gonka").get("ours").await?)
    }

    /// Our deployment.
    pub async fn deployment(&self) -> Result<ModelDeployment> {
        Ok(Api::namespaced(self.client.clone(), "gonka").get("tiny").await?)
    }

    /// Pods with engines.
    pub async fn slot_pods(&self) -> Result<Vec<Pod>> {
        let role = format!("{}={}", crds::labels::ROLE, crds::labels::ROLE_SLOT_POD);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "gonka");
        Ok(pods.list(&ListParams::default().labels(&role)).await?.items)
    }

    /// Name, UID and restarts of each slot pod: what must not change while nothing is wrong.
    pub async fn slot_lives(&self) -> Result<Vec<(String, String, i32)>> {
        let life = |pod: &Pod| {
            let containers = pod.status.iter().flat_map(|status| &status.container_statuses);
            let restarts = containers.flatten().map(|container| container.restart_count).sum();
            (pod.name_any(), pod.uid().unwrap_or_default(), restarts)
        };
        let mut lives: Vec<_> = self.slot_pods().await?.iter().map(life).collect();
        lives.sort();
        Ok(lives)
    }

    /// Whether a condition of our host says this.
    pub async fn host_says(
        &self,
        kind: ConditionType,
        status: ConditionStatus,
        reason: Reason,
    ) -> Result<std::result::Result<String, String>> {
        let host = self.host().await?;
        Ok(says(conditions_of_host(&host), kind, status, reason))
    }

    /// Requests from outside to any of DAPI's ports that could change something, as `height port METHOD path`.
    pub async fn writes_to_dapi(&self) -> Result<Vec<String>> {
        let answer = self.control.requests().await?;
        let requests = answer["requests"].as_array().context("there is no list of requests")?;
        let text = |request: &Value| {
            format!(
                "height {} port {} {} {}",
                request["height"],
                request["port"],
                request["method"].as_str().unwrap_or_default(),
                request["path"].as_str().unwrap_or_default()
            )
        };
        let reads = |request: &&Value| matches!(request["method"].as_str(), Some("GET" | "HEAD"));
        Ok(requests.iter().filter(|request| !reads(request)).map(text).collect())
    }

    /// The same without what slots deliver at the door for callbacks.
    pub async fn writes_of_operator(&self) -> Result<Vec<String>> {
        let mut writes = self.writes_to_dapi().await?;
        writes.retain(|write| !write.contains(&format!(" port {CALLBACKS} ")));
        Ok(writes)
    }

    /// How often somebody read DAPI's list of nodes.
    pub async fn reads_of_nodes(&self) -> Result<usize> {
        let answer = self.control.requests().await?;
        let requests = answer["requests"].as_array().context("there is no list of requests")?;
        let of_nodes = |request: &&Value| request["method"] == "GET" && request["path"] == "/admin/v1/nodes";
        Ok(requests.iter().filter(of_nodes).count())
    }

    /// First height of the Sprint of an epoch, by the scenario's parameters.
    pub async fn sprint(&self, epoch: i64) -> Result<i64> {
        let ledger = self.control.ledger().await?;
        let parameter = |name: &str| ledger::parameter(&ledger, name);
        Ok(epoch * parameter("epoch_length")? - parameter("epoch_shift")?)
    }

    /// Everything that had to be ready before the first Sprint is: the chain need not wait.
    pub async fn let_the_chain_run(&self) -> Result<()> {
        let height = self.control.height().await?;
        self.say(&format!("ready for the first Sprint at height {height}"));
        self.control.fault(&json!({"verb": "start", "target": "chain"})).await
    }

    /// Waits for a height that the chain reaches by itself.
    pub async fn height(&self, height: i64) -> Result<i64> {
        let left = (height - self.control.height().await?).max(0).unsigned_abs();
        self.control
            .wait_height(height, Duration::from_secs(30 + left * 3 / 2))
            .await
    }
}

/// Conditions of a host, none while there is no status.
pub fn conditions_of_host(host: &GonkaHost) -> &[Condition] {
    host.status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}

/// Conditions of a deployment, none while there is no status.
pub fn conditions_of_deployment(deployment: &ModelDeployment) -> &[Condition] {
    deployment
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}

/// Conditions of a schedule, none while there is no status.
pub fn conditions_of_schedule(schedule: &SprintSchedule) -> &[Condition] {
    schedule
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}
