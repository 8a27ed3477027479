//! Two Sprints: one undisturbed, one without API server, DNS and service routing. Both must be worth what the machine could compute.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use crds::SprintRun;
use crds::sprint_run::{Cause, SlotRecord};
use e2e::fleet::metrics::{Page, Places};
use e2e::fleet::{ledger, until};
use e2e::harness::cluster::Target;
use e2e::harness::{Cluster, How, Machine};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::time::Instant;

use crate::world::{SLOTS, World};

/// How many blocks before the Sprint everything has failed.
const LEAD: i64 = 5;
/// Blocks an operator may be behind.
const BEHIND: i64 = 3;
/// Blocks that pass while things are being stopped.
const STOPPING: i64 = 3;
/// Part of what the machine could compute meanwhile that must get on chain: per mille.
const IN_FULL: u64 = 900;
/// Part of what was expected that may be missing without a cause on record: per mille.
const UNREMARKABLE: u64 = 50;
/// A first nonce later than this is a late start, milliseconds.
const LATE: i64 = 3000;

/// A Sprint as it went.
pub struct Sprint {
    start: i64,
    generation_end: i64,
    validation_start: i64,
    validation_end: i64,
    /// Nonces an engine that nothing disturbs computed in the time of generation.
    possible: u64,
    /// Slot pods as they were before.
    lives: Vec<(String, String, i32)>,
    /// What the network has on record, by node id; filled once the exam is over.
    delivered: BTreeMap<String, Delivered>,
}

/// What one slot brought.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    accepted: u64,
    committed: u64,
    starts: usize,
}

impl Sprint {
    async fn ahead(world: &World<'_>, epoch: i64) -> Result<Self> {
        let start = world.sprint(epoch).await?;
        let ledger = world.control.ledger().await?;
        let (validation_start, validation_end) = ledger::validation(&ledger, start)?;
        Ok(Self {
            start,
            generation_end: ledger::generation_end(&ledger, start)?,
            validation_start,
            validation_end,
            possible: 0,
            lives: world.slot_lives().await?,
            delivered: BTreeMap::new(),
        })
    }

    /// Waits until generation is over, and measures what the machine had to give.
    async fn generate(&mut self, world: &World<'_>) -> Result<()> {
        world.height(self.start).await?;
        let begin = Instant::now();
        world.height(self.generation_end).await?;
        self.possible = world.yardstick.computed(begin, Instant::now());
        Ok(())
    }

    /// Every slot brought what the machine could compute.
    fn counts_in_full(&self) -> Result<()> {
        for (id, came) in &self.delivered {
            for (what, count) in [("accepted", came.accepted), ("committed", came.committed)] {
                ensure!(
                    count * 1000 >= self.possible * IN_FULL,
                    "{id}: {count} {what} of {} possible",
                    self.possible
                );
            }
            ensure!(came.starts == 1, "{id} was started {} times", came.starts);
        }
        Ok(())
    }

    /// Waits for the end of the exam and reads what came of it.
    async fn read(&mut self, world: &World<'_>) -> Result<()> {
        world.height(self.validation_end + 1).await?;
        let ledger = world.control.ledger().await?;
        self.delivered = ledger::own_nodes(&ledger, self.start)?
            .iter()
            .map(delivered)
            .collect::<Result<_>>()?;
        ensure!(
            self.delivered.len() == SLOTS,
            "{} nodes took part: {:?}",
            self.delivered.len(),
            self.delivered
        );
        Ok(())
    }
}

