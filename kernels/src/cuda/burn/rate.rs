//! Nonces a second of a fixed dense model, kept up for a while. Every batch has the nonces of the first and must give its bits.

use super::RESERVE;
use crate::{
    cuda::{
        CudaPrefillV2, Device, Error, Shape,
        weights::{Part, Source},
    },
    scheme::{self, Feed, Round, Scheme as _},
};
use half::bf16;
use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

/// The model that is run, by name: a threshold is of one of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Its name.
    pub name: &'static str,
    /// Its shape.
    pub shape: Shape,
    /// Tokens of a nonce.
    pub seq_len: usize,
}

impl Load {
    /// Of a GPU with so much memory. The small one is for the simulated GPUs of tests.
    pub fn of(total_bytes: u64) -> Self {
        let shape = |hidden, layers, heads, inner| Shape {
            hidden,
            layers,
            heads,
            kv_heads: heads / 2,
            head_dim: if hidden < 1024 { 16 } else { 128 },
            inner,
            eps: 1e-6,
            theta: 1e6,
            qk_norm: true,
        };
        if total_bytes >= 16 * RESERVE {
            Self {
                name: "dense-1024x4-s1024",
                shape: shape(1024, 4, 16, 3072),
                seq_len: 1024,
            }
        } else {
            Self {
                name: "dense-64x2-s16",
                shape: shape(64, 2, 4, 128),
                seq_len: 16,
            }
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// The model's name.
    pub load: &'static str,
    /// Nonces computed after the first batch.
    pub nonces: u64,
    /// Seconds that took.
    pub seconds: f64,
    /// Operations of a nonce.
    pub operations: f64,
    /// Batches whose artifacts were not those of the first to the bit.
    pub differing: u64,
    /// Nonces whose states were not finite.
    pub not_finite: u64,
}

impl Rate {
    /// Nonces a second.
    pub fn per_second(&self) -> f64 {
        self.nonces as f64 / self.seconds
    }

    /// 10¹² operations a second.
    pub fn teraflops(&self) -> f64 {
        self.per_second() * self.operations / 1e12
    }
}

/// Weights of the size that trained ones have, quick to make: a load needs no meaning, only numbers that are no zeros.
struct Noise;

impl Source for Noise {
    fn tensor(&self, part: &Part) -> Result<Cow<'_, [u8]>, Error> {
        let inner = part.shape.last().copied().unwrap_or(1).max(1);
        let scale = if part.shape.len() == 1 {
            0.0
        } else {
            (3.0 / inner as f32).sqrt()
        };
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ part.offset;
        let elements = part.bytes() / 2;
        Ok(Cow::Owned(
            (0..elements)
                .flat_map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let even = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
                    let weight = if scale == 0.0 { 1.0 } else { scale * even };
                    bf16::from_f32(weight).to_le_bytes()
                })
                .collect(),
        ))
    }
}

/// Hands out the same nonces until the time is over.
struct Repeated {
    nonces: Vec<i64>,
    first: Option<Vec<scheme::Artifact>>,
    begun: Option<Instant>,
    last: Option<Instant>,
    time: Duration,
    rate: Rate,
}

impl Feed for Repeated {
    fn next(&mut self, most: usize) -> Option<Vec<i64>> {
        if self.begun.is_some_and(|begun| begun.elapsed() >= self.time) {
            return None;
        }
        let count = self.nonces.len().min(most);
        Some(self.nonces[..count].to_vec())
    }

    fn done(&mut self, batch: scheme::Batch) -> bool {
        self.rate.not_finite += u64::from(batch.rejected_non_finite);
        let Some(first) = &self.first else {
            self.first = Some(batch.artifacts);
            self.begun = Some(Instant::now());
            return true;
        };
        self.rate.differing += u64::from(batch.artifacts != *first);
        self.rate.nonces += batch.artifacts.len() as u64;
        self.last = Some(Instant::now());
        true
    }
}

/// Loads the model; the time runs from its first batch on.
pub fn test(device: Box<dyn Device>, load: &Load, time: Duration) -> Result<Rate, Error> {
    let batch = load.shape.batch(load.seq_len);
    let scheme = CudaPrefillV2::load(device, load.shape.clone(), &Noise, batch, load.seq_len)?;
    let round = Round {
        block_hash: "B0".repeat(32),
        public_key: "burn-in".into(),
        seq_len: load.seq_len,
        k_dim: 12,
        stronger_rng: false,
    };
    let mut feed = Repeated {
        nonces: (0..batch as i64).collect(),
        first: None,
        begun: None,
        last: None,
        time,
        rate: Rate {
            load: load.name,
            nonces: 0,
            seconds: 0.0,
            operations: load.shape.operations(load.seq_len),
            differing: 0,
            not_finite: 0,
        },
    };
    scheme
        .prepare(&round)
        .and_then(|mut prepared| prepared.run(&mut feed))
        .map_err(|error| match error {
            scheme::Error::Device(error) => error,
            other => Error::Shape(other.to_string()),
        })?;
    if let (Some(begun), Some(last)) = (feed.begun, feed.last) {
        feed.rate.seconds = (last - begun).as_secs_f64();
    }
    Ok(feed.rate)
}
