//! The scheme over a device: a model that is resident, whatever its program, and the rounds it is asked for.

mod engine;

pub use engine::NOT_FINITE_IN_A_ROW;

use self::engine::Engine;
use super::{
    Device, Error, MAX_K_DIM, MAX_SEQ_LEN,
    plan::{Batch, Plan},
    weights::Put,
};
use crate::scheme::{self, Artifact, Feed, Prepared, Round, StatTest, Verdict, compare, received_nonces};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an engine runs: a model's plans, and what a round needs beside seeds.
pub(super) trait Program: Send {
    /// Width of the hidden state.
    fn hidden(&self) -> usize;
    /// Decoder layers.
    fn layers(&self) -> usize;
    /// Bytes of the weights.
    fn weight_bytes(&self) -> u64;
    /// What a batch runs, or why none can.
    fn plan(&self, batch: Batch) -> Result<Plan, Error>;
    /// Cosines and sines of the rotary embedding by position.
    fn angles(&self, positions: usize) -> Vec<(f32, f32)>;
}

/// A model on a device.
#[derive(Clone)]
pub(super) struct Resident {
    hidden: usize,
    engine: Arc<Mutex<Engine>>,
}

impl Resident {
    /// Makes room for weights and for batches of `nonces` of `seq_len` tokens, then has `fill` bring the weights.
    pub(super) fn load(
        device: Box<dyn Device>,
        program: Box<dyn Program>,
        fill: &dyn Fn(&mut Put<'_>) -> Result<(), Error>,
        nonces: usize,
        seq_len: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            hidden: program.hidden(),
            engine: Arc::new(Mutex::new(Engine::load(device, program, fill, nonces, seq_len)?)),
        })
    }

    /// Alone with it.
    pub(super) fn engine(&self) -> MutexGuard<'_, Engine> {
        lock(&self.engine)
    }

    pub(super) fn free_bytes(&self) -> Result<u64, Error> {
        lock(&self.engine).device.free_bytes()
    }

    pub(super) fn weights_digest(&self) -> String {
        lock(&self.engine).weights_digest.clone()
    }

    /// Preparing only looks at the request: the device may be at another round, which ends when this one begins.
    pub(super) fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, scheme::Error> {
        scheme::check(round, self.hidden)?;
        if round.seq_len > MAX_SEQ_LEN || round.k_dim > MAX_K_DIM {
            return Err(scheme::Error::Device(Error::Round {
                seq_len: round.seq_len,
                k_dim: round.k_dim,
            }));
        }
        Ok(Box::new(CudaRound {
            round: round.clone(),
            engine: Arc::clone(&self.engine),
        }))
    }
}

/// A panic while the lock was held leaves device memory as it was: the next batch overwrites it.
fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

struct CudaRound {
    round: Round,
    engine: Arc<Mutex<Engine>>,
}

impl Prepared for CudaRound {
    fn generate(&mut self, nonces: &[i64]) -> Result<scheme::Batch, scheme::Error> {
        let mut listed = Listed {
            nonces,
            done: scheme::Batch::default(),
        };
        self.run(&mut listed)?;
        Ok(listed.done)
    }

    fn run(&mut self, feed: &mut dyn Feed) -> Result<(), scheme::Error> {
        let mut engine = lock(&self.engine);
        engine.begin(&self.round).map_err(scheme::Error::Device)?;
        engine.run(feed).map_err(scheme::Error::Device)
    }

    fn validate(&mut self, received: &[Artifact], test: &StatTest) -> Result<Verdict, scheme::Error> {
        let nonces = received_nonces(received, test)?;
        let computed = self.generate(&nonces)?.artifacts;
        Ok(compare(computed, received, test))
    }
}

/// Given nonces, and what became of them.
struct Listed<'a> {
    nonces: &'a [i64],
    done: scheme::Batch,
}

impl Feed for Listed<'_> {
    fn next(&mut self, most: usize) -> Option<Vec<i64>> {
        let (next, rest) = self.nonces.split_at(most.min(self.nonces.len()));
        self.nonces = rest;
        (!next.is_empty()).then(|| next.to_vec())
    }

    fn done(&mut self, batch: scheme::Batch) -> bool {
        self.done.artifacts.extend(batch.artifacts);
        self.done.rejected_non_finite += batch.rejected_non_finite;
        true
    }
}
