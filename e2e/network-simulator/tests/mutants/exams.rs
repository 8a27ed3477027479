//! What hosts are asked to compute, and the ledger of what they delivered: three exams of one host, one for each number type,
//! kind of model, kind of seed and generator of inputs.

use anyhow::{Context as _, Result, ensure};
use kernels::{nonces::Enumeration, scheme::Round};
use network_simulator::{
    ledger::{
        ArtifactLine, Commit, Exam, Host, Ledger, Model as LedgerModel, Node, Physical, StatTest, Vote,
        files::{self, ArtifactsFile},
    },
    scenario::{self, Model},
};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

use crate::workshop::Workshop;

/// Artifacts per exam.
const COUNT: u64 = 40;
const PUBLIC_KEY: &str = "02feedface00112233445566778899aabbccddeeff00112233445566778899aabb";
const SEED: &str = "C0DEC0DE00112233445566778899AABBCCDDEEFF0123456789ABCDEF01234567";
const NETWORK: &str = "
version: 1
models:
  - {id: m/tiny_llama_dense, recipe: tiny_llama_dense, seqLen: 16, dtype: F32, statTest: {dist_milli: 20, p_mismatch_bp: 1000, p_value_threshold_bp: 100}}
  - {id: m/tiny_qwen3_dense, recipe: tiny_qwen3_dense, seqLen: 16, dtype: BF16, statTest: {dist_milli: 30, p_mismatch_bp: 1000, p_value_threshold_bp: 100}}
  - {id: m/tiny_qwen3_moe, recipe: tiny_qwen3_moe, seqLen: 16, dtype: F32, statTest: {dist_milli: 20, p_mismatch_bp: 1000, p_value_threshold_bp: 100}}
hosts: [{name: host, driver: external}]
";

/// An exam and what a host delivered in it.
#[derive(Debug)]
pub struct Sat {
    pub model: Model,
    pub round: Round,
    pub delivery: Delivery,
}

/// What `poc-host` prints.
#[derive(Debug, Deserialize)]
pub struct Delivery {
    pub artifacts: Vec<Delivered>,
    pub root: String,
}

#[derive(Debug, Deserialize)]
pub struct Delivered {
    pub nonce: i32,
    pub vector_b64: String,
    pub proof: Vec<String>,
}

/// Has the copy's host sit every exam.
pub fn sit(workshop: &Workshop) -> Result<Vec<Sat>> {
    let network = scenario::parse(NETWORK).context("the network of the mutants")?;
    let share = Enumeration::new(1, 2, 0, 1).context("the share of the host")?;
    (0..)
        .zip(network.models)
        .map(|(index, model)| {
            let round = Round {
                block_hash: if index == 1 {
                    SEED.to_lowercase()
                } else {
                    SEED.to_owned()
                },
                public_key: PUBLIC_KEY.to_owned(),
                seq_len: model.seq_len,
                k_dim: model.k_dim,
                stronger_rng: index == 1,
            };
            let order = json!({
                "recipe": model.recipe.name(), "tag": model.tag, "dtype": model.dtype, "round": round, "share": share,
                "count": COUNT,
            });
            let output = workshop.run("poc-host", &[], order.to_string().as_bytes())?;
            ensure!(
                output.status.success(),
                "poc-host: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let delivery = serde_json::from_slice(&output.stdout).context("what poc-host printed")?;
            Ok(Sat { model, round, delivery })
        })
        .collect()
}

/// Writes the ledger a network would have kept that took everything it was sent.
pub fn keep(workshop: &Workshop, sat: &[Sat]) -> Result<()> {
    let models = sat
        .iter()
        .map(|sat| (sat.model.id.clone(), model(&sat.model)))
        .collect();
    let (mut exams, mut artifacts) = (Vec::new(), Vec::new());
    for (index, sat) in (0..).zip(sat) {
        let name = format!("exam-{index}.jsonl");
        exams.push(exam(index, sat, &name));
        artifacts.push(ArtifactsFile {
            lines: sat
                .delivery
                .artifacts
                .iter()
                .map(|made| line(made, start_of(index)))
                .collect(),
            name,
        });
    }
    let ledger = Ledger {
        version: 1,
        seed: 1,
        chain_id: "gonka-mutants-1".to_owned(),
        network_version: "v0.2.14".to_owned(),
        physical: Physical::Delivered,
        parameters: json!({}),
        models,
        exams,
        epochs: Vec::new(),
        external_requests: Vec::new(),
        external_requests_left_out: 0,
    };
    files::write(&workshop.ledger(), &ledger, &artifacts).context("the ledger")
}

fn model(model: &Model) -> LedgerModel {
    LedgerModel {
        recipe: model.recipe.name(),
        tag: model.tag.clone(),
        seq_len: model.seq_len,
        k_dim: model.k_dim,
        dtype: model.dtype.to_string(),
        stat_test: StatTest {
            dist_threshold: f64::from(model.stat_test.dist_milli) / 1000.0,
            p_mismatch: f64::from(model.stat_test.p_mismatch_bp) / 10_000.0,
            fraud_threshold: f64::from(model.stat_test.p_value_threshold_bp) / 10_000.0,
        },
        weight_scale_factor: json!("1"),
    }
}

fn exam(index: i64, sat: &Sat, artifacts_file: &str) -> Exam {
    let confirmation = sat.round.stronger_rng;
    let start_height = start_of(index);
    let made = sat.delivery.artifacts.len() as u64;
    Exam {
        kind: if confirmation { "Confirmation" } else { "Sprint" },
        epoch: 2,
        start_height,
        trigger_height: if confirmation { start_height - 2 } else { 0 },
        seed: sat.round.block_hash.clone(),
        photo_height: start_height + 3,
        stronger_rng: sat.round.stronger_rng,
        time_norm_bp: 10_000,
        total_voting_power: 1,
        weight_scales: BTreeMap::new(),
        hosts: vec![Host {
            name: "host".to_owned(),
            address: "gonka1mutant".to_owned(),
            public_key: sat.round.public_key.clone(),
            preserved: Vec::new(),
            nodes: vec![Node {
                node_id: "a".to_owned(),
                node_num: 1,
                node_count: 2,
                model: sat.model.id.clone(),
                requests: Vec::new(),
                first_callback_ms: None,
                accepted: made,
                committed: made,
                carried_weight: 0,
                physically_available_weight: made,
            }],
            commits: vec![Commit {
                height: start_height + 5,
                model: sat.model.id.clone(),
                count: made as u32,
                root: sat.delivery.root.clone(),
            }],
            early_count: 0,
            early_median_ratio_bp: None,
            artifacts_file: artifacts_file.to_owned(),
            votes: vec![Vote {
                validator: "gonka1other".to_owned(),
                value: 1,
                power: 1,
            }],
            voting_power: 1,
            expected_weight: None,
            ratio_bp: 10_000,
            weight: made,
            physically_available_weight: made,
            attainable_weight: made,
            lost_ngonka: "0".to_owned(),
        }],
    }
}

/// Height of an exam's first block.
fn start_of(index: i64) -> i64 {
    100 * (index + 1)
}

fn line(made: &Delivered, start_height: i64) -> ArtifactLine {
    ArtifactLine {
        nonce: made.nonce,
        node_num: 1,
        vector_b64: made.vector_b64.clone(),
        height: start_height + 2,
        in_commit: true,
        commit_height: None,
    }
}

/// Models by id, as the validators know them.
pub fn models(sat: &[Sat]) -> BTreeMap<String, Model> {
    sat.iter()
        .map(|sat| (sat.model.id.clone(), sat.model.clone()))
        .collect()
}
