//! Scheme `prefill_v2`: PoC v2 as the network runs it (`docs/poc-v2.md`). One prefill of seeded embeddings per nonce,
//! layers reflected, the last token's state reduced to a short unit vector. Every nonce has an artifact.

use crate::{
    artifact,
    decoder::{Dtype, Model, Runner},
    householder, rng,
    scheme::{self, Artifact, Batch, Error, Prepared, Round, Scheme, StatTest, Verdict, compare, received_nonces},
    seed,
};
use std::sync::Arc;

/// Name of the scheme on the wire.
pub const NAME: &str = "prefill_v2";

/// Tokens computed together, in as many nonces as that makes: enough to read weights rarely, few enough for a core's cache.
const TOKENS: usize = 64;

/// The scheme over one loaded model.
#[derive(Debug, Clone)]
pub struct PrefillV2 {
    model: Arc<Model>,
    dtype: Dtype,
}

impl PrefillV2 {
    /// Loads the model in the given number type; `model` itself is left as it is.
    pub fn new(model: Arc<Model>, dtype: Dtype) -> Self {
        let model = match dtype {
            Dtype::F32 => model,
            Dtype::Bf16 => Arc::new(model.loaded_as(dtype)),
        };
        Self { model, dtype }
    }
}

impl Scheme for PrefillV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, Error> {
        let config = self.model.config();
        scheme::check(round, config.hidden)?;
        let reflections = (0..config.layers)
            .map(|layer| householder::reflection_vector(&round.block_hash, layer, config.hidden))
            .collect();
        let runner = Runner::new(Arc::clone(&self.model), self.dtype, round.seq_len, reflections);
        Ok(Box::new(PreparedRound {
            round: round.clone(),
            runner,
            inputs: Vec::new(),
        }))
    }
}

/// Fills `out` with the input embeddings of a nonce, row-major [`seq_len`, hidden], unscaled.
pub fn fill_input(round: &Round, nonce: i64, out: &mut [f32]) {
    let text = seed::input(&round.block_hash, &round.public_key, nonce);
    if round.stronger_rng {
        rng::fill_concat_normal(seed::seeds_from_string(&text), out);
    } else {
        rng::fill_normal(seed::seed_from_string(&text), out);
    }
}

#[derive(Debug)]
struct PreparedRound {
    round: Round,
    runner: Runner,
    inputs: Vec<f32>,
}

impl Prepared for PreparedRound {
    fn generate(&mut self, nonces: &[i64]) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let input_len = self.runner.input_len();
        for nonces in nonces.chunks((TOKENS / self.round.seq_len).max(1)) {
            self.inputs.resize(nonces.len() * input_len, 0.0);
            for (input, &nonce) in self.inputs.chunks_exact_mut(input_len).zip(nonces) {
                fill_input(&self.round, nonce, input);
            }
            let states = self.runner.run_all(&self.inputs);
            let Round {
                block_hash,
                public_key,
                k_dim,
                ..
            } = &self.round;
            for (state, &nonce) in states.chunks_exact(states.len() / nonces.len()).zip(nonces) {
                match artifact::project(state, block_hash, public_key, nonce, *k_dim) {
                    Some(projection) => batch.artifacts.push(Artifact {
                        nonce,
                        vector: projection.encode(),
                    }),
                    None => batch.rejected_non_finite += 1,
                }
            }
        }
        Ok(batch)
    }

    fn validate(&mut self, received: &[Artifact], test: &StatTest) -> Result<Verdict, Error> {
        let nonces = received_nonces(received, test)?;
        let computed = self.generate(&nonces)?.artifacts;
        Ok(compare(computed, received, test))
    }
}
