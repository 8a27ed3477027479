//! A run from its plan to its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use network_simulator::virtual_time::{BEGINNING_MS, Driver};
use serde::Serialize;

use super::Fleet;
use crate::agenda::Event;
use crate::check::machines::Machines;
use crate::check::{Rule, Violation, weight};
use crate::operator::Controller;
use crate::plan::{Error, Plan};
use crate::table::Row;

/// An exam that lost more than this share of what was there, thousandths, is looked at.
pub const TOLERANCE_PERMILLE: u64 = 20;

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Digest of the history, of every exam, and of everything that happened in the network.
    pub digest: String,
    /// Lines of the history.
    pub lines: u64,
    /// Epochs the network went through.
    pub epochs: u64,
    /// Blocks.
    pub blocks: i64,
    /// Writes of the operator.
    pub writes: u64,
    /// Passes of each controller.
    #[serde(skip)]
    pub passes: BTreeMap<Controller, u64>,
    /// Looks at a fleet at rest, deletions the gate was asked about, exams looked for among the records, evictions refused.
    pub looks: [u64; 4],
    /// What was done to machines.
    pub machines: Machines,
    /// Exams.
    pub exams: Vec<Row>,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Newest lines of the history.
    #[serde(skip)]
    pub newest: Vec<String>,
}

/// Runs a plan to its end. `strict`: an exam that lost weight is a violation.
pub fn run(plan: &Plan, strict: bool) -> Result<Outcome, Error> {
    run_with(plan, strict, |_| {})
}

/// The same, with a look at the fleet before it begins.
pub fn run_with(plan: &Plan, strict: bool, prepare: impl FnOnce(&mut Fleet)) -> Result<Outcome, Error> {
    let scenario = Arc::new(plan.scenario()?);
    let mut driver = Driver::new(scenario.clone(), BEGINNING_MS);
    let mut fleet = Fleet::new(plan, &scenario);
    prepare(&mut fleet);
    fleet.begin(&mut driver.door(), plan);
    let mut exams = Vec::new();
    let mut epoch = 0;
    let mut saves = 0;
    while !driver.is_over() && driver.step(&mut fleet) {
        if driver.saves() != saves {
            saves = driver.saves();
            collect(&mut driver, &mut fleet, &mut exams);
        }
        let latest = driver.net().latest_epoch();
        if latest != epoch {
            epoch = latest;
            // A soak must not grow without bound: nobody here reads what was settled.
            drop(driver.take_epochs());
        }
        if driver.net().height() >= rest_height(&driver) && !fleet.rest_asked(epoch) {
            let mut door = driver.door();
            fleet
                .ground
                .agenda
                .after(&mut door, 1, Event::RestCheck { again: false });
        }
    }
    collect(&mut driver, &mut fleet, &mut exams);
    Ok(finish(&driver, fleet, exams, strict))
}

/// A height of each epoch at which nothing is due: shortly before confirmations may not begin any more.
fn rest_height(driver: &Driver) -> i64 {
    let net = driver.net();
    let (first, last) = net.lengths().confirmation_triggers(net.latest_epoch());
    first + (last - first).max(0) / 2
}

/// Exams that ended since the last look.
fn collect(driver: &mut Driver, fleet: &mut Fleet, exams: &mut Vec<Row>) {
    let net = driver.net();
    let Some(address) = net.hosts.get(net.ours).map(|host| host.address.clone()) else {
        return;
    };
    let seen = exams.len();
    let taken = driver.take_exams();
    exams.extend(taken.iter().filter_map(|exam| Row::of(exam, &address)));
    for row in exams.iter_mut().skip(seen) {
        fleet.meanwhile(row);
    }
    let door = driver.door();
    fleet.check_records(&door, exams);
}

fn finish(driver: &Driver, mut fleet: Fleet, exams: Vec<Row>, strict: bool) -> Outcome {
    let now_ms = i64::try_from(driver.now_ms()).unwrap_or(i64::MAX);
    for row in weight::broken(&exams) {
        let what = format!(
            "{} {} came to {} of {} attainable, less {} of margin and {} of reaction ({})",
            row.kind,
            row.height,
            row.weight,
            row.attainable,
            row.margin,
            row.reaction,
            row.during.join(", ")
        );
        fleet.ground.checks.violated(now_ms, Rule::Weight, what);
    }
    if strict {
        for row in &exams {
            if row.permille() + TOLERANCE_PERMILLE < 1000 {
                let what = format!(
                    "{} {} came to {} of {}",
                    row.kind, row.height, row.weight, row.available
                );
                fleet.ground.checks.violated(now_ms, Rule::Weight, what);
            }
        }
    }
    for row in &exams {
        let line = serde_json::to_string(row).unwrap_or_default();
        fleet.ground.history.note(now_ms, &line);
    }
    fleet
        .ground
        .history
        .note(now_ms, &format!("network {:016x}", driver.trace()));
    let checks = fleet.ground.checks;
    Outcome {
        digest: fleet.ground.history.digest(),
        lines: fleet.ground.history.len(),
        epochs: driver.net().latest_epoch(),
        blocks: driver.net().height(),
        writes: checks.writes,
        passes: checks.passes,
        looks: [checks.rests, checks.deletions, checks.recorded, checks.evictions],
        machines: checks.machines,
        exams,
        violations: checks.violations,
        newest: fleet.ground.history.newest().cloned().collect(),
    }
}
