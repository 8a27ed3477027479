//! Observe: batches in torch, of the reference's procedure (`kernels/bench/replica.py`) or of experts' products (`kernels/bench/experts.py`), in a
//! process that runs them when it is told to.

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
    /// What a batch of it is.
    of: Series,
    /// What torch said of itself.
    pub(crate) torch: String,
    /// What it computes with, where there is a choice.
    pub(crate) means: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Ready {
        torch: String,
        device: String,
        means: Option<String>,
    },
    Ran {
        milliseconds: Vec<f64>,
    },
    Not {
        reason: String,
    },
}

impl Replica {
    /// Starts it on a model; it must see the GPU of this name.
    pub(crate) fn of_model(wanted: &Measure, model: &Model, mode: &str, gpu: &str) -> Result<Self, String> {
        let shape = &model.shape;
        let fields = json!({
            "hidden": shape.hidden, "layers": shape.layers, "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim,
            "inter": shape.inner, "eps": shape.eps, "theta": shape.theta, "qk_norm": shape.qk_norm,
        });
        let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/v2_tiny_models.json");
        let (seq_len, nonces) = (model.seq_len.to_string(), model.replica_nonces.to_string());
        let mut command = Command::new(&wanted.python);
        command
            .arg(&wanted.replica)
            .args([
                "run",
                "--mode",
                mode,
                "--vectors",
                vectors,
                "--shape",
                &fields.to_string(),
            ])
            .args(["--seq-len", &seq_len, "--nonces", &nonces]);
        // The reference computes all rows of all layers.
        let of = Series {
            nonces: model.replica_nonces,
            operations: shape.operations(model.seq_len) * model.replica_nonces as f64,
            bytes: 0,
            turns: Vec::new(),
        };
        Self::start(wanted, command, of, gpu)
    }

    /// Starts `kernels/bench/experts.py` on grouped products of so many rows by expert; `of` is what a batch of them is.
    pub(crate) fn of_experts(
        wanted: &Measure,
        (hidden, inner): (usize, usize),
        counts: &[u32],
        (mode, of): (&str, Series),
        gpu: &str,
    ) -> Result<Self, String> {
        let fields = json!({ "hidden": hidden, "inner": inner, "counts": counts });
        let mut command = Command::new(&wanted.python);
        command
            .arg(&wanted.experts)
            .args(["run", "--mode", mode, "--shape", &fields.to_string()]);
        Self::start(wanted, command, of, gpu)
    }

    fn start(wanted: &Measure, mut command: Command, of: Series, gpu: &str) -> Result<Self, String> {
        let mut child = command
            .args(["--device", if wanted.simulated { "cpu" } else { "cuda" }])
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
            of,
            torch: String::new(),
            means: None,
        };
        match replica.answer()? {
            Answer::Ready { torch, device, means } if wanted.simulated || device == gpu => {
                (replica.torch, replica.means) = (torch, means);
            }
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

    /// Its samples.
    pub(crate) fn series(&self, turns: Vec<Vec<f64>>) -> Series {
        Series {
            turns,
            ..self.of.clone()
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
