//! Everything that may die dies during a Sprint, at a moment of the seed's choice, and the round still counts.
//!
//! `MOMENTS_SEED` replays a run, `MOMENTS_GRID=1` tries every target at every moment, `UPDATE_GENERATED=1` writes
//! `docs/reliability.md`.
//!
//! | module | what it is |
//! |---|---|
//! | [`grid`] | which strikes, pure |
//! | [`strike`] | how each is done |
//! | [`count`] | what the network and the operator have on record |
//! | [`table`] | `docs/reliability.md` |

mod count;
mod grid;
mod strike;
mod table;
mod world;

use anyhow::{Context as _, Result, ensure};
use e2e::args::Environment;

use count::Counts;
use grid::{Extent, Strike, Target};
use strike::Before;
use table::Row;
use world::{SLOTS, World};

/// Longest time from the decision to move a slot to its first request on the spare.
const TAKEOVER_MILLIS: i64 = 2_000;

#[expect(clippy::disallowed_methods, reason = "a test asks how it is to run")]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn whatever_dies_in_a_sprint_the_round_counts() -> Result<()> {
    let seed = match told("MOMENTS_SEED") {
        Some(seed) => seed.parse().context("MOMENTS_SEED is no number")?,
        None => 1,
    };
    let extent = if told("MOMENTS_GRID").is_some() {
        Extent::Grid
    } else {
        Extent::Once
    };
    eprintln!("seed {seed}: replay with MOMENTS_SEED={seed}");
    world::with_world(&Environment::read(), async |world| {
        Box::pin(story(world, seed, extent)).await
    })
    .await
}

async fn story(world: &World<'_>, seed: u64, extent: Extent) -> Result<()> {
    world.say("ready");
    let possible = count::counts(world, world.next_sprint().await?).await?;
    world.say(&format!("undisturbed: {possible:?}"));
    let mut rows = Vec::new();
    for strikes in grid::sprints(seed, extent, SLOTS) {
        rows.extend(sprint(world, strikes, &possible).await?);
    }
    table::publish(&table::render(&rows, seed, extent), told("UPDATE_GENERATED").is_some())?;
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| row.judge().err())
        .map(|error| error.to_string())
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// One Sprint with its strikes.
async fn sprint(world: &World<'_>, mut strikes: Vec<Strike>, possible: &Counts) -> Result<Vec<Row>> {
    world.is_ready().await?;
    let start = world.next_sprint().await?;
    let before = Before {
        holders: world.holders().await?,
    };
    let machines: Vec<(i32, u8)> = before.holders.iter().map(|holder| (holder.slot, holder.node)).collect();
    grid::place(&mut strikes, &machines);
    let strikes = &strikes;
    world.say(&format!("Sprint {start}: {strikes:?} on {:?}", before.holders));
    futures::future::try_join_all(strikes.iter().map(async |strike| {
        world.wait_for(start, strike.at_millis).await?;
        world.say(&format!("{} dies", strike.target));
        strike::strike(world, strike, &before)
            .await
            .with_context(|| strike.target.to_string())
    }))
    .await?;
    let counted = count::counts(world, start).await?;
    world.say(&format!("Sprint {start}: {counted:?}"));
    for strike in strikes.iter().filter(|strike| strike.target == Target::Node) {
        let node = before.holders.iter().find(|holder| holder.slot == strike.slot);
        let node = node.context("the node had a slot")?.node;
        world.cluster.start_node(node).await?;
        world.cluster.wait_node(node, true).await?;
    }
    let run = count::record(world, start).await?;
    let status = run.status.context("a record without status")?;
    let takeovers: Vec<String> = status
        .takeovers
        .iter()
        .map(|moved| {
            let millis = moved.duration_millis;
            ensure!(
                millis.is_some_and(|millis| millis <= TAKEOVER_MILLIS),
                "slot {} took {millis:?} ms to move",
                moved.slot
            );
            Ok(format!(
                "slot {} moved in {} ms",
                moved.slot,
                millis.unwrap_or_default()
            ))
        })
        .collect::<Result<_>>()?;
    let rows = strikes.iter().map(|strike| {
        let slots = grid::judged(strike, strikes, SLOTS);
        let sum = |counts: &Counts| slots.iter().filter_map(|slot| counts.get(slot)).sum();
        let mut record = vec![status.cause.to_string()];
        if strike.target == Target::Node {
            record.extend(takeovers.iter().cloned());
        }
        Row {
            sprint: start,
            target: strike.target,
            moment: strike.moment,
            at_millis: strike.at_millis,
            counted: sum(&counted),
            possible: sum(possible),
            slots,
            record: record.join(", "),
        }
    });
    Ok(rows.collect())
}
