//! The three who look at what a host with a mistake delivers, each by its own means.

use crate::{
    exams::{self, Sat},
    workshop::{Workshop, command},
};
use anyhow::{Context as _, Result, bail};
use kernels::{artifact, commitment::Proof, scheme::Artifact, statistics::StatTest};
use network_simulator::{
    compute,
    event::{Event, Work},
};
use std::{collections::BTreeSet, sync::mpsc};

/// What each of them rejected; empty = it was content.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files of published vectors.
    pub vectors: BTreeSet<String>,
    /// Checks of the verifier.
    pub verifier: BTreeSet<String>,
    /// What validators vote against.
    pub validators: BTreeSet<String>,
}

/// Asks all three about what is built now.
pub fn ask(workshop: &Workshop) -> Result<Found> {
    let vectors = vectors(workshop)?;
    let sat = exams::sit(workshop)?;
    exams::keep(workshop, &sat)?;
    Ok(Found {
        vectors,
        verifier: verifier(workshop)?,
        validators: validators(&sat)?,
    })
}

fn vectors(workshop: &Workshop) -> Result<BTreeSet<String>> {
    let output = workshop.run("poc-vectors", &[&workshop.vectors()], &[])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("FAILED"))
        .filter_map(|rest| rest.trim().split(".json").next())
        .map(str::to_owned)
        .collect();
    if failed.is_empty() == output.status.success() {
        Ok(failed)
    } else {
        bail!("poc-vectors ended with {} and printed\n{text}", output.status)
    }
}

fn verifier(workshop: &Workshop) -> Result<BTreeSet<String>> {
    let output = command("/usr/bin/python3")
        .arg(workshop.repository().join("e2e/verify.py"))
        .arg(workshop.ledger())
        .args(["--sample", "0"])
        .output()
        .context("verify.py cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("FAIL "))
        .filter_map(|rest| rest.split(':').next())
        .map(|check| check.trim().to_owned())
        .collect();
    match output.status.code() {
        Some(0) if failed.is_empty() => Ok(failed),
        Some(1) if !failed.is_empty() => Ok(failed),
        code => bail!(
            "verify.py ended with {code:?} and printed\n{text}{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// Honest validators: the sample of each exam recomputed by the simulated network's own thread, and each artifact's proof
/// checked against the committed root, as the network does before it recomputes.
fn validators(sat: &[Sat]) -> Result<BTreeSet<String>> {
    let (report, reports) = mpsc::channel();
    let models = exams::models(sat).into_values().collect();
    let work = compute::start(models, move |event| {
        // Whoever asked has its answer or is gone.
        let _ = report.send(event);
    })?;
    let mut against = BTreeSet::new();
    for sat in sat {
        let sample = sample(sat)?;
        if !proven(sat, &sample)? {
            against.insert("proof".to_owned());
        }
        let test = &sat.model.stat_test;
        let asked = Work::Judge {
            exam: 1,
            host: 0,
            model: sat.model.id.clone(),
            round: sat.round.clone(),
            sample,
            test: StatTest {
                dist_threshold: f64::from(test.dist_milli) / 1000.0,
                p_mismatch: f64::from(test.p_mismatch_bp) / 10_000.0,
                fraud_threshold: f64::from(test.p_value_threshold_bp) / 10_000.0,
            },
        };
        work.send(asked).context("the validators are gone")?;
        let Event::Judged { fraud, .. } = reports.recv().context("the validators say nothing")? else {
            bail!("the validators say something else");
        };
        if fraud {
            against.insert(sat.model.recipe.name().to_owned());
        }
    }
    Ok(against)
}

fn sample(sat: &Sat) -> Result<Vec<Artifact>> {
    let read = |text: &str| artifact::from_base64(text).context("an artifact is not base64");
    sat.delivery
        .artifacts
        .iter()
        .map(|made| {
            Ok(Artifact {
                nonce: i64::from(made.nonce),
                vector: read(&made.vector_b64)?,
            })
        })
        .collect()
}

fn proven(sat: &Sat, sample: &[Artifact]) -> Result<bool> {
    let root: [u8; 32] = hex::decode(&sat.delivery.root)?
        .try_into()
        .ok()
        .context("a root has 32 bytes")?;
    let count = sample.len() as u32;
    for (made, item) in sat.delivery.artifacts.iter().zip(sample) {
        let elements = made.proof.iter().map(hex::decode).collect::<Result<Vec<_>, _>>()?;
        let proof = Proof::from_elements(elements.iter().map(Vec::as_slice)).context("a proof is malformed")?;
        if !proof.verify(root, count, made.nonce, &item.vector) {
            return Ok(false);
        }
    }
    Ok(true)
}
