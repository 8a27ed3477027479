//! What is written outside the cluster: nothing while a host is observed; its nodes, in order and again, while it is managed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::conditions::{ConditionStatus, ConditionType, Reason};
use e2e::fleet::conditions::holds;
use e2e::fleet::{metrics, objects, until};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::world::{SLOTS, World, conditions_of_host};

/// Reads of DAPI that are waited for, so that a write had its chance.
const READS: usize = 3;

/// Slots are made and rehearsed, DAPI is read again and again, and not one request could have changed anything.
pub async fn nothing_is_written_while_observing(world: &World<'_>) -> Result<()> {
    until("rehearsed slots and a spare", Duration::from_secs(120), async || {
        rehearsed(world).await
    })
    .await?;
    world.say("slots and a spare rehearsed, nothing managed");
    let told = until("Observing", Duration::from_secs(30), async || {
        world
            .host_says(
                ConditionType::NetworkNodeSynced,
                ConditionStatus::False,
                Reason::Observing,
            )
            .await
    })
    .await?;
    ensure!(
        told.contains("POST"),
        "NetworkNodeSynced does not say what Manage would write: {told}"
    );
    world
        .host_says(
            ConditionType::NodesRegistered,
            ConditionStatus::False,
            Reason::Observing,
        )
        .await?
        .map_err(anyhow::Error::msg)?;
    let before = world.reads_of_nodes().await?;
    until("more reads of DAPI's nodes", Duration::from_secs(60), async || {
        let reads = world.reads_of_nodes().await?;
        Ok(if reads >= before + READS {
            Ok(())
        } else {
            Err(format!("{} so far", reads - before))
        })
    })
    .await?;
    let writes = world.writes_to_dapi().await?;
    ensure!(writes.is_empty(), "an observed DAPI was written to: {writes:#?}");
    let counted = metrics::operator(&world.client)
        .await?
        .sum("gonka_operator_external_writes_total");
    ensure!(counted < 1.0, "the operator counts {counted} writes outside");
    ensure!(node_ids(&world.control.state().await?).is_empty(), "DAPI has nodes");
    world.say("observed: DAPI was read and never written to");
    Ok(())
}

async fn rehearsed(world: &World<'_>) -> Result<std::result::Result<(), String>> {
    let status = world.deployment().await?.status.context("no status yet")?;
    let slots = status.slots.iter().filter(|slot| slot.rehearsed_time.is_some()).count();
    Ok(if slots == SLOTS && status.ready_spares >= 1 {
        Ok(())
    } else {
        Err(format!("{slots} slots and {} spares", status.ready_spares))
    })
}

/// From Observe to Manage: one node after the other, so that numbers follow slots.
pub async fn managed_nodes_are_registered_in_slot_order(world: &World<'_>) -> Result<()> {
    let manage = json!({"spec": {"managementPolicy": "Manage"}});
    objects::patch(world.cluster, "gonkahost/ours", &manage).await?;
    until("every slot registered", Duration::from_secs(45), async || {
        Ok(holds(
            conditions_of_host(&world.host().await?),
            ConditionType::NodesRegistered,
        ))
    })
    .await?;
    in_slot_order(world).await?;
    let posts: Vec<String> = world
        .writes_to_dapi()
        .await?
        .into_iter()
        .filter(|write| write.contains("POST /admin/v1/nodes"))
        .collect();
    ensure!(
        posts.len() == SLOTS,
        "{SLOTS} nodes took {} POSTs: {posts:#?}",
        posts.len()
    );
    world.say("managed: nodes registered in slot order");
    Ok(())
}

/// DAPI's numbers and the registrations of the host's status both follow slots.
async fn in_slot_order(world: &World<'_>) -> Result<()> {
    let host = world.host().await?.status.context("the host has no status")?;
    let install = host.install_id.context("the host's status has no installID")?;
    let wanted: Vec<String> = (0..SLOTS).map(|slot| format!("{install}-tiny-{slot}")).collect();
    let found = node_ids(&world.control.state().await?);
    ensure!(
        found == wanted,
        "by number DAPI has {found:?}, by slot we have {wanted:?}"
    );
    for (slot, id) in wanted.iter().enumerate() {
        let registered = host
            .registrations
            .iter()
            .find(|entry| entry.node_id == *id)
            .with_context(|| format!("status.registrations lacks {id}"))?;
        let number = i32::try_from(slot + 1).context("more slots than numbers")?;
        ensure!(
            registered.node_num == Some(number),
            "{id} has number {:?}, not {number}",
            registered.node_num
        );
        ensure!(registered.drift.is_empty(), "{id} drifts: {:?}", registered.drift);
    }
    Ok(())
}

/// Ids of DAPI's nodes by their numbers.
fn node_ids(state: &Value) -> Vec<String> {
    let mut nodes: Vec<(i64, String)> = state["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| {
            (
                node["node_num"].as_i64().unwrap_or_default(),
                node["id"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, id)| id).collect()
}

/// DAPI's disk is gone and its process starts anew: it knows nobody, until the operator looks again.
pub async fn nodes_come_back_after_the_database_was_lost(world: &World<'_>) -> Result<()> {
    let dapi = |verb: &str| json!({"verb": verb, "target": "dapi"});
    world.control.fault(&dapi("loseDatabase")).await?;
    world.control.fault(&dapi("restart")).await?;
    ensure!(
        node_ids(&world.control.state().await?).is_empty(),
        "the database was not lost"
    );
    let lost = tokio::time::Instant::now();
    until(
        "nodes after the database was lost",
        Duration::from_secs(60),
        async || {
            let found = node_ids(&world.control.state().await?);
            Ok(if found.len() == SLOTS {
                Ok(())
            } else {
                Err(format!("DAPI has {found:?}"))
            })
        },
    )
    .await?;
    let seconds = lost.elapsed().as_secs_f64();
    until("the host in order again", Duration::from_secs(30), async || {
        let host = world.host().await?;
        let conditions = conditions_of_host(&host);
        Ok(holds(conditions, ConditionType::NodesRegistered)
            .and_then(|_| holds(conditions, ConditionType::NetworkNodeSynced)))
    })
    .await?;
    in_slot_order(world).await?;
    let events: Api<Event> = Api::namespaced(world.client.clone(), "gonka");
    let repaired = events
        .list(&ListParams::default())
        .await?
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("DriftRepaired"))
        .filter_map(|event| event.note)
        .any(|note| note.contains("is gone"));
    ensure!(repaired, "no Event DriftRepaired says that nodes were gone");
    world.say(&format!(
        "DAPI lost its database: nodes registered again after {seconds:.1} s"
    ));
    Ok(())
}

/// Everything that has to be proven before an exam is.
pub async fn the_host_is_sprint_ready(world: &World<'_>) -> Result<()> {
    until("SprintReady", Duration::from_secs(75), async || {
        Ok(holds(
            conditions_of_host(&world.host().await?),
            ConditionType::SprintReady,
        ))
    })
    .await?;
    let next = world.sprint(1).await?;
    let height = world.control.height().await?;
    ensure!(
        height < next,
        "height {height}: the first Sprint began before slots were ready"
    );
    Ok(())
}
