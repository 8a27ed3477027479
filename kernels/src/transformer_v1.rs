//! Scheme `transformer_v1`: PoC v1 as the network ran it until February 2026 (`docs/poc-v1.md`). A transformer with weights
//! seeded by the block hash; a nonce counts only when its permuted, normalised output lies close enough to a seeded target,
//! so a batch holds fewer artifacts than nonces. An artifact is the distance, a little-endian double.

mod attention;
mod forward;
mod layer;
mod params;
mod pcg64;
mod permutation;
mod pool;
mod ziggurat;

pub use forward::{Forward, Output};
pub use params::{InvalidParams, Params, TensorSpec};
pub use pcg64::{Pcg64, entropy};
pub use permutation::permutation;
pub use pool::{Placement, Pool, Tensor, digest_halves, fill_halves, name_hash, stream};
pub use ziggurat::Normals;

pub use attention::rope;

use crate::{
    scheme::{Artifact, Batch, Error, Prepared, Round, Scheme, StatTest, Verdict},
    statistics,
};
use half::{f16, slice::HalfFloatSliceExt as _};
use std::{collections::HashSet, sync::Arc};

/// Name of the scheme on the wire.
pub const NAME: &str = "transformer_v1";
/// The target of the last v1 epochs: one nonce in fifty.
pub const R_TARGET: f64 = 1.398_077;
/// The reference's test of honesty: one invalid nonce in two thousand is expected.
pub const STAT_TEST: StatTest = StatTest {
    dist_threshold: R_TARGET,
    p_mismatch: 5e-4,
    fraud_threshold: 1e-7,
};

/// Seed string of a nonce's input: no underscore between `nonce` and the number.
pub fn input_seed(block_hash: &str, public_key: &str, nonce: i64) -> String {
    crate::seed::input(block_hash, public_key, nonce)
}

/// Seed string of a nonce's permutation: here an underscore stands between them.
pub fn permutation_seed(block_hash: &str, public_key: &str, nonce: i64) -> String {
    format!("{block_hash}_{public_key}_nonce_{nonce}_permutations")
}

/// The normals of a seed string and its number of digests.
pub fn normals(text: &str, hashes: usize) -> Normals {
    Normals::new(Pcg64::from_text(text, hashes))
}

/// Input embeddings of a nonce, row-major, in half precision.
pub fn input(block_hash: &str, public_key: &str, nonce: i64, out: &mut [f16]) {
    fill_halves(normals(&input_seed(block_hash, public_key, nonce), 4), 1.0, out);
}

/// The unit vector outputs are measured against: the same for every host and nonce.
pub fn target(block_hash: &str, vocab_size: usize) -> Vec<f64> {
    let mut target: Vec<f64> = normals(&format!("{block_hash}_target"), 1).take(vocab_size).collect();
    let length = target.iter().map(|x| x * x).sum::<f64>().sqrt();
    for x in &mut target {
        *x /= length;
    }
    target
}

/// Logits in the order of a nonce's permutation, scaled to length one.
pub fn permuted_unit(logits: &[f32], block_hash: &str, public_key: &str, nonce: i64) -> Vec<f32> {
    let generator = Pcg64::from_text(&permutation_seed(block_hash, public_key, nonce), 1);
    let length = crate::householder::norm(logits);
    permutation(generator, logits.len())
        .into_iter()
        .map(|index| logits[index as usize] / length)
        .collect()
}

/// Euclidean distance of a unit vector from the target, in double precision.
pub fn distance(unit: &[f32], target: &[f64]) -> f64 {
    let square = |(x, t): (&f32, &f64)| (f64::from(*x) - t).powi(2);
    unit.iter().zip(target).map(square).sum::<f64>().sqrt()
}

/// The distance an artifact holds; `None` for anything that is not eight bytes.
pub fn decode(vector: &[u8]) -> Option<f64> {
    vector.try_into().ok().map(f64::from_le_bytes)
}

/// The scheme with its parameters.
#[derive(Debug, Clone)]
pub struct TransformerV1 {
    params: Params,
    r_target: f64,
}

impl TransformerV1 {
    /// Nonces count when their distance is below `r_target`.
    pub fn new(params: Params, r_target: f64) -> Result<Self, InvalidParams> {
        params.check()?;
        if !(0.0..=2.0).contains(&r_target) {
            return Err(InvalidParams::Range("r_target"));
        }
        Ok(Self { params, r_target })
    }
}

