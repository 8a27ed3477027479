//! A whole run with everything it leaves behind: driver, outside and history together, and what is needed to judge the
//! scenario's expectations in the end.

use super::{
    Driver, Outside,
    facts::{self, HOUR_MS},
    history::{Error, History},
    summary::Summary,
};
use crate::{
    ledger,
    scenario::{Scenario, expect::Findings},
};
use std::path::Path;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub summary: Summary,
    pub findings: Findings,
    /// Whether it came to its end; a chain that stands still for ever never does.
    pub over: bool,
}

/// Runs a scenario to its end and writes its history. `limit_ms` is virtual time.
pub fn run(
    driver: &mut Driver,
    outside: &mut dyn Outside,
    directory: &Path,
    scenario: &str,
    limit_ms: u64,
) -> Result<Outcome, Error> {
    let mut history = History::begin(directory, driver, scenario)?;
    let mut outcome = Outcome {
        summary: Summary::default(),
        findings: Findings::new(&driver.net().scenario.expect),
        over: false,
    };
    let started_ms = driver.net().started_ms;
    let (mut hour_ms, mut saves) = (started_ms + HOUR_MS, 0);
    while !driver.is_over() {
        let Some(next_ms) = driver.next_ms().filter(|next| next - started_ms <= limit_ms) else {
            break;
        };
        while hour_ms < next_ms {
            history.hour(&facts::at(driver, hour_ms))?;
            hour_ms += HOUR_MS;
        }
        driver.step(outside);
        if driver.saves() > saves {
            saves = driver.saves();
            take(driver, &mut history, &mut outcome)?;
        }
    }
    outcome.over = driver.is_over();
    take(driver, &mut history, &mut outcome)?;
    let settled = driver.take_all_epochs();
    epochs(&settled, &mut history, &mut outcome)?;
    history.finish()?;
    Ok(outcome)
}

/// What a scenario without an end may take: its last epoch twice over.
pub fn limit_ms(scenario: &Scenario) -> u64 {
    let lengths = scenario.parameters.lengths;
    let blocks = lengths.poc_start(scenario.network.epochs + 2).max(1) as u64 * 2;
    blocks.saturating_mul(scenario.network.block_millis)
}

fn take(driver: &mut Driver, history: &mut History, outcome: &mut Outcome) -> Result<(), Error> {
    let exams = driver.take_exams();
    history.exams(&exams)?;
    for exam in exams {
        outcome.summary.exam(&exam);
        outcome.findings.exam(exam);
    }
    let settled = driver.take_epochs();
    epochs(&settled, history, outcome)
}

fn epochs(settled: &[ledger::Epoch], history: &mut History, outcome: &mut Outcome) -> Result<(), Error> {
    history.epochs(settled)?;
    for epoch in settled {
        outcome.summary.epoch(epoch);
        outcome.findings.epoch(epoch);
    }
    Ok(())
}
