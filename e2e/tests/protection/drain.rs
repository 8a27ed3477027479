//! `kubectl drain` of a machine with a slot, begun in a Sprint.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::gpu_node::MaintenanceStage;
use crds::{GpuNode, labels};
use e2e::fleet::until;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::Api;

use crate::medik8s;
use crate::world::{SKIP, SKIPPED_BEFORE, World};

/// It waits, slots move once the Sprint is validated, it goes on, nothing was lost, and the machine comes back.
/// The Sprint, whose record comes later.
pub async fn a_drain_in_a_sprint_waits_and_goes_on(world: &World<'_>) -> Result<i64> {
    let (pod, machine) = world.holders().await?.remove(&0).context("slot 0")?;
    medik8s::looks_after(world, &machine).await?;
    is_held(world, &machine).await?;
    world.say(&format!("{machine} carries slot 0 and is held"));

    medik8s::is_paused(world, true).await?;

    let start = world.next_sprint().await?;
    world.control.wait_height(start + 3, Duration::from_secs(150)).await?;
    let args = [
        "drain",
        &machine,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--pod-selector=fleet.gonka.ai/role=slot-pod",
        "--timeout=240s",
    ];
    let (drained, watched) = tokio::join!(
        world.cluster.kubectl(&args),
        it_waits_until_the_sprint_is_validated(world, start, &pod, &machine)
    );
    watched?;
    let printed = drained.context("the drain did not come to its end")?;
    ensure!(printed.contains("drained"), "{printed}");
    world.say("drained");
    let slots = world.holders().await?;
    ensure!(
        slots.values().all(|(_, on)| *on != machine),
        "a slot is still on {machine}: {slots:?}"
    );
    let node: Node = Api::all(world.client.clone()).get(&machine).await?;
    ensure!(
        node.labels().get(SKIP).is_some_and(|value| value == SKIPPED_BEFORE),
        "the switch is not as it was: {:?}",
        node.labels().get(SKIP)
    );
    ensure!(
        !node.annotations().contains_key(labels::PREVIOUS_VALUES),
        "the journal is still there"
    );
    medik8s::is_paused(world, false).await?;
    world.cluster.kubectl(&["uncordon", &machine]).await?;
    until("the maintenance to be over", Duration::from_secs(60), async || {
        Ok(stage(world, &machine)
            .await?
            .map_or(Ok(()), |stage| Err(stage.to_string())))
    })
    .await?;
    world.say(&format!("{machine} is back"));
    world.is_ready().await?;
    Ok(start)
}

async fn stage(world: &World<'_>, machine: &str) -> Result<Option<MaintenanceStage>> {
    let node: GpuNode = Api::all(world.client.clone()).get(machine).await?;
    Ok(node
        .status
        .and_then(|status| status.maintenance)
        .map(|answer| answer.state))
}

/// The machine's switches are held, and what was there is written down.
async fn is_held(world: &World<'_>, machine: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    until(&format!("{machine} to be held"), Duration::from_secs(30), async || {
        let node = nodes.get(machine).await?;
        let label = |key: &str| node.labels().get(key).map(String::as_str);
        let held = label(SKIP) == Some("true") && label(labels::PROTECTED) == Some("true");
        Ok(if held && node.annotations().contains_key(labels::PREVIOUS_VALUES) {
            Ok(())
        } else {
            Err(format!("{:?}", node.labels()))
        })
    })
    .await
}

/// While the Sprint runs and is validated the machine waits, its pod holds the slot and is not touched.
async fn it_waits_until_the_sprint_is_validated(world: &World<'_>, start: i64, pod: &str, machine: &str) -> Result<()> {
    until("the answer to the cordon", Duration::from_secs(15), async || {
        Ok(match stage(world, machine).await? {
            Some(MaintenanceStage::Waiting) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    let plan: GpuNode = Api::all(world.client.clone()).get(machine).await?;
    let answer = plan.status.and_then(|status| status.maintenance).context("no answer")?;
    world.say(&format!(
        "waits: {}; expected {:?}",
        answer.message,
        answer.expected_release_time.map(|time| time.0.to_string())
    ));
    let (_, end) = e2e::fleet::ledger::validation(&world.control.ledger().await?, start)?;
    while world.control.height().await? < end - 2 {
        let holders = world.holders().await?;
        let holder = holders.get(&0).context("slot 0")?;
        ensure!(
            holder == &(pod.to_owned(), machine.to_owned()),
            "slot 0 moved in the Sprint: {holder:?}"
        );
        ensure!(
            stage(world, machine).await? == Some(MaintenanceStage::Waiting),
            "released in the Sprint"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.say("the Sprint is over, and nothing had moved");
    Ok(())
}