impl Scheme for TransformerV1 {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Draws the pool: two bytes for every twentieth parameter, half a minute for the main network's. The round's `seq_len`
    /// must be that of the parameters, `k_dim` 1 (the distance).
    fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, Error> {
        if round.seq_len != self.params.seq_len {
            return Err(Error::SeqLen(round.seq_len));
        }
        if round.k_dim != 1 {
            return Err(Error::KDim {
                k_dim: round.k_dim,
                hidden: 1,
            });
        }
        if round.stronger_rng {
            return Err(Error::StrongerRng(NAME));
        }
        let pool = Pool::new(&round.block_hash, self.params.pool_len() as usize);
        Ok(Box::new(PreparedRound {
            forward: Forward::new(self.params.clone(), Arc::new(pool)),
            target: target(&round.block_hash, self.params.vocab_size),
            round: round.clone(),
            r_target: self.r_target,
        }))
    }
}

#[derive(Debug)]
struct PreparedRound {
    round: Round,
    r_target: f64,
    forward: Forward,
    target: Vec<f64>,
}

impl PreparedRound {
    /// The distance of each nonce, computed in groups that share the weights they need.
    fn distances(&mut self, nonces: &[i64]) -> Vec<f64> {
        let Round {
            block_hash, public_key, ..
        } = &self.round;
        let mut distances = Vec::with_capacity(nonces.len());
        for group in nonces.chunks(self.forward.group()) {
            let inputs = inputs(block_hash, public_key, group, self.forward.input_len());
            let output = self.forward.run(&inputs, &[]);
            for (logits, &nonce) in output.logits.chunks_exact(self.target.len()).zip(group) {
                let unit = permuted_unit(logits, block_hash, public_key, nonce);
                distances.push(distance(&unit, &self.target));
            }
        }
        distances
    }
}

/// Input embeddings of several nonces, widened, `len` elements each.
pub fn inputs(block_hash: &str, public_key: &str, nonces: &[i64], len: usize) -> Vec<f32> {
    let mut halves = vec![f16::ZERO; len];
    let mut inputs = vec![0.0; nonces.len() * len];
    for (out, &nonce) in inputs.chunks_exact_mut(len).zip(nonces) {
        input(block_hash, public_key, nonce, &mut halves);
        halves.convert_to_f32_slice(out);
    }
    inputs
}

impl Prepared for PreparedRound {
    fn generate(&mut self, nonces: &[i64]) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        for (distance, &nonce) in self.distances(nonces).into_iter().zip(nonces) {
            if !distance.is_finite() {
                batch.rejected_non_finite += 1;
            } else if distance < self.r_target {
                batch.artifacts.push(artifact(nonce, distance));
            }
        }
        Ok(batch)
    }

    /// As the reference: a nonce is invalid when the received distance is not below `test.dist_threshold`, or the computed
    /// one above it. The two are not compared with each other.
    fn validate(&mut self, received: &[Artifact], test: &StatTest) -> Result<Verdict, Error> {
        test.check().map_err(Error::StatTest)?;
        let mut seen = HashSet::new();
        let nonces: Vec<i64> = received.iter().map(|artifact| artifact.nonce).collect();
        if let Some(&twice) = nonces.iter().find(|&&nonce| !seen.insert(nonce)) {
            return Err(Error::DuplicateNonce(twice));
        }
        let computed = self.distances(&nonces);
        let is_valid = |(received, computed): (&Artifact, &f64)| {
            decode(&received.vector).is_some_and(|distance| distance < test.dist_threshold)
                && *computed <= test.dist_threshold
        };
        let pairs = received.iter().zip(&computed);
        let mismatch_nonces: Vec<i64> = pairs
            .filter(|pair| !is_valid(*pair))
            .map(|(artifact, _)| artifact.nonce)
            .collect();
        let total = received.len() as u32;
        let p_value = if total == 0 {
            1.0
        } else {
            statistics::binomial_tail(mismatch_nonces.len() as u32, total, test.p_mismatch)
        };
        Ok(Verdict {
            total,
            mismatch_nonces,
            p_value,
            fraud: p_value < test.fraud_threshold,
            computed: nonces
                .iter()
                .zip(computed)
                .map(|(&nonce, distance)| artifact(nonce, distance))
                .collect(),
        })
    }
}

fn artifact(nonce: i64, distance: f64) -> Artifact {
    Artifact {
        nonce,
        vector: distance.to_le_bytes().to_vec(),
    }
}
