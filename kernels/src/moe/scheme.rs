//! Scheme `prefill_v2` over a stack of experts, on the CPU.

use super::Model;
use crate::{
    artifact,
    decoder::{Arithmetic, Bf16},
    householder,
    prefill_v2::{self, NAME},
    scheme::{self, Artifact, Batch, Error, Prepared, Round, Scheme, StatTest, Verdict, compare, received_nonces},
};
use std::sync::Arc;

/// The scheme over one model.
#[derive(Debug, Clone)]
pub struct MoePrefillV2 {
    model: Arc<Model>,
}

impl MoePrefillV2 {
    /// Of a model.
    pub const fn new(model: Arc<Model>) -> Self {
        Self { model }
    }
}

impl Scheme for MoePrefillV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, Error> {
        let shape = self.model.shape();
        scheme::check(round, shape.hidden)?;
        let reflections = (0..shape.layers)
            .map(|layer| householder::reflection_vector(&round.block_hash, layer, shape.hidden))
            .map(rounded)
            .collect();
        Ok(Box::new(PreparedRound {
            round: round.clone(),
            model: Arc::clone(&self.model),
            reflections,
        }))
    }
}

fn rounded(x: Vec<f32>) -> Vec<f32> {
    x.into_iter().map(Bf16::round).collect()
}

#[derive(Debug)]
struct PreparedRound {
    round: Round,
    model: Arc<Model>,
    reflections: Vec<Vec<f32>>,
}

impl Prepared for PreparedRound {
    fn generate(&mut self, nonces: &[i64]) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        for &nonce in nonces {
            let mut residual = vec![0.0; self.round.seq_len * self.model.shape().hidden];
            prefill_v2::fill_input(&self.round, nonce, &mut residual);
            let mut residual = rounded(residual);
            for (layer, v) in self.reflections.iter().enumerate() {
                self.model.layer(layer, &mut residual, self.round.seq_len, v);
            }
            let state = self.model.states(&residual, self.round.seq_len);
            let Round {
                block_hash,
                public_key,
                k_dim,
                ..
            } = &self.round;
            match artifact::project(&state, block_hash, public_key, nonce, *k_dim) {
                Some(projection) => batch.artifacts.push(Artifact {
                    nonce,
                    vector: projection.encode(),
                }),
                None => batch.rejected_non_finite += 1,
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
