//! Without the operator, and without its chart.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::fleet::{install, until};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::Api;

use crate::actors;
use crate::world::World;

/// Policies, budgets and tolerations need nobody.
pub async fn a_dead_operator_leaves_everything_protected(world: &World<'_>) -> Result<()> {
    let scale = |replicas: &'static str| vec!["-n", "gonka-system", "scale", "deployment", "gonka-operator", replicas];
    world.cluster.kubectl(&scale("--replicas=0")).await?;
    let operators = "fleet.gonka.ai/role=operator";
    until("the operators to be gone", Duration::from_secs(60), async || {
        let printed = world
            .cluster
            .kubectl(&["-n", "gonka-system", "get", "pods", "-l", operators, "-o", "name"])
            .await?;
        Ok(if printed.trim().is_empty() {
            Ok(())
        } else {
            Err(printed)
        })
    })
    .await?;
    actors::deletions_are_denied(world).await?;
    world.cluster.kubectl(&scale("--replicas=2")).await?;
    world.say("nobody led, and everything stayed protected");
    Ok(())
}

/// `helm uninstall` takes the policies away, as its reader asked; slots run on, no eviction is allowed, and an installation
/// that comes back takes them over as they are.
pub async fn an_uninstalled_chart_leaves_slots_running(world: &World<'_>) -> Result<()> {
    let before = world.lives().await?;
    world
        .cluster
        .helm(&[
            "uninstall",
            "gonka-fleet",
            "--namespace=gonka-system",
            "--wait",
            "--timeout=2m",
        ])
        .await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), "gonka");
    budgets.get("tiny").await.context("the budget went with the chart")?;
    let pod = world
        .slot_pods()
        .await?
        .first()
        .map(ResourceExt::name_any)
        .context("no slot pod")?;
    world.eviction_is_refused(&pod).await?;
    world.lived_on(&before).await?;
    world.say("the chart is gone, slots run on");
    install::operator_chart(world.cluster).await?;
    world.is_ready().await?;
    world.say("installed again over slots that ran on");
    Ok(())
}
