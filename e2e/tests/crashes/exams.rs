//! Records of Sprints: the operator is killed at each write of one, and the record is the one an undisturbed Sprint gets.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::{GonkaHost, SprintRun};
use e2e::fault_proxy::{How, Of, Plan};
use e2e::fleet::until;
use kube::api::ListParams;
use serde_json::Value;
use tokio::time::Instant;

use crate::fleet::{HOST, SLOTS, ours};
use crate::namesakes;
use crate::program::Operator;
use crate::state;
use crate::stories;
use crate::table::{Row, Tried};
use crate::world::World;

const CONTROLLER: &str = "sprint-run";
/// Blocks before a Sprint in which it is too late to prepare for it.
const AHEAD: i64 = 4;
/// From the beginning of a Sprint to the end of its record: the next one's validation, and time to spare.
const LIMIT: Duration = Duration::from_secs(60);

/// Every write of a record, both ways; or one of each way. Then a host that is made again while it is examined.
pub async fn all(world: &mut World<'_>, full: bool) -> Result<(Vec<Row>, Vec<Tried>)> {
    world.change_chain("crashes-exams").await?;
    stories::begin(world).await?;
    let world = &*world;
    let mut operator = world.program.start(world.cluster)?;
    until("registered slots", LIMIT, async || {
        operator.check()?;
        let seen = state::read(world).await?;
        Ok(seen.check().map_err(|error| format!("{error:#}")))
    })
    .await?;
    let (start, name) = next(world).await?;
    world.gate.set(Plan::default());
    let sealed = record(world, &mut operator, start).await?;
    let of = |name: &str| Of::Object("sprintruns".to_owned(), name.to_owned());
    let writes = world.gate.count(&of(&name));
    world.say(&format!("an undisturbed record takes {writes} writes"));
    let wanted = shape(&sealed);
    let kills: Vec<(u64, How)> = if full {
        (1..=writes)
            .flat_map(|nth| [(nth, How::AnswerLost), (nth, How::NeverArrived)])
            .collect()
    } else {
        vec![(1, How::AnswerLost), (writes, How::NeverArrived)]
    };
    let mut rows = Vec::new();
    for (nth, how) in kills {
        let (start, name) = next(world).await?;
        world.gate.set(Plan::strike(of(&name), nth, how));
        let struck = tokio::time::timeout(LIMIT, world.gate.strike())
            .await
            .with_context(|| format!("record {name} had no write {nth}"))?;
        operator.kill().await?;
        world.gate.set(Plan::default());
        let begun = Instant::now();
        operator = world.program.start(world.cluster)?;
        let sealed = record(world, &mut operator, start)
            .await
            .with_context(|| format!("killed at write {nth} of record {name} ({how:?})"))?;
        let found = shape(&sealed);
        ensure!(
            found == wanted,
            "killed at write {nth} of {name} ({how:?}): {found:#?} instead of {wanted:#?}"
        );
        has_a_line(world, &name)?;
        let row = Row {
            controller: CONTROLLER.to_owned(),
            nth,
            landed: how == How::AnswerLost,
            write: Some(struck.shown()),
            seconds: begun.elapsed().as_secs_f64(),
        };
        world.say(&row.shown());
        rows.push(row);
    }
    let again = host_made_again(world, &mut operator).await;
    let again = again.context("a GonkaHost is made again during a Sprint")?;
    world.say(&format!("{}: {}", again.0, again.1));
    operator.kill().await?;
    Ok((rows, vec![again]))
}

