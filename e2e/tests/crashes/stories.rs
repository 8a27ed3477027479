//! From nothing to rest, once undisturbed, and once for every kill: the end must be the same.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::fault_proxy::call::LEADER;
use e2e::fault_proxy::{How, Plan};
use e2e::fleet::until;
use serde_json::Value;
use tokio::time::Instant;

use crate::fleet;
use crate::history::Watch;
use crate::program::Operator;
use crate::state::{self, Lines, Seen, difference};
use crate::strikes::{self, Kill};
use crate::table::Row;
use crate::world::World;

/// Longest time to rest.
const LIMIT: Duration = Duration::from_secs(60);
/// Nothing is written for this long, in which every controller makes a pass.
pub const QUIET: Duration = Duration::from_millis(1500);
/// Controllers that write without being asked: a lease is renewed, heights and estimates move.
const RESTLESS: [&str; 2] = [LEADER, "sprint-schedule"];

/// What an undisturbed story comes to.
#[derive(Debug)]
pub struct Undisturbed {
    pub lines: Lines,
    pub writes: BTreeMap<String, u64>,
}

/// One story with nothing wrong in it.
pub async fn undisturbed(world: &World<'_>) -> Result<Undisturbed> {
    begin(world).await?;
    let started = Instant::now();
    let watch = Watch::begin(&world.client);
    let mut operator = world.program.start(world.cluster)?;
    let seen = rest(world, &mut operator, None).await?;
    let writes = strikes::counts(&world.gate.writes());
    world.say(&format!(
        "undisturbed: {:.1} s, writes {writes:?}",
        started.elapsed().as_secs_f64()
    ));
    ensure!(watch.judge()? == 0, "a slot changed hands with nothing wrong");
    registered_once(world).await?;
    operator.kill().await?;
    Ok(Undisturbed {
        lines: seen.lines(),
        writes,
    })
}

/// A clean world, with the objects in it.
pub async fn begin(world: &World<'_>) -> Result<()> {
    world.gate.set(Plan::default());
    Box::pin(fleet::clear(world)).await?;
    world.program.forget()?;
    fleet::make(world).await?;
    world.gate.set(Plan::default());
    Ok(())
}

/// Every kill of the choice, one story each.
pub async fn all(world: &World<'_>, undisturbed: &Undisturbed, seed: u64, full: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kill in strikes::choose(&undisturbed.writes, seed, full) {
        let row = story(world, undisturbed, &kill)
            .await
            .with_context(|| format!("killed at write {} of {} ({:?})", kill.nth, kill.controller, kill.how))?;
        world.say(&row.shown());
        rows.push(row);
    }
    Ok(rows)
}

async fn story(world: &World<'_>, undisturbed: &Undisturbed, kill: &Kill) -> Result<Row> {
    begin(world).await?;
    let requests = requests(world).await?;
    world.gate.set(Plan::strike(kill.of(), kill.nth, kill.how));
    let watch = Watch::begin(&world.client);
    let mut operator = world.program.start(world.cluster)?;
    let struck = tokio::select! {
        struck = world.gate.strike() => Some(struck),
        // It may come to rest in fewer writes than the undisturbed story did.
        rested = rest(world, &mut operator, Some(&undisturbed.lines)) => { rested?; None }
    };
    operator.kill().await?;
    world.gate.set(Plan::default());
    let started = Instant::now();
    let mut operator = world.program.start(world.cluster)?;
    rest(world, &mut operator, Some(&undisturbed.lines)).await?;
    let seconds = started.elapsed().saturating_sub(QUIET).as_secs_f64();
    operator.check()?;
    let moved = watch.judge()?;
    ensure!(moved == 0, "{moved} slots changed hands though no pod was lost");
    posted_once(&self::requests(world).await?[requests.len()..])?;
    operator.kill().await?;
    Ok(Row {
        controller: kill.controller.clone(),
        nth: kill.nth,
        landed: kill.how == How::AnswerLost,
        write: struck.map(|call| call.shown()),
        seconds,
    })
}

/// Waits until everything is as it must be, and as it was undisturbed, and nobody writes any more.
pub async fn rest(world: &World<'_>, operator: &mut Operator, wanted: Option<&Lines>) -> Result<Seen> {
    let mut quiet = (usize::MAX, Instant::now());
    until("rest", LIMIT, async || {
        operator.check()?;
        let writes = world.gate.busy(&RESTLESS);
        if writes != quiet.0 {
            quiet = (writes, Instant::now());
        }
        let seen = state::read(world).await?;
        if let Err(error) = seen.check() {
            return Ok(Err(format!("{error:#}")));
        }
        let lines = seen.lines();
        match wanted {
            Some(wanted) if *wanted != lines => return Ok(Err(difference(wanted, &lines))),
            None if !is_done(&lines) => return Ok(Err(format!("{lines:#?}"))),
            Some(_) | None => {}
        }
        Ok(if quiet.1.elapsed() >= QUIET {
            Ok(seen)
        } else {
            Err("writes go on".to_owned())
        })
    })
    .await
}

/// The undisturbed story is over when its slots would pass.
fn is_done(lines: &Lines) -> bool {
    let holds = format!(
        "ModelDeployment holds {0} ready {0} spares {1}",
        fleet::SLOTS,
        fleet::SPARES
    );
    lines.contains(&holds)
        && lines.iter().filter(|line| line.ends_with("numbered true")).count() == fleet::SLOTS as usize
}

/// Every request to DAPI so far.
pub async fn requests(world: &World<'_>) -> Result<Vec<Value>> {
    let all = world.control.requests().await?;
    all["requests"].as_array().cloned().context("no requests")
}

async fn registered_once(world: &World<'_>) -> Result<()> {
    posted_once(&requests(world).await?)
}

/// One POST for each node, no DELETE.
pub fn posted_once(requests: &[Value]) -> Result<()> {
    let of = |method: &str| -> Vec<&Value> {
        requests
            .iter()
            .filter(|request| {
                request["method"] == method
                    && request["path"]
                        .as_str()
                        .is_some_and(|path| path.starts_with("/admin/v1/nodes"))
            })
            .collect()
    };
    let posts = of("POST");
    ensure!(
        posts.len() == fleet::SLOTS as usize,
        "{} POSTs for {} slots: {posts:?}",
        posts.len(),
        fleet::SLOTS
    );
    ensure!(of("DELETE").is_empty(), "nodes were deleted: {:?}", of("DELETE"));
    Ok(())
}
