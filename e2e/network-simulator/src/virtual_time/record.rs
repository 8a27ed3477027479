//! A whole run with everything it leaves behind: driver, outside and history together, and what is needed to judge the
//! scenario's expectations in the end.

use super::{
    Driver, Outside,
    facts::{self, HOUR_MS},
    history::{Error, History},
    summary::Summary,
};
use crate::{ledger, scenario::expect::Findings};
use std::path::Path;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub summary: Summary,
    pub findings: Findings,
    /// Whether it came to its end; a chain that stands still for ever never does.
    pub over: bool,
}

/// Runs a scenario to its end and writes its history.
pub fn run(driver: &mut Driver, outside: &mut dyn Outside, directory: &Path, scenario: &str) -> Result<Outcome, Error> {
    let mut history = History::begin(directory, driver, scenario)?;
    let mut outcome = Outcome {
        summary: Summary::default(),
        findings: Findings::new(&driver.net().scenario.expect),
        over: false,
    };
    let latest_ms = driver.latest_end_ms();
    let (mut hour_ms, mut saves) = (driver.net().started_ms + HOUR_MS, 0);
    while !driver.is_over() {
        let Some(next_ms) = driver.next_ms().filter(|next| *next <= latest_ms) else {
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
