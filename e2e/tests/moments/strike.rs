//! How each target is struck, and brought back.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::harness::cluster::Target as Part;
use e2e::harness::{How, Machine};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::grid::Strike;
use crate::target::Target;
use crate::world::{Holder, World};

/// Blocks by which a height goes back.
const BACK: i64 = 5;
/// How far clocks differ, milliseconds.
const OFF_MILLIS: i64 = 5_000;
/// Blocks made at once.
const BURST: u32 = 3;

/// The slot holders as they were before the first strike of a Sprint.
pub struct Before {
    pub holders: Vec<Holder>,
}

impl Before {
    fn of(&self, slot: i32) -> Result<&Holder> {
        self.holders
            .iter()
            .find(|holder| holder.slot == slot)
            .with_context(|| format!("nobody holds slot {slot}"))
    }
}

/// Strikes, waits for as long as the target is to be away, and brings it back.
pub async fn strike(world: &World<'_>, strike: &Strike, before: &Before) -> Result<()> {
    let holder = before.of(strike.slot)?;
    let machine = Machine::Node(holder.node);
    match strike.target {
        Target::Serve => kill_in_pod(&holder.pod, &["slot", "serve"])?,
        Target::Engine => kill_in_pod(&holder.pod, &["slot", "engine"])?,
        Target::Hold => kill_in_pod(&holder.pod, &["slot", "hold"])?,
        Target::Operator => kill_in_pod(&leader(world).await?, &["operator"])?,
        Target::NodeAgent => kill_in_pod(&agent(world, holder.node).await?, &["node-agent", "run"])?,
        Target::Dapi => fault(world, strike, json!({"verb": "stop", "target": "dapi"})).await?,
        Target::RpcEndpoint => fault(world, strike, json!({"verb": "stop", "target": "endpoint/2"})).await?,
        Target::ForkedEndpoint => fault(world, strike, json!({"verb": "fork", "target": "endpoint/3"})).await?,
        Target::HeightBack => {
            let height = world.control.height().await? - BACK;
            fault(
                world,
                strike,
                json!({"verb": "haltAt", "target": "endpoint/1", "height": height}),
            )
            .await?;
        }
        Target::Clocks => {
            for endpoint in ["endpoint/1", "endpoint/2", "endpoint/3"] {
                fault(
                    world,
                    strike,
                    json!({"verb": "skew", "target": endpoint, "ms": OFF_MILLIS}),
                )
                .await?;
            }
        }
        Target::BlockStall => fault(world, strike, json!({"verb": "stop", "target": "chain"})).await?,
        Target::BlockBurst => {
            world
                .control
                .fault(&json!({"verb": "burst", "target": "chain", "blocks": BURST}))
                .await?;
        }
        Target::CallbacksRefused | Target::CallbacksWrong => {
            let status = if strike.target == Target::CallbacksRefused {
                503
            } else {
                400
            };
            fault(
                world,
                strike,
                json!({"verb": "answer", "target": "dapi/ml", "status": status}),
            )
            .await?;
        }
        Target::Database => {
            let command = json!({"verb": "loseDatabase", "target": "dapi"});
            world.control.fault(&command).await?;
        }
        Target::CallbacksHang => fault(world, strike, json!({"verb": "stall", "target": "dapi/ml"})).await?,
        Target::ApiServer => stop(world, strike, "kube-apiserver", None).await?,
        Target::Etcd => stop(world, strike, "etcd", None).await?,
        Target::KubeProxy => stop(world, strike, "kube-proxy", Some(machine)).await?,
        Target::Kubelet => stop(world, strike, "kubelet", Some(machine)).await?,
        Target::Containerd => stop(world, strike, "containerd", Some(machine)).await?,
        Target::CoreDns => {
            world.cluster.stop_component(&Part::CoreDns, None, How::Freeze).await?;
            away(strike).await;
            world.cluster.resume_component(&Part::CoreDns, None).await?;
        }
        Target::Node => world.cluster.cut_node(holder.node).await?,
        Target::IsolatedNode => {
            world.cluster.isolate_node(holder.node).await?;
            away(strike).await;
            world.cluster.rejoin_node(holder.node).await?;
        }
    }
    Ok(())
}

/// A machine that a strike took away is there again.
pub async fn heal(world: &World<'_>, strike: &Strike, before: &Before) -> Result<()> {
    let node = before.of(strike.slot)?.node;
    if strike.target == Target::Node {
        world.cluster.start_node(node).await?;
    }
    world.cluster.wait_node(node, true).await
}

async fn away(strike: &Strike) {
    if let Some(millis) = strike.target.away_millis() {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

async fn stop(world: &World<'_>, strike: &Strike, component: &str, machine: Option<Machine>) -> Result<()> {
    let part = Part::Component(component.into());
    world.cluster.stop_component(&part, machine, How::Kill).await?;
    away(strike).await;
    world.cluster.resume_component(&part, machine).await
}

/// The network brings it back by itself.
async fn fault(world: &World<'_>, strike: &Strike, mut command: Value) -> Result<()> {
    let seconds = strike.target.away_millis().unwrap_or_default() / 1000;
    command["for"] = format!("{seconds}s").into();
    world.control.fault(&command).await
}

async fn leader(world: &World<'_>) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "gonka-system");
    let all = leases.list(&kube::api::ListParams::default()).await?;
    all.items
        .into_iter()
        .filter_map(|lease| lease.spec?.holder_identity)
        .find(|holder| holder.contains("operator"))
        .context("no operator leads")
}

/// Where the operator's leader runs.
pub async fn leaders_machine(world: &World<'_>) -> Result<Option<u8>> {
    let leader = leader(world).await?;
    let holders = world.pods("gonka-system", "fleet.gonka.ai/role=operator").await?;
    let pod = holders
        .into_iter()
        .find(|pod| pod.metadata.name.as_deref() == Some(leader.as_str()));
    let machine = pod.and_then(|pod| pod.spec?.node_name);
    Ok(machine.and_then(|name| name.trim_start_matches('n').parse().ok()))
}

async fn agent(world: &World<'_>, node: u8) -> Result<String> {
    let machine = Machine::Node(node).to_string();
    world
        .pods("gonka-system", "fleet.gonka.ai/role=agent")
        .await?
        .into_iter()
        .find(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(machine.as_str()))
        .and_then(|pod| pod.metadata.name)
        .with_context(|| format!("no agent on {machine}"))
}

/// Kills every process of a pod whose arguments begin like this; the program is known by its last path segment.
fn kill_in_pod(pod: &str, arguments: &[&str]) -> Result<()> {
    let host = format!("HOSTNAME={pod}");
    let mut killed = 0;
    for entry in fs::read_dir("/proc").context("/proc cannot be read")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let ours = read("environ").split('\0').any(|variable| variable == host);
        if ours && is_called(&read("cmdline"), arguments) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("process {pid} of {pod}"))?;
            killed += 1;
        }
    }
    ensure!(killed > 0, "{pod} has no process {arguments:?}");
    Ok(())
}

fn is_called(cmdline: &str, arguments: &[&str]) -> bool {
    let mut given = cmdline.split('\0');
    let program = given.next().and_then(|path| path.rsplit('/').next());
    program == arguments.first().copied() && arguments[1..].iter().all(|argument| given.next() == Some(argument))
}
