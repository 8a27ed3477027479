//! The interface of a proof-of-compute scheme (`docs/poc-v2.md`, section 1): prepare a round, generate artifacts for
//! nonces, validate the artifacts of others.
//!
//! [`crate::prefill_v2`] is the scheme the network runs, [`crate::transformer_v1`] the retired one: its weights are seeded
//! by the block hash, a nonce counts only when its distance is below a target, so a batch may hold fewer artifacts
//! than nonces. The interface leaves room for `decode_v3` (announced: a prefill followed by chained
//! decode steps, one code point per step, so vectors are opaque bytes here and not numbers).

use crate::statistics;
pub use crate::statistics::StatTest;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use thiserror::Error;

/// Longest sequence a round may ask for.
pub const MAX_SEQ_LEN: usize = 65_536;

/// What all nonces of an exam have in common. Block hash and key are opaque text: their case is part of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// The seed of the exam: upper-case hex in a Sprint, lower-case hex in a confirmation.
    pub block_hash: String,
    /// The prover's public key, lower-case hex. A validator passes the prover's, not its own.
    pub public_key: String,
    /// Tokens per nonce.
    pub seq_len: usize,
    /// Numbers per artifact.
    pub k_dim: usize,
    /// Whether inputs come from the stronger generator ("concat_murmur").
    #[serde(default)]
    pub stronger_rng: bool,
}

/// The result of one nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Which nonce.
    pub nonce: i64,
    /// `k_dim` half-precision numbers, little-endian. What others sent may have any length.
    pub vector: Vec<u8>,
}

/// Artifacts in the order of the nonces asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// One per nonce that has a result.
    pub artifacts: Vec<Artifact>,
    /// Nonces left out because the model's output was not finite.
    pub rejected_non_finite: u32,
}

/// Outcome of comparing received artifacts with computed ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Nonces asked about: the trials of the binomial test.
    pub total: u32,
    /// Nonces whose vectors differ, in the order received.
    pub mismatch_nonces: Vec<i64>,
    /// Probability of at least so many mismatches under honesty.
    pub p_value: f64,
    /// Whether that is below the fraud threshold.
    pub fraud: bool,
    /// What was computed for the comparison.
    pub computed: Vec<Artifact>,
}