fn delivered(node: &Value) -> Result<(String, Delivered)> {
    let id = node["node_id"].as_str().context("a node without an id")?;
    let count = |name: &str| node[name].as_u64().with_context(|| format!("{id} has no {name}"));
    let started = |request: &&Value| request["status"] == 200;
    let starts = node["requests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(started)
        .count();
    let delivered = Delivered {
        accepted: count("accepted")?,
        committed: count("committed")?,
        starts,
    };
    Ok((id.to_owned(), delivered))
}

/// A Sprint in which nothing fails counts in full, and its record is complete.
pub async fn a_sprint_goes_by(world: &World<'_>, epoch: i64) -> Result<()> {
    let mut sprint = Sprint::ahead(world, epoch).await?;
    sprint.generate(world).await?;
    world.height(sprint.validation_start).await?;
    let run = recorded(&world.client, sprint.start).await?;
    sprint.read(world).await?;
    world.say(&format!(
        "Sprint {} undisturbed, {} possible: {:?}",
        sprint.start, sprint.possible, sprint.delivered
    ));
    complete(&run, &sprint)?;
    sprint.counts_in_full()
}

/// From five seconds before the start until validation nothing of the control plane answers: the API server is killed, DNS
/// hangs, and service addresses lead nowhere on any node. On the machine of the network, where DAPI finds slots by their
/// service addresses, kube-proxy is killed as well; what it wrote into the kernel stays there, as it does in any cluster.
pub async fn a_sprint_without_the_control_plane(world: &World<'_>, epoch: i64) -> Result<Sprint> {
    let mut sprint = Sprint::ahead(world, epoch).await?;
    let operators = Places::of_role(&world.client, crds::labels::ROLE_OPERATOR).await?;
    world.height(sprint.start - LEAD - STOPPING).await?;
    cut(world.cluster).await?;
    let height = world.control.height().await?;
    ensure!(
        height <= sprint.start - LEAD,
        "the outage began at height {height}, too late for the start {}",
        sprint.start
    );
    world.say(&format!(
        "height {height}: no API server, no DNS, no service routing; the Sprint starts at {}",
        sprint.start
    ));
    let answered = world
        .cluster
        .kubectl_command()
        .args(["get", "--raw", "/readyz", "--request-timeout=2s"])
        .text()
        .await;
    ensure!(answered.is_err(), "the API server answers");
    sprint.generate(world).await?;
    knowledge_goes_on(world, &operators).await?;
    world.height(sprint.validation_start).await?;
    restore(world.cluster).await?;
    let height = world.control.height().await?;
    world.say(&format!("height {height}: everything runs again"));
    Ok(sprint)
}

/// The lease ran out meanwhile, so the leader ended and started again without an API server. Both replicas know the chain, have
/// the certificate that proves who they are, and tell what they know to whoever watches.
async fn knowledge_goes_on(world: &World<'_>, operators: &Places) -> Result<()> {
    until(
        "two operators that know the chain and lead nothing",
        Duration::from_secs(4),
        async || {
            let height = world.control.height().await?;
            let pages: Vec<Page> = operators.read().await?.into_iter().map(|(_, page)| page).collect();
            let sum = |name: &str| pages.iter().map(|page| page.sum(name)).sum::<f64>();
            let (leads, watched) = (sum("gonka_operator_leader"), sum("gonka_operator_signal_subscribers"));
            let newest = |page: &&Page| page.sum("gonka_operator_chain_height") >= (height - BEHIND) as f64;
            let proven = |page: &&Page| page.sum("gonka_operator_signal_certificate_seconds") > 0.5;
            let known = pages.iter().filter(newest).filter(proven).count();
            Ok(if known == 2 && leads < 0.5 && watched >= SLOTS as f64 {
                world.say(&format!(
                    "without an API server two operators know height {height}, {watched} watch them, nobody leads"
                ));
                Ok(())
            } else {
                Err(format!(
                    "{known} know height {height} and can prove who they are, {leads} lead, {watched} watch"
                ))
            })
        },
    )
    .await
}

/// Machines whose packets find services by themselves and run no DAPI.
fn machines(cluster: &Cluster) -> Result<Vec<Machine>> {
    let all = Machine::all(cluster.options()?.nodes);
    Ok(all.filter(|machine| *machine != Machine::Network).collect())
}

fn api_server() -> Target {
    Target::Component("kube-apiserver".into())
}

async fn cut(cluster: &Cluster) -> Result<()> {
    let (api, proxy) = (api_server(), Target::Component("kube-proxy".into()));
    let routing = async {
        for machine in machines(cluster)? {
            cluster
                .stop_component(&Target::ServiceRouting, Some(machine), How::Kill)
                .await?;
        }
        Ok(())
    };
    tokio::try_join!(
        cluster.stop_component(&api, None, How::Kill),
        cluster.stop_component(&Target::CoreDns, None, How::Freeze),
        cluster.stop_component(&proxy, Some(Machine::Network), How::Kill),
        routing,
    )
    .map(drop)
    .context("the control plane was not stopped")
}

async fn restore(cluster: &Cluster) -> Result<()> {
    cluster.resume_component(&Target::CoreDns, None).await?;
    cluster.resume_component(&api_server(), None).await?;
    cluster
        .resume_component(&Target::ServiceRouting, None)
        .await
        .context("service routing did not come back")
}

/// The record of the Sprint that nobody could write down while it went by: made afterwards, complete, without a cause.
pub async fn it_is_recorded(world: &World<'_>, sprint: &Sprint) -> Result<SprintRun> {
    let run = recorded(&world.client, sprint.start).await?;
    complete(&run, sprint)?;
    world.say(&format!("{} is on record", run.name_any()));
    Ok(run)
}

/// Every slot delivered what the machine could compute, on the pod it had, after one start.
pub async fn it_counts_in_full(world: &World<'_>, disturbed: &mut Sprint) -> Result<()> {
    disturbed.read(world).await?;
    world.say(&format!(
        "Sprint {} disturbed, {} possible: {:?}",
        disturbed.start, disturbed.possible, disturbed.delivered
    ));
    disturbed.counts_in_full()?;
    let lives = world.slot_lives().await?;
    ensure!(
        lives == disturbed.lives,
        "slot pods changed: {:?} became {lives:?}",
        disturbed.lives
    );
    Ok(())
}

/// The record is the one that was made first, and there is no other.
pub async fn it_is_recorded_once(world: &World<'_>, sprint: &Sprint, first: &SprintRun) -> Result<()> {
    let all = of_height(&world.client, first.spec.poc_start_height).await?;
    match all.as_slice() {
        [one] => ensure!(
            one.uid() == first.uid(),
            "the record was made again: {:?} then {:?}",
            first.metadata.creation_timestamp,
            one.metadata.creation_timestamp
        ),
        several => bail!("{} records of one Sprint", several.len()),
    }
    complete(&all[0], sprint)?;
    world.say("the Sprint without a control plane counted in full and is recorded once");
    Ok(())
}

async fn of_height(client: &Client, height: i64) -> Result<Vec<SprintRun>> {
    let runs: Api<SprintRun> = Api::namespaced(client.clone(), "gonka");
    let all = runs
        .list(&ListParams::default())
        .await
        .context("records cannot be listed")?;
    Ok(all
        .items
        .into_iter()
        .filter(|run| run.spec.poc_start_height == height)
        .collect())
}

/// Waits for the record of a Sprint with the counts of every slot, and takes it as it is then.
async fn recorded(client: &Client, height: i64) -> Result<SprintRun> {
    until(
        &format!("a record of Sprint {height}"),
        Duration::from_secs(60),
        async || {
            let Some(run) = of_height(client, height).await?.pop() else {
                return Ok(Err("there is none".to_owned()));
            };
            let counted = |slot: &&SlotRecord| slot.committed.is_some() && slot.measured.is_some();
            let slots = run.status.iter().flat_map(|status| &status.slots);
            let counted = slots.filter(counted).count();
            Ok(if counted == SLOTS {
                Ok(run)
            } else {
                Err(format!("{counted} slots have their counts in {:?}", run.status))
            })
        },
    )
    .await
}

/// Per slot: expected, measured, accepted, committed and the first nonce, and nothing lost.
fn complete(run: &SprintRun, sprint: &Sprint) -> Result<()> {
    let name = run.name_any();
    let status = run.status.as_ref().context("the record has no status")?;
    let starved = status.slots.iter().any(|slot| is_starved(slot, sprint));
    ensure!(
        nothing_is_lost(status.cause, starved),
        "{name} has cause {}: {:?}",
        status.cause,
        status.evidence
    );
    ensure!(
        status.takeovers.is_empty(),
        "{name}: slots moved: {:?}",
        status.takeovers
    );
    ensure!(status.slots.len() == SLOTS, "{name} has {} slots", status.slots.len());
    for slot in &status.slots {
        judge(slot, is_starved(slot, sprint)).with_context(|| format!("{name}: {slot:?}"))?;
    }
    Ok(())
}

/// The machine gave engines less than the rehearsal promised.
fn is_starved(slot: &SlotRecord, sprint: &Sprint) -> bool {
    let expected = slot.expected.unwrap_or_default().max(0).unsigned_abs();
    sprint.possible * 1000 < expected * (1000 - UNREMARKABLE)
}

/// A starved engine is on record as slow, which is true.
fn nothing_is_lost(cause: Cause, starved: bool) -> bool {
    cause == Cause::None || (starved && cause == Cause::SlowGpu)
}

fn judge(slot: &SlotRecord, starved: bool) -> Result<()> {
    let id = &slot.node_id;
    let some = |what: &str, count: Option<i64>| {
        count
            .filter(|count| *count > 0)
            .with_context(|| format!("{id} has no count of {what}"))
    };
    some("expected", slot.expected)?;
    let measured = some("measured", slot.measured)?;
    let accepted = some("accepted", slot.accepted)?;
    let committed = some("committed", slot.committed)?;
    ensure!(
        measured >= accepted && accepted >= committed,
        "{id}: {measured} measured, {accepted} accepted, {committed} committed"
    );
    let first = slot
        .first_nonce_millis
        .with_context(|| format!("{id} has no first nonce"))?;
    ensure!(
        (0..=LATE).contains(&first),
        "{id}: the first nonce came {first} ms after the block"
    );
    ensure!(nothing_is_lost(slot.cause, starved), "{id} has cause {}", slot.cause);
    Ok(())
}
