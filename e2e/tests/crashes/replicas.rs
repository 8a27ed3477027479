//! Two operators and one lease: who has lost it writes nothing any more, however it lost it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::fault_proxy::call::LEADER;
use e2e::fault_proxy::{Plan, Verb};
use e2e::fleet::until;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::fleet::{self, SPARES};
use crate::history::Watch;
use crate::program::Operator;
use crate::state;
use crate::stories::{self, Undisturbed, rest};
use crate::table::Tried;
use crate::world::World;

/// Seconds of the lease here.
const LEASE: u32 = 3;
/// A lease runs out a second late by its clock's resolution, and is looked at every third of its length.
const TAKEN: Duration = Duration::from_secs(8);
/// Longer than the longest pause between two looks of a controller.
const STILL: Duration = Duration::from_secs(11);
/// Several of DAPI's looks at its nodes.
const LOOKED: Duration = Duration::from_secs(60);

/// All of it.
pub async fn all(world: &World<'_>, undisturbed: &Undisturbed) -> Result<Vec<Tried>> {
    stories::begin(world).await?;
    let watch = Watch::begin(&world.client);
    let mut first = world.program.start_replica(world.cluster, 0, LEASE)?;
    rest(world, &mut first, Some(&undisturbed.lines)).await?;
    // DAPI looks at its nodes every few seconds, and the leader writes what it sees.
    until("DAPI to see its nodes serve", LOOKED, async || {
        let seen = state::read(world).await?;
        Ok(if seen.serves() {
            Ok(())
        } else {
            Err("some node does not".to_owned())
        })
    })
    .await?;
    // Whoever protects looks every ten seconds, and marks what carries slots now.
    until("the leader to have nothing left to write", LOOKED, async || {
        let writes = world.gate.busy(&[LEADER, "sprint-schedule"]);
        tokio::time::sleep(STILL).await;
        let more = world.gate.busy(&[LEADER, "sprint-schedule"]) - writes;
        Ok(if more == 0 {
            Ok(())
        } else {
            Err(format!("{more} writes"))
        })
    })
    .await?;
    let mut second = world.program.start_replica(world.cluster, 1, LEASE)?;
    let writes = world.gate.busy(&[LEADER, "sprint-schedule"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = world.gate.busy(&[LEADER, "sprint-schedule"]) - writes;
    ensure!(
        written == 0,
        "a follower writes: {:#?}",
        world.gate.writes().iter().rev().take(written).collect::<Vec<_>>()
    );
    let mut tried = vec![
        frozen(world, undisturbed, &mut first, &mut second)
            .await
            .context("a frozen leader")?,
    ];
    tried.push(killed(world, undisturbed, second).await.context("a killed leader")?);
    ensure!(watch.judge()? == 0, "a slot moved");
    for line in &tried {
        world.say(&format!("{}: {}", line.0, line.1));
    }
    Ok(tried)
}

/// The leader gets no processor time for longer than its lease, and comes back with the world it knew.
async fn frozen(
    world: &World<'_>,
    undisturbed: &Undisturbed,
    first: &mut Operator,
    second: &mut Operator,
) -> Result<Tried> {
    world.gate.set(Plan::default());
    first.signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    led_by(world, 1).await?;
    let seconds = stopped.elapsed().as_secs_f64();
    fleet::set_spares(world, SPARES + 1).await?;
    fleet::until_pods(world, 4).await?;
    first.signal(Signal::SIGCONT)?;
    let failed = first.ends(TAKEN).await?;
    ensure!(failed, "a leader without its lease ended as if all were well");
    tokio::time::sleep(stories::QUIET).await;
    let made = world
        .gate
        .writes()
        .into_iter()
        .filter(|written| written.call.verb == Verb::Create && written.call.resource == "pods");
    let made = made.count();
    ensure!(made == 1, "{made} pods were made for one spare by two operators");
    fleet::set_spares(world, SPARES).await?;
    rest(world, second, Some(&undisturbed.lines)).await?;
    Ok((
        "the leader stands still for longer than its lease and wakes after another took over and made a pod".to_owned(),
        format!("the other leads after {seconds:.1} s; the first ends, and makes no second pod"),
    ))
}

/// The leader dies; a replica of another name waits for the lease to run out.
async fn killed(world: &World<'_>, undisturbed: &Undisturbed, leader: Operator) -> Result<Tried> {
    let mut other = world.program.start_replica(world.cluster, 2, LEASE)?;
    leader.kill().await?;
    let died = Instant::now();
    led_by(world, 2).await?;
    let seconds = died.elapsed().as_secs_f64();
    rest(world, &mut other, Some(&undisturbed.lines)).await?;
    other.kill().await?;
    Ok((
        "the leader is killed while another replica waits".to_owned(),
        format!("the other leads after {seconds:.1} s of a lease of {LEASE} s; nothing changes"),
    ))
}

async fn led_by(world: &World<'_>, replica: u16) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "gonka-system");
    let name = format!("gonka-operator-{replica}");
    until(&format!("{name} to lead"), TAKEN, async || {
        let lease = leases.get("gonka-fleet-operator").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        Ok(if holder == name {
            Ok(())
        } else {
            Err(format!("{holder} leads"))
        })
    })
    .await
}