/// Why a scheme cannot do what it was asked.
#[derive(Debug, Error, PartialEq)]
pub enum Error {
    /// No token, or more than the scheme runs.
    #[error("round: seq_len is {0}: it must lie between 1 and {MAX_SEQ_LEN}")]
    SeqLen(usize),
    /// More coordinates than the model has, or none.
    #[error("round: k_dim is {k_dim}: it must lie between 1 and the model's width of {hidden}")]
    KDim {
        /// Coordinates asked for.
        k_dim: usize,
        /// Width of the model.
        hidden: usize,
    },
    /// Only the newer schemes know the stronger generator.
    #[error("round: stronger_rng is true: {0} has one generator only")]
    StrongerRng(&'static str),
    /// The same nonce was received more than once.
    #[error("validation: nonce {0} was received twice: send every nonce once")]
    DuplicateNonce(i64),
    /// The statistical test's parameters make no test.
    #[error("validation: the statistical test cannot be made")]
    StatTest(#[source] statistics::Error),
    /// The GPU that computes failed.
    #[error("GPU")]
    Device(#[source] crate::cuda::Error),
}

/// Refuses a round that a model of width `hidden` cannot compute.
pub fn check(round: &Round, hidden: usize) -> Result<(), Error> {
    if round.seq_len == 0 || round.seq_len > MAX_SEQ_LEN || round.seq_len * hidden > crate::rng::MAX_ELEMENTS {
        return Err(Error::SeqLen(round.seq_len));
    }
    if round.k_dim == 0 || round.k_dim > hidden {
        return Err(Error::KDim {
            k_dim: round.k_dim,
            hidden,
        });
    }
    Ok(())
}

/// The nonces of received artifacts, each once, for a test that can be made.
pub fn received_nonces(received: &[Artifact], test: &StatTest) -> Result<Vec<i64>, Error> {
    test.check().map_err(Error::StatTest)?;
    let mut seen = HashSet::new();
    let nonces: Vec<i64> = received.iter().map(|artifact| artifact.nonce).collect();
    match nonces.iter().find(|&&nonce| !seen.insert(nonce)) {
        Some(&twice) => Err(Error::DuplicateNonce(twice)),
        None => Ok(nonces),
    }
}

/// A scheme with its model.
pub trait Scheme: Send + Sync {
    /// Name on the wire, for example `prefill_v2`.
    fn name(&self) -> &'static str;

    /// Computes what all nonces of a round share. Cheap enough to be done when the exam is announced.
    fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, Error>;
}

/// A round ready to compute. Holds its own buffers: one per thread.
pub trait Prepared: Send {
    /// Artifacts of the given nonces.
    fn generate(&mut self, nonces: &[i64]) -> Result<Batch, Error>;

    /// Computes what a feed gives until it ends. What computes elsewhere than on the caller's thread takes the next nonces
    /// while those before are computed.
    fn run(&mut self, feed: &mut dyn Feed) -> Result<(), Error> {
        while let Some(nonces) = feed.next(1) {
            if !feed.done(self.generate(&nonces)?) {
                break;
            }
        }
        Ok(())
    }

    /// Recomputes the received nonces and tests the differences.
    fn validate(&mut self, received: &[Artifact], test: &StatTest) -> Result<Verdict, Error>;
}

/// Where a run's nonces come from, and where its artifacts go.
pub trait Feed {
    /// The next nonces, at most `most` and at least one. None: no more, or stop.
    fn next(&mut self, most: usize) -> Option<Vec<i64>>;

    /// Artifacts of nonces taken before, in their order. False: stop; what is computed still is dropped.
    fn done(&mut self, batch: Batch) -> bool;
}

/// Artifacts of the nonces in their order, computed by one thread per prepared round. The caller says how many cores it may
/// take; with one round nothing is spawned.
///
/// # Errors
/// The first error of a thread; nothing at all when `prepared` is empty.
pub fn generate_on(prepared: &mut [Box<dyn Prepared>], nonces: &[i64]) -> Result<Batch, Error> {
    if let [only] = prepared {
        return only.generate(nonces);
    }
    let share = nonces.len().div_ceil(prepared.len().max(1)).max(1);
    let parts: Vec<Result<Batch, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = prepared
            .iter_mut()
            .zip(nonces.chunks(share))
            .map(|(prepared, nonces)| scope.spawn(|| prepared.generate(nonces)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut whole = Batch::default();
    for part in parts {
        let part = part?;
        whole.artifacts.extend(part.artifacts);
        whole.rejected_non_finite += part.rejected_non_finite;
    }
    Ok(whole)
}

/// The comparison every scheme with vectors shares: counts mismatches among the nonces that were both received and
/// computed, and tests the count against all nonces received.
pub fn compare(computed: Vec<Artifact>, received: &[Artifact], test: &StatTest) -> Verdict {
    let total = received.len() as u32;
    let by_nonce: std::collections::HashMap<i64, &[u8]> = computed
        .iter()
        .map(|artifact| (artifact.nonce, artifact.vector.as_slice()))
        .collect();
    let mismatch_nonces: Vec<i64> = received
        .iter()
        .filter(|artifact| {
            by_nonce
                .get(&artifact.nonce)
                .is_some_and(|computed| test.mismatches(computed, &artifact.vector))
        })
        .map(|artifact| artifact.nonce)
        .collect();
    let (p_value, fraud) = test.judge(mismatch_nonces.len() as u32, total);
    Verdict {
        total,
        mismatch_nonces,
        p_value,
        fraud,
        computed,
    }
}
