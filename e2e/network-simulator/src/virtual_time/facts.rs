//! The network at a full hour: a line that a reader of a long run can go by, and a second look for whoever compares two.

use super::Driver;
use crate::{dapi::Status, time};
use serde::Serialize;
use std::collections::BTreeMap;

/// Between two lines.
pub const HOUR_MS: u64 = 3_600_000;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    pub at: String,
    pub height: i64,
    pub block_hash: String,
    pub latest_epoch: u64,
    pub effective_epoch: u64,
    pub phase: String,
    /// A Sprint or a confirmation runs.
    pub exam: bool,
    pub exams_done: u64,
    pub price_percent: u32,
    /// Our nodes by what DAPI thinks they do.
    pub nodes: BTreeMap<String, usize>,
    pub faults: Vec<String>,
    pub hosts: Vec<Host>,
    /// Of everything that happened so far, in its order: histories that differ anywhere differ here from then on.
    pub trace: String,
}

/// A host at that hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    pub name: String,
    pub weight: u64,
    pub ratio_bp: u64,
    pub balance_ngonka: String,
}

/// The facts as they are now, said to be those of `at_ms`.
pub fn at(driver: &Driver, at_ms: u64) -> Facts {
    let net = driver.net();
    let epoch = net.epoch(net.effective_epoch());
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    for node in &net.dapi.nodes {
        let status: Status = node.current.0;
        *nodes.entry(status.to_string()).or_default() += 1;
    }
    let hosts = net.hosts.iter().enumerate().map(|(index, host)| {
        let seat = epoch.and_then(|epoch| epoch.seats.get(&index));
        Host {
            name: host.name.clone(),
            weight: seat.map_or(0, |seat| seat.weight),
            ratio_bp: seat.map_or(0, |seat| seat.ratio_bp),
            balance_ngonka: host.balance.to_string(),
        }
    });
    let mut faults: Vec<String> = net.faults.shown().into_keys().collect();
    faults.extend(net.faults.chain_halts_at.map(|_| "chain".to_owned()));
    Facts {
        at: time::rfc3339(at_ms),
        height: net.height(),
        block_hash: driver
            .newest_block()
            .map(|block| block.hash.clone())
            .unwrap_or_default(),
        latest_epoch: net.latest_epoch(),
        effective_epoch: net.effective_epoch(),
        phase: net.lengths().phase(net.height()).to_string(),
        exam: net.exam.is_some(),
        exams_done: net.exams_started - u64::from(net.exam.is_some()),
        price_percent: net.faults.price_percent,
        nodes,
        faults,
        hosts: hosts.collect(),
        trace: format!("{:016x}", driver.trace()),
    }
}
