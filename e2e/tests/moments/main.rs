//! Everything that may die dies during a Sprint, at a moment of the seed's choice, and the round still counts.
//!
//! `MOMENTS_ONLY=takeovers` leaves the strikes out, `MOMENTS_SEED` replays a run, `MOMENTS_GRID=1` tries every target at every moment, `UPDATE_GENERATED=1` writes
//! `docs/reliability.md`.
//!
//! | module | what it is |
//! |---|---|
//! | [`target`] | what is struck, and what must count all the same; pure |
//! | [`grid`] | which strikes, when, together with what; pure |
//! | [`strike`] | how each is done |
//! | [`eyes`] | that no slot has two masters |
//! | [`takeovers`] | how long a slot is without an answer when its pod goes |
//! | [`count`] | what the network and the operator have on record |
//! | [`table`] | `docs/reliability.md` |

mod count;
mod eyes;
mod grid;
mod strike;
mod table;
mod takeovers;
mod target;
mod world;

use anyhow::{Context as _, Result, ensure};
use e2e::args::Environment;

use count::Counts;
use eyes::Eyes;
use grid::{Extent, Strike};
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
    let eyes = Eyes::open(world.cluster, &world.client).await?;
    let mut rows = Vec::new();
    let only_takeovers = told("MOMENTS_ONLY").as_deref() == Some("takeovers");
    let sprints = grid::sprints(seed, extent, SLOTS);
    for strikes in sprints.into_iter().filter(|_| !only_takeovers) {
        rows.extend(sprint(world, strikes).await?);
        eyes.judge()?;
    }
    world.is_ready().await?;
    let takeovers = takeovers::measure(world, extent.takeovers()).await?;
    eyes.judge()?;
    let strikes = (!only_takeovers).then(|| table::strikes(&rows, seed, extent));
    let page = table::takeovers(&takeovers);
    table::publish(strikes.as_deref(), &page, told("UPDATE_GENERATED").is_some())?;
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| row.judge().err())
        .map(|error| error.to_string())
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    takeovers.judge()
}

/// One Sprint with its strikes.
async fn sprint(world: &World<'_>, mut strikes: Vec<Strike>) -> Result<Vec<Row>> {
    world.is_ready().await?;
    let start = world.next_sprint().await?;
    let before = Before {
        holders: world.holders().await?,
    };
    let machines: Vec<(i32, u8)> = before.holders.iter().map(|holder| (holder.slot, holder.node)).collect();
    grid::place(&mut strikes, &machines, strike::leaders_machine(world).await?);
    let strikes = &strikes;
    world.say(&format!("Sprint {start}: {strikes:?} on {:?}", before.holders));
    let struck = futures::future::try_join_all(strikes.iter().map(async |strike| {
        world.wait_for(start, strike.at_millis).await?;
        world.say(&format!("{}: struck", strike.target));
        strike::strike(world, strike, &before)
            .await
            .with_context(|| strike.target.to_string())
    }));
    let (possible, _) = tokio::try_join!(count::possible(world, start), struck)?;
    let counted = count::counts(world, start).await?;
    world.say(&format!("Sprint {start}: {counted:?} of {possible} each"));
    for strike in strikes.iter().filter(|strike| strike.target.takes_a_machine()) {
        strike::heal(world, strike, &before).await?;
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
        if strike.target.takes_a_machine() {
            record.extend(takeovers.iter().cloned());
        }
        Row {
            sprint: start,
            target: strike.target,
            moment: strike.moment,
            at_millis: strike.at_millis,
            counted: sum(&counted),
            possible: possible * slots.len() as u64,
            must: grid::must_count(strike, strikes),
            slots,
            record: record.join(", "),
        }
    });
    Ok(rows.collect())
}
