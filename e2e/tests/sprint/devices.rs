//! GPUs on real kubelets: offered, handed out, and seen when they break.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::GpuNode;
use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::gpu_node::GpuHealth;
use e2e::fleet::conditions::says;
use e2e::fleet::{gpus, metrics, repository, until};
use e2e::harness::Machine;
use e2e::harness::process::Cmd;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{SLOTS, World};

const RESOURCE: &str = "nvidia.com/gpu";
const GPUS: u64 = 8;
/// The machine whose GPUs break.
const MACHINE: &str = "n2";
const NUMBER: u8 = 2;
/// Its GPUs as every process there sees them.
const GPU_FILE: &str = "/var/lib/simulated-nvml/gpus.yaml";
/// How soon the stand-in for hardware hears of a change, its watch being made again after an outage.
const HEARD: Duration = Duration::from_secs(45);
/// How soon a broken GPU must be in status: the agent's second, one write, and a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// How soon it is trusted again once it answers: whoever looks for lost GPUs does so once a minute.
const HEALED: Duration = Duration::from_secs(100);

/// Every kubelet offers eight GPUs; what slot pods were given is what PodResources tells the agents.
pub async fn kubelets_offer_and_hand_out_gpus(world: &World<'_>) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    for node in nodes.list(&ListParams::default()).await? {
        let name = node.name_any();
        ensure!(
            allocatable(&node) == Some(GPUS),
            "{name} offers {:?} GPUs",
            allocatable(&node)
        );
    }
    until("GPUs held as pods ask for them", Duration::from_secs(120), async || {
        held_as_asked(world).await
    })
    .await?;
    world.say("kubelets offer 8 GPUs each; agents see those that slot pods hold");
    Ok(())
}

fn allocatable(node: &Node) -> Option<u64> {
    let all = node.status.as_ref()?.allocatable.as_ref()?;
    all.get(RESOURCE)?.0.parse().ok()
}

async fn held_as_asked(world: &World<'_>) -> Result<std::result::Result<(), String>> {
    let mut asked: BTreeMap<String, f64> = BTreeMap::new();
    let pods = world.slot_pods().await?;
    let running: Vec<&Pod> = pods.iter().filter(|pod| is_running(pod)).collect();
    for pod in &running {
        let spec = pod.spec.as_ref().context("a pod without a spec")?;
        let node = spec.node_name.clone().unwrap_or_default();
        let limits = spec
            .containers
            .iter()
            .filter_map(|container| container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE));
        *asked.entry(node).or_default() += limits.filter_map(|limit| limit.0.parse::<f64>().ok()).sum::<f64>();
    }
    if running.len() <= SLOTS {
        return Ok(Err(format!("{} slot pods run", running.len())));
    }
    let total: f64 = asked.values().sum();
    ensure!(
        (total - running.len() as f64).abs() < 0.5,
        "{} pods ask for {total} GPUs",
        running.len()
    );
    let told: BTreeMap<String, f64> = metrics::of_role(&world.client, crds::labels::ROLE_AGENT)
        .await?
        .into_iter()
        .map(|(node, page)| (node, page.sum("gonka_agent_gpu_allocated")))
        .filter(|(_, held)| *held > 0.0)
        .collect();
    Ok(if told == asked {
        Ok(())
    } else {
        Err(format!("pods hold {asked:?}, agents tell {told:?}"))
    })
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Waits until the stand-in for hardware has heard of the change.
async fn on_the_machine(world: &World<'_>, broken: bool) -> Result<()> {
    until("the GPUs' file on the machine", HEARD, async || {
        let read = Cmd::new("cat").args([GPU_FILE]);
        let text = world.cluster.inside(Machine::Node(NUMBER), read)?.text().await?;
        Ok(if text.contains("state: lost") == broken {
            Ok(())
        } else {
            Err("it is the old one".to_owned())
        })
    })
    .await
}

/// A memory error and a GPU off the bus are findings within seconds, the kubelet offers one less, and both heal.
pub async fn a_broken_gpu_is_seen(world: &World<'_>) -> Result<()> {
    let healthy = std::fs::read_to_string(repository().join(gpus::SAMPLE)).context("the sample cannot be read")?;
    let broken = format!("{healthy}gpu 6:\n  ecc-volatile-dram-uncorrected: 2\ngpu 7:\n  state: lost\n");
    write_gpus(&world.client, &broken).await?;
    on_the_machine(world, true).await?;
    let begin = Instant::now();
    until("findings on GPU 6 and 7", SOON, async || {
        Ok(findings(&gpu_node(world).await?))
    })
    .await?;
    let seen = begin.elapsed().as_secs_f64();
    let nodes: Api<Node> = Api::all(world.client.clone());
    until("one GPU less on offer", SOON, async || {
        let offered = allocatable(&nodes.get(MACHINE).await?);
        Ok(if offered == Some(GPUS - 1) {
            Ok(())
        } else {
            Err(format!("{offered:?}"))
        })
    })
    .await?;
    write_gpus(&world.client, &healthy).await?;
    on_the_machine(world, false).await?;
    let repaired = Instant::now();
    until("all GPUs healthy again", HEALED, async || {
        let node = gpu_node(world).await?;
        let status = node.status.unwrap_or_default();
        let offered = allocatable(&nodes.get(MACHINE).await?);
        Ok(says(
            &status.conditions,
            ConditionType::GpusHealthy,
            ConditionStatus::True,
            Reason::AsExpected,
        )
        .and_then(|_| {
            if offered == Some(GPUS) {
                Ok(())
            } else {
                Err(format!("{offered:?} on offer"))
            }
        }))
    })
    .await?;
    world.say(&format!(
        "broken GPUs were in GpuNode's status after {seen:.1} s, healthy ones after {:.1} s",
        repaired.elapsed().as_secs_f64()
    ));
    Ok(())
}

async fn gpu_node(world: &World<'_>) -> Result<GpuNode> {
    Ok(Api::all(world.client.clone()).get(MACHINE).await?)
}

fn findings(node: &GpuNode) -> std::result::Result<(), String> {
    let status = node.status.clone().unwrap_or_default();
    says(
        &status.conditions,
        ConditionType::GpusHealthy,
        ConditionStatus::False,
        Reason::GpuFinding,
    )?;
    for (index, rule) in [(6, "EccUncorrectable"), (7, "FallenOffBus")] {
        let gpu = status
            .gpus
            .iter()
            .find(|gpu| gpu.index == index)
            .ok_or_else(|| format!("GPU {index} is not in status"))?;
        let found = gpu
            .findings
            .iter()
            .any(|finding| finding.rule == rule && finding.blocking);
        if !found || gpu.health != GpuHealth::Unhealthy {
            return Err(format!("GPU {index} is {} with {:?}", gpu.health, gpu.findings));
        }
    }
    Ok(())
}

async fn write_gpus(client: &Client, text: &str) -> Result<()> {
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let patch = Patch::Merge(json!({"data": {MACHINE: text}}));
    maps.patch("simulated-gpus", &PatchParams::default(), &patch)
        .await
        .map(drop)
        .context("the GPUs' ConfigMap was not changed")
}