/// The record of the Sprint at hand is the first host's, and stays as it was; the next Sprint is the second one's.
async fn host_made_again(world: &World<'_>, operator: &mut Operator) -> Result<Tried> {
    let (start, name) = next(world).await?;
    let runs = ours::<SprintRun>(&world.client);
    let made = until(&format!("record {name}"), LIMIT, async || {
        Ok(runs.get_opt(&name).await?.ok_or_else(|| "there is none".to_owned()))
    })
    .await?;
    namesakes::make_again(world, "GonkaHost").await?;
    let uid = ours::<GonkaHost>(&world.client).get(HOST).await?.metadata.uid;
    let (later, _) = next(world).await?;
    ensure!(later > start, "the next Sprint is the same one");
    let sealed = record(world, operator, later).await?;
    ensure!(
        Some(&sealed.spec.host_ref.uid) == uid.as_ref(),
        "the next Sprint's record is of host {:?} instead of {uid:?}",
        sealed.spec.host_ref
    );
    let all = runs.list(&ListParams::default()).await?.items;
    let of_it: Vec<&SprintRun> = all.iter().filter(|run| run.spec.poc_start_height == start).collect();
    ensure!(of_it.len() == 1, "{} records of one Sprint", of_it.len());
    ensure!(of_it[0].spec == made.spec, "the first host's record has another spec");
    ensure!(
        of_it[0].status == made.status,
        "the first host's record went on as the second one's: {:?}",
        of_it[0].status
    );
    Ok((
        "a GonkaHost is deleted and made again during a Sprint".to_owned(),
        "that Sprint's record stays as the first host left it; the next Sprint's is the second host's".to_owned(),
    ))
}

/// Start of the next Sprint there is time for, and the name of its record.
async fn next(world: &World<'_>) -> Result<(i64, String)> {
    until("a Sprint ahead", LIMIT, async || {
        let state = world.control.state().await?;
        let start = state["next_poc_start"].as_i64().context("no next Sprint")?;
        let height = state["height"].as_i64().context("no height")?;
        Ok(if start - height >= AHEAD {
            Ok((start, format!("{HOST}-s-{start}")))
        } else {
            Err(format!("height {height}, the next begins at {start}"))
        })
    })
    .await
}

/// The one record of a Sprint, closed.
async fn record(world: &World<'_>, operator: &mut Operator, start: i64) -> Result<SprintRun> {
    let runs = ours::<SprintRun>(&world.client);
    until(&format!("the record of Sprint {start}"), LIMIT, async || {
        operator.check()?;
        let all = runs.list(&ListParams::default()).await?.items;
        let mut of_it: Vec<SprintRun> = all
            .into_iter()
            .filter(|run| run.spec.poc_start_height == start)
            .collect();
        ensure!(of_it.len() <= 1, "{} records of one Sprint", of_it.len());
        Ok(match of_it.pop() {
            Some(run) if run.status.as_ref().is_some_and(|status| status.sealed_time.is_some()) => Ok(run),
            Some(run) => Err(format!("it is open: {:?}", run.status)),
            None => Err("there is none".to_owned()),
        })
    })
    .await
}

/// What is the same from Sprint to Sprint: which fields are known and which slots took part. Counts and causes are the
/// chain's, and differ with the operator's absence.
fn shape(run: &SprintRun) -> Vec<String> {
    let status = run.status.clone().unwrap_or_default();
    let mut lines = vec![
        format!("kind {}", run.spec.kind),
        format!(
            "host {} with its UID {}",
            run.spec.host_ref.name,
            !run.spec.host_ref.uid.is_empty()
        ),
        format!("seed known {}", !run.spec.seed.is_empty()),
        format!("votes known {}", status.votes.is_some()),
        format!("weight known {}", status.weight.is_some()),
        format!("reward known {}", status.reward_ngonka.is_some()),
        format!("totals known {}", status.totals.is_some()),
    ];
    let committed = status.slots.iter().filter(|slot| slot.committed.is_some()).count();
    lines.push(format!(
        "slots {} of {SLOTS}, committed {committed}",
        status.slots.len()
    ));
    lines
}

/// Its line is on the records volume; the last one counts.
fn has_a_line(world: &World<'_>, name: &str) -> Result<()> {
    let path = world.program.home.join("records").join(format!("{HOST}.jsonl"));
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let line = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .rfind(|line| line["name"] == name)
        .with_context(|| format!("{name} has no line"))?;
    ensure!(
        !line["status"]["sealedTime"].is_null(),
        "the line of {name} is not that of a closed record"
    );
    Ok(())
}
