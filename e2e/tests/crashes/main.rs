//! The operator's real program against a real API server, killed at its writes, with old lists, late and lost events.
//!
//! `CRASHES_FULL=1` kills at every write; otherwise a choice that `CRASHES_SEED` makes, every controller at least twice.
//! `CRASHES_PART` is one of kills, lags, namesakes, replicas, exams. `UPDATE_GENERATED=1` writes `docs/crash-consistency.md`.
//!
//! | module | what it is |
//! |---|---|
//! | [`world`] | API server, chain, DAPI, the proxy between them and the operator |
//! | [`kubelet`] | real `slot` programs for pods, without images |
//! | [`program`] | the operator's process |
//! | [`fleet`] | the objects of one story, and taking them away |
//! | [`state`] | what must be the same after every story, pure |
//! | [`history`] | what must hold of every version of a slot |
//! | [`strikes`] | which write, pure |
//! | [`stories`] | kill, restart, compare |
//! | [`exams`] | the same for records of Sprints |
//! | [`lags`] | old lists, late, lost and stalled watches |
//! | [`namesakes`] | objects that are made again under the same name |
//! | [`replicas`] | two operators, one lease |
//! | [`table`] | `docs/crash-consistency.md` |

mod exams;
mod fleet;
mod history;
mod kubelet;
mod lags;
mod namesakes;
mod program;
mod replicas;
mod state;
mod stories;
mod strikes;
mod table;
mod world;

use anyhow::{Context as _, Result, ensure};
use e2e::args::Environment;

use world::World;

#[expect(clippy::disallowed_methods, reason = "a test asks how it is to run")]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster: make crashes"]
async fn wherever_the_operator_dies_it_comes_to_the_same_end() -> Result<()> {
    let seed = match told("CRASHES_SEED") {
        Some(seed) => seed.parse().context("CRASHES_SEED is no number")?,
        None => 1,
    };
    let full = told("CRASHES_FULL").is_some();
    eprintln!("seed {seed}: replay with CRASHES_SEED={seed}");
    world::with_world(&Environment::read(), async |world| {
        Box::pin(story(world, seed, full)).await
    })
    .await
}

async fn story(world: &mut World<'_>, seed: u64, full: bool) -> Result<()> {
    let only = told("CRASHES_PART");
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let undisturbed = stories::undisturbed(world).await?;
    let mut rows = Vec::new();
    let mut sections = Vec::new();
    if wanted("namesakes") {
        sections.push(("The same name again", namesakes::all(world, &undisturbed).await?));
    }
    if wanted("replicas") {
        sections.push(("Two operators", replicas::all(world, &undisturbed).await?));
    }
    if wanted("lags") {
        sections.push((
            "Refused writes, old lists, late and lost events",
            lags::all(world, &undisturbed, full).await?,
        ));
    }
    if wanted("kills") {
        rows.extend(stories::all(world, &undisturbed, seed, full).await?);
    }
    // A Sprint for each kill takes its time.
    if full && wanted("exams") {
        let (killed, tried) = exams::all(world, full).await?;
        rows.extend(killed);
        sections.push(("The same name again, during a Sprint", tried));
    }
    let (deletions, careless) = world.gate.deletions();
    world.say(&format!("{deletions} deletions, every one with the UID it meant"));
    ensure!(careless.is_empty(), "deletions without a UID: {careless:?}");
    if only.is_none() {
        ensure!(
            deletions > 0,
            "nothing was deleted: nothing shows that deletions name a UID"
        );
        table::publish(
            &table::render(&rows, &sections, deletions, seed, full),
            told("UPDATE_GENERATED").is_some(),
        )?;
    }
    Ok(())
}
