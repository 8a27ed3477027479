//! Virtual time: once, or twice to compare.

use crate::{judge, parse, read_scenario, refuse, say};
use anyhow::Context as _;
use network_simulator::{
    args::{Replay, Run},
    scenario::Scenario,
    unfit,
    virtual_time::{
        BEGINNING_MS,
        compare::first_difference,
        counting::CountingNodes,
        history::{self, Start},
        record::{self, Outcome},
    },
};
use std::{path::Path, sync::Arc, time::Instant};

/// Runs a scenario, prints its table, judges its expectations.
pub fn run(args: &Run) -> anyhow::Result<bool> {
    let (mut scenario, text) = read_scenario(&args.scenario)?;
    scenario.network.seed = args.seed.unwrap_or(scenario.network.seed);
    scenario.network.epochs = args.epochs.unwrap_or(scenario.network.epochs);
    refuse(unfit::in_virtual_time(&scenario), &args.scenario)?;
    let scenario = Arc::new(scenario);
    let outcome = once(&scenario, BEGINNING_MS, &text, &args.ledger)?;
    say(outcome.summary.table().trim_end())?;
    let all_hold = judge(&scenario, &outcome.findings)?;
    if !outcome.over {
        say("FAIL the scenario did not come to its end: does the chain wait for a start that no step says?")?;
    }
    Ok(all_hold && outcome.over)
}

/// Runs it again and compares with what is there, or with another run.
pub fn replay(args: &Replay) -> anyhow::Result<bool> {
    let again = tempfile::tempdir().context("a directory for the second run")?;
    let first = tempfile::tempdir().context("a directory for the first run")?;
    let (one, start, text) = if args.history.is_dir() {
        let (start, text) = history::read_start(&args.history)?;
        (args.history.as_path(), start, text)
    } else {
        let (scenario, text) = read_scenario(&args.history)?;
        let start = Start {
            seed: scenario.network.seed,
            epochs: scenario.network.epochs,
            started_ms: BEGINNING_MS,
        };
        (first.path(), start, text)
    };
    let mut scenario = parse(&text, &args.history)?;
    scenario.network.seed = args.seed.unwrap_or(start.seed);
    scenario.network.epochs = start.epochs;
    refuse(unfit::in_virtual_time(&scenario), &args.history)?;
    let scenario = Arc::new(scenario);
    if !args.history.is_dir() {
        once(&scenario, start.started_ms, &text, one)?;
    }
    once(&scenario, start.started_ms, &text, again.path())?;
    match first_difference(one, again.path())? {
        None => say("the same history, byte for byte")?,
        Some(difference) => {
            say(&format!("another history: {difference}"))?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn once(scenario: &Arc<Scenario>, started_ms: u64, text: &str, directory: &Path) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let (mut driver, mut nodes) = CountingNodes::registered(scenario, started_ms);
    let outcome = record::run(&mut driver, &mut nodes, directory, text)?;
    let seconds = began.elapsed().as_secs_f64();
    let epochs = driver.net().latest_epoch();
    say(&format!(
        "seed {}: {} blocks, {epochs} epochs, {} exams, {:.1} days in {seconds:.2} s: {:.0} epochs/s{}",
        scenario.network.seed,
        driver.net().height(),
        outcome.summary.exams,
        (driver.now_ms() - started_ms) as f64 / 86_400_000.0,
        epochs as f64 / seconds.max(0.001),
        peak(),
    ))?;
    Ok(outcome)
}

/// Most memory that this process ever had, where the system says so.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map(|peak| format!(", at most {}", peak.trim()))
        .unwrap_or_default()
}
