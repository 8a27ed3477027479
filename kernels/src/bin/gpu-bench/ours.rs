//! Observe: our batches, timed by the device: the round as an exam runs it, and parts of it.

use crate::{Failure, model::Model};
use kernels::{
    cuda::{
        CudaPrefillV2,
        bench::samples::Series,
        device::Span,
        driver::{Gpu, Options},
        plan::Part,
    },
    scheme::{self, Feed, Round, Scheme as _},
};
use std::time::{Duration, Instant};

/// Opens the GPU, and only the kind that is asked for: figures of the simulated driver are none.
pub(crate) fn open(simulated: bool) -> Result<Gpu, Failure> {
    let gpu = Gpu::open(&Options::default())?;
    match (gpu.is_simulated(), simulated) {
        (true, false) => Err("this is the simulated driver: its times are a CPU's, and nothing is measured".into()),
        (false, true) => Err("--simulated is for the simulated driver, and this is a GPU".into()),
        _ => Ok(gpu),
    }
}

/// Any round of a length: what is measured does not depend on its texts.
pub(crate) fn round(seq_len: usize) -> Round {
    Round {
        block_hash: "C0DE".repeat(16),
        public_key: "02".repeat(33),
        seq_len,
        k_dim: 12,
        stronger_rng: false,
    }
}

/// A model on the GPU, and which part of its batches is run.
pub(crate) struct Ours {
    scheme: CudaPrefillV2,
    round: Round,
    part: Part,
    nonces: usize,
    operations: f64,
    bytes: u64,
}

/// A number of batches, or until a stop.
struct Counted {
    asked: i64,
    left: usize,
    /// The batch whose delivery is the moment of a stop.
    stop_at: Option<usize>,
    delivered: usize,
    stopped: Option<Instant>,
    not_finite: u32,
}

impl Counted {
    const fn new(batches: usize, stop_at: Option<usize>) -> Self {
        Self {
            asked: 0,
            left: batches,
            stop_at,
            delivered: 0,
            stopped: None,
            not_finite: 0,
        }
    }
}

impl Feed for Counted {
    fn next(&mut self, most: usize) -> Option<Vec<i64>> {
        self.left = self.left.checked_sub(1)?;
        let nonces = (self.asked..self.asked + most as i64).collect();
        self.asked += most as i64;
        Some(nonces)
    }

    fn done(&mut self, batch: scheme::Batch) -> bool {
        self.not_finite += batch.rejected_non_finite;
        if self.stop_at == Some(self.delivered) {
            self.stopped = Some(Instant::now());
            return false;
        }
        self.delivered += 1;
        true
    }
}

impl Ours {
    pub(crate) fn new(scheme: &CudaPrefillV2, round: Round, part: Part) -> Result<Self, Failure> {
        let (batch, ledger) = scheme.cost(&round)?;
        Ok(Self {
            scheme: scheme.clone(),
            round,
            part,
            nonces: batch.nonces,
            operations: ledger.operations,
            // Of a part nobody counts them.
            bytes: match part {
                Part::Whole => ledger.launch_bytes + ledger.gemm_bytes,
                _ => 0,
            },
        })
    }

    /// What batches of it are, for its samples.
    pub(crate) const fn series(&self, turns: Vec<Vec<f64>>) -> Series {
        Series {
            nonces: self.nonces,
            operations: self.operations,
            bytes: self.bytes,
            turns,
        }
    }

    /// Batches in a row, as the device timed them.
    pub(crate) fn run(&self, batches: usize) -> Result<Vec<Span>, String> {
        self.scheme.watch(true);
        if self.part == Part::Whole {
            self.compute(&mut Counted::new(batches, None))?;
        } else {
            self.scheme
                .run_part(&self.round, self.part, batches)
                .map_err(|error| error.to_string())?;
        }
        let spans = self.scheme.spans();
        if spans.len() == batches {
            Ok(spans)
        } else {
            Err(format!("the device timed {} batches of {batches}", spans.len()))
        }
    }

    fn compute(&self, feed: &mut Counted) -> Result<(), String> {
        let ended = self
            .scheme
            .prepare(&self.round)
            .and_then(|mut prepared| prepared.run(feed));
        ended.map_err(|error| chain(&error))?;
        match feed.not_finite {
            0 => Ok(()),
            count => Err(format!("{count} artifacts were not finite")),
        }
    }

    /// A round that is stopped when its batch of this number is there and not yet delivered, the worst moment: that one is lost and the one behind it.
    pub(crate) fn stop(&self, at: usize) -> Result<Stop, String> {
        self.scheme.watch(true);
        let mut feed = Counted::new(at + 8, Some(at));
        self.compute(&mut feed)?;
        let took = feed.stopped.ok_or("the round ended before the stop")?.elapsed();
        let lost = self
            .scheme
            .spans()
            .iter()
            .skip(at)
            .map(|span| f64::from(span.ran))
            .sum();
        Ok(Stop { lost, took })
    }
}

/// What a stop cost.
pub(crate) struct Stop {
    /// Milliseconds of the device for batches that nobody got.
    pub(crate) lost: f64,
    /// From the stop until the device was free.
    pub(crate) took: Duration,
}

fn chain(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// A model's round with its three parts.
pub(crate) fn parts(scheme: &CudaPrefillV2, model: &Model) -> Result<Vec<(&'static str, Ours)>, Failure> {
    [
        ("ours", Part::Whole),
        ("products", Part::Products),
        ("prefill", Part::Prefill),
    ]
    .into_iter()
    .map(|(name, part)| Ok((name, Ours::new(scheme, round(model.seq_len), part)?)))
    .collect()
}
