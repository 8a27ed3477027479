//! Observe: batches of the reference's procedure in torch (`kernels/bench/replica.py`), in a process that runs them when it is told to.

#![expect(
    clippy::disallowed_methods,
    reason = "a program without async; every wait for the child has an end"
)]

use crate::{args::Measure, model::Model};
use kernels::cuda::bench::samples::Series;
use serde::Deserialize;
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

/// Longest wait for an answer: the first batches of a compiled model include its compilation.
const PATIENCE: Duration = Duration::from_secs(900);

/// The process.
pub(crate) struct Replica {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    /// What torch said of itself.
    pub(crate) torch: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Ready { torch: String, device: String },
    Ran { milliseconds: Vec<f64> },
    Not { reason: String },
}

impl Replica {
    /// Starts it on a model; it must see the GPU of this name.
    pub(crate) fn start(wanted: &Measure, model: &Model, mode: &str, gpu: &str) -> Result<Self, String> {
        let shape = &model.shape;
        let fields = json!({
            "hidden": shape.hidden, "layers": shape.layers, "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim,
            "inter": shape.inner, "eps": shape.eps, "theta": shape.theta, "qk_norm": shape.qk_norm,
        });
        let device = if wanted.simulated { "cpu" } else { "cuda" };
        let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/v2_tiny_models.json");
        let mut child = Command::new(&wanted.python)
            .arg(&wanted.replica)
            .args([
                "run",
                "--vectors",
                vectors,
                "--mode",
                mode,
                "--device",
                device,
                "--shape",
                &fields.to_string(),
            ])
            .args([
                "--seq-len",
                &model.seq_len.to_string(),
                "--nonces",
                &model.replica_nonces.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", wanted.python.display()))?;
        let (Some(orders), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the replica has no pipes".into());
        };
        let (tell, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut replica = Self {
            child,
            orders,
            answers,
            torch: String::new(),
        };
        match replica.answer()? {
            Answer::Ready { torch, device } if wanted.simulated || device == gpu => replica.torch = torch,
            Answer::Ready { device, .. } => return Err(format!("torch runs on {device}, and we on {gpu}")),
            Answer::Not { reason } => return Err(reason),
            Answer::Ran { .. } => return Err("the replica answered before it was asked".into()),
        }
        Ok(replica)
    }

    fn answer(&self) -> Result<Answer, String> {
        let line = self
            .answers
            .recv_timeout(PATIENCE)
            .map_err(|error| format!("the replica does not answer: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("the replica said {line:?}: {error}"))
    }

    /// Batches in a row, milliseconds each.
    pub(crate) fn run(&mut self, batches: usize) -> Result<Vec<f64>, String> {
        writeln!(self.orders, "{}", json!({ "batches": batches }))
            .and_then(|()| self.orders.flush())
            .map_err(|error| format!("the replica is gone: {error}"))?;
        match self.answer()? {
            Answer::Ran { milliseconds } if milliseconds.len() == batches => Ok(milliseconds),
            Answer::Not { reason } => Err(reason),
            _ => Err(format!("the replica did not run {batches} batches")),
        }
    }

    /// What batches of it are, for its samples: the reference computes all rows of all layers.
    pub(crate) fn series(model: &Model, turns: Vec<Vec<f64>>) -> Series {
        Series {
            nonces: model.replica_nonces,
            operations: model.shape.operations(model.seq_len) * model.replica_nonces as f64,
            turns,
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
