//! The demo's last page: one line per slot and exam, from the operator's records and the independent verifier's findings.

use std::path::Path;

use anyhow::{Context as _, Result};
use crds::SprintRun;
use crds::sprint_run::SlotRecord;
use serde_json::Value;

use super::repository;
use crate::harness::process::Cmd;

/// What the verifier found.
#[derive(Debug)]
pub struct Verified {
    /// Whether every check passed.
    pub passed: bool,
    /// What it printed.
    pub text: String,
    /// Its findings as JSON.
    pub findings: Value,
}

/// Runs the independent verifier over a ledger, comparing with the published vectors where they apply.
pub async fn verify(ledger: &Path) -> Result<Verified> {
    let json = ledger.join("verified.json");
    let root = repository();
    let finished = Cmd::new("/usr/bin/python3")
        .args([root.join("e2e/verify.py").as_os_str(), ledger.as_os_str()])
        .args([
            "--vectors".as_ref(),
            root.join("kernels/vectors").as_os_str(),
            "--json".as_ref(),
            json.as_os_str(),
        ])
        .finish()
        .await
        .context("the verifier did not run")?;
    let text =
        std::fs::read_to_string(&json).with_context(|| format!("the verifier wrote nothing: {}", finished.stderr))?;
    let findings = serde_json::from_str(&text).context("the verifier's findings are not JSON")?;
    Ok(Verified {
        passed: finished.status.success(),
        text: finished.stdout,
        findings,
    })
}

/// The table: slots of each record, the record's own figures on its first line.
pub fn table(runs: &[SprintRun], verified: &Verified) -> String {
    let header = [
        "EXAM",
        "SLOT",
        "MACHINE",
        "EXPECTED",
        "MEASURED",
        "ACCEPTED",
        "COMMITTED",
        "FIRST NONCE MS",
        "EARLY/MEDIAN",
        "VOTES",
        "WEIGHT",
        "GNK",
        "VERIFIER",
    ];
    let rows: Vec<Vec<String>> = runs.iter().flat_map(|run| exam_rows(run, verified)).collect();
    render(&header, &rows)
}

fn exam_rows(run: &SprintRun, verified: &Verified) -> Vec<Vec<String>> {
    let status = run.status.clone().unwrap_or_default();
    let exam = format!("{} {}", run.spec.kind, run.spec.poc_start_height);
    let early = status.early_share.map(|early| {
        format!(
            "{}/{}",
            early.own_basis_points,
            early.median_basis_points.unwrap_or_default()
        )
    });
    let votes = status.votes.map(|votes| format!("{}+ {}-", votes.valid, votes.invalid));
    let own = [
        early.unwrap_or_default(),
        votes.unwrap_or_default(),
        status.weight.map(|weight| weight.to_string()).unwrap_or_default(),
        status.reward_ngonka.as_deref().map(gnk).unwrap_or_default(),
    ];
    let mut slots = status.slots;
    slots.sort_by_key(|slot| slot.slot);
    slots
        .iter()
        .enumerate()
        .map(|(line, slot)| {
            let figures = if line == 0 {
                own.to_vec()
            } else {
                vec![String::new(); own.len()]
            };
            let mut row = slot_cells(&exam, slot);
            row.extend(figures);
            row.push(verdict(verified, &slot.node_id, run.spec.poc_start_height));
            row
        })
        .collect()
}

fn slot_cells(exam: &str, slot: &SlotRecord) -> Vec<String> {
    let count = |value: Option<i64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    vec![
        exam.to_owned(),
        slot.node_id.clone(),
        slot.node_name.clone().unwrap_or_default(),
        if slot.preserved {
            "preserved".to_owned()
        } else {
            count(slot.expected)
        },
        count(slot.measured),
        count(slot.accepted),
        count(slot.committed),
        count(slot.first_nonce_millis),
    ]
}

/// The verifier's verdict on one node in the exam of `height`.
fn verdict(verified: &Verified, node_id: &str, height: i64) -> String {
    let sections = verified.findings["sections"].as_array().into_iter().flatten();
    let node = sections
        .filter(|section| section["start_height"].as_i64() == Some(height))
        .filter_map(|section| section["nodes"].as_array())
        .flatten()
        .find(|node| node["node_id"] == node_id);
    node.and_then(|node| node["verdict"].as_str())
        .unwrap_or("not checked")
        .to_owned()
}

fn gnk(ngonka: &str) -> String {
    let padded = format!("{ngonka:0>10}");
    let (whole, fraction) = padded.split_at(padded.len() - 9);
    format!("{whole}.{}", &fraction[..3])
}

fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len())
            .chain([header[column].len()])
            .max()
            .unwrap_or_default()
    };
    let line = |cells: &[String]| -> String {
        let padded: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    std::iter::once(line(&header))
        .chain(rows.iter().map(|row| line(row)))
        .collect()
}
