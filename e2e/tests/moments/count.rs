//! What the network has on record of a Sprint, and what the operator wrote down.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::SprintRun;
use e2e::fleet::{ledger, until};
use kube::api::{Api, ListParams};
use tokio::time::Instant;

use crate::world::{SLOTS, World};

/// Nonces that DAPI took, by slot.
pub type Counts = BTreeMap<i32, u64>;

/// Waits until the generation of the Sprint that starts at `start` is over; what one engine could compute meanwhile.
pub async fn possible(world: &World<'_>, start: i64) -> Result<u64> {
    let end = ledger::generation_end(&world.control.ledger().await?, start)?;
    world.control.wait_height(start, Duration::from_secs(120)).await?;
    let begin = Instant::now();
    world.control.wait_height(end, Duration::from_secs(120)).await?;
    Ok(world.yardstick.computed(begin, Instant::now()))
}

/// Waits for the end of the Sprint that starts at `start`, and reads what came of it.
pub async fn counts(world: &World<'_>, start: i64) -> Result<Counts> {
    let (_, end) = ledger::validation(&world.control.ledger().await?, start)?;
    world.control.wait_height(end + 1, Duration::from_secs(60)).await?;
    let ledger = world.control.ledger().await?;
    // A DAPI without nodes knows of none that took part.
    let mut counts: Counts = (0..SLOTS).map(|slot| (slot, 0)).collect();
    for node in ledger::own_nodes(&ledger, start)? {
        let id = node["node_id"].as_str().unwrap_or_default();
        let slot = id
            .rsplit('-')
            .next()
            .and_then(|index| index.parse().ok())
            .with_context(|| format!("{id} is no slot of ours"))?;
        counts.insert(slot, node["accepted"].as_u64().context("no count")?);
    }
    ensure!(counts.len() == SLOTS as usize, "{counts:?}");
    Ok(counts)
}

/// The one record of a Sprint, once every slot has its count on chain.
pub async fn record(world: &World<'_>, start: i64) -> Result<SprintRun> {
    let runs: Api<SprintRun> = Api::namespaced(world.client.clone(), "gonka");
    until(
        &format!("one record of Sprint {start}"),
        Duration::from_secs(60),
        async || {
            let all = runs.list(&ListParams::default()).await?.items;
            let mut of_it = all.into_iter().filter(|run| run.spec.poc_start_height == start);
            let (first, second) = (of_it.next(), of_it.next());
            Ok(match (first, second) {
                (Some(run), None) if is_counted(&run) => Ok(run),
                (Some(run), None) => Err(format!("it is not complete: {:?}", run.status)),
                (Some(_), Some(_)) => Err("there are two".to_owned()),
                (None, _) => Err("there is none".to_owned()),
            })
        },
    )
    .await
}

fn is_counted(run: &SprintRun) -> bool {
    let slots = run.status.iter().flat_map(|status| &status.slots);
    slots.filter(|slot| slot.committed.is_some()).count() == SLOTS as usize
}
