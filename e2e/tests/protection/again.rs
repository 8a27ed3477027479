//! A deployment that is deleted and made again, and one that is taken away for good.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::labels::{BREAK_GLASS, PREVIOUS_VALUES, PROTECTED};
use e2e::fleet::{objects, until};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::world::{SKIP, SKIPPED_BEFORE, World};

/// Somebody breaks the glass, deletes the wrong deployment, and makes it again: its pods run on and hold their slots.
pub async fn a_deployment_made_again_keeps_its_pods(world: &World<'_>) -> Result<()> {
    let (lives, holders) = (world.lives().await?, world.holders().await?);
    let spec = serde_json::to_value(world.deployment().await?.spec)?;
    let again = json!({"apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"name": "tiny", "namespace": "gonka"}, "spec": spec});
    let glass = format!("{BREAK_GLASS}=a mistake");
    let kubectl = async |args: &[&str]| world.cluster.kubectl(&[&["-n", "gonka"], args].concat()).await;
    kubectl(&["annotate", "modeldeployment", "tiny", &glass]).await?;
    kubectl(&["delete", "modeldeployment", "tiny"]).await?;
    objects::apply(world.cluster, &[again]).await?;
    let uid = world.deployment().await?.uid().context("no UID")?;
    until("its pods to be its own", Duration::from_secs(60), async || {
        let pods = world.slot_pods().await?;
        let strange = pods
            .iter()
            .find(|pod| pod.owner_references().iter().any(|owner| owner.uid != uid));
        Ok(strange.map_or(Ok(()), |pod| Err(format!("{} has another owner", pod.name_any()))))
    })
    .await?;
    world.is_ready().await?;
    let now = world.holders().await?;
    ensure!(now == holders, "slots were held by {holders:?} and are held by {now:?}");
    world.lived_on(&lives).await?;
    world.say("a deployment was deleted, made again, and has its pods");
    Ok(())
}

/// As `docs/install.md` says it: no slot goes while an exam may still ask for it, nobody breaks a glass, machines are as they were.
pub async fn a_fleet_is_taken_away(world: &World<'_>) -> Result<()> {
    let sprint = world.next_sprint().await?;
    until("the Sprint", Duration::from_secs(120), async || {
        let height = world.control.state().await?["height"].as_i64().context("no height")?;
        Ok(if height > sprint {
            Ok(())
        } else {
            Err(format!("height {height}"))
        })
    })
    .await?;
    let nothing = r#"{"spec":{"slots":0,"spares":0}}"#;
    let patch = ["patch", "modeldeployment", "tiny", "--type=merge", "-p", nothing];
    world.cluster.kubectl(&[&["-n", "gonka"][..], &patch].concat()).await?;
    until("the plan to say so", Duration::from_secs(10), async || {
        let plan = world.gonka(&["plan"]).await?;
        Ok(if plan.contains("fewer slots") && plan.contains("are kept") {
            Ok(())
        } else {
            Err(plan)
        })
    })
    .await?;
    until("the last pod to go", Duration::from_secs(150), async || {
        let pods = world.slot_pods().await?;
        Ok(if pods.is_empty() {
            Ok(())
        } else {
            Err(format!("{} are there", pods.len()))
        })
    })
    .await?;
    let heights = world.control.state().await?;
    world.say(&format!("no slot is left at block {}", heights["height"]));
    world.nothing_was_lost(&[sprint]).await?;
    machines_are_as_they_were(world).await?;
    for object in [
        &["-n", "gonka", "delete", "modeldeployment", "tiny"][..],
        &["-n", "gonka", "delete", "gonkahost", "ours"],
        &["delete", "sprintschedule", "devnet"],
    ] {
        world.cluster.kubectl(object).await?;
    }
    let uninstall = [
        "uninstall",
        "gonka-fleet",
        "--namespace=gonka-system",
        "--wait",
        "--timeout=2m",
    ];
    world.cluster.helm(&uninstall).await?;
    world
        .cluster
        .kubectl(&["-n", "gonka-system", "delete", "daemonset", "gonka-agent"])
        .await?;
    // The API server goes on with policies for a moment after they are deleted.
    until("the addresses of slots to go", Duration::from_secs(60), async || {
        let deleted = world
            .cluster
            .kubectl(&["-n", "gonka", "delete", "services", "--all"])
            .await;
        Ok(deleted.map(drop).map_err(|error| format!("{error:#}")))
    })
    .await?;
    world.say("the fleet is taken away");
    Ok(())
}

async fn machines_are_as_they_were(world: &World<'_>) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    until("machines to be let go of", Duration::from_secs(60), async || {
        let held = nodes
            .list(&ListParams::default())
            .await?
            .items
            .into_iter()
            .find(|node| {
                node.annotations().contains_key(PREVIOUS_VALUES)
                    || node.labels().contains_key(PROTECTED)
                    // A machine whose Node was made anew has no value of before.
                || node.labels().get(SKIP).is_some_and(|value| value != SKIPPED_BEFORE)
            });
        Ok(held.map_or(Ok(()), |node| Err(format!("{} is held", node.name_any()))))
    })
    .await
}
