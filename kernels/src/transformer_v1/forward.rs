//! The forward pass (`docs/poc-v1.md`, section 3.3): embeddings of several nonces to the logits of each one's last token.

use super::{
    attention::Rope,
    layer::{Block, Work, keep_last},
    params::Params,
    pool::Pool,
};
use std::sync::Arc;

/// Tokens computed together: enough to pay for cutting the weights out of the pool.
const TOKENS: usize = 1024;

/// A model over a block hash's pool, with the buffers to run it.
#[derive(Debug)]
pub struct Forward {
    params: Params,
    pool: Arc<Pool>,
    rope: Rope,
    work: Work,
}

/// What a run gives, each list by nonce.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Logits of the last token, `vocab_size` per nonce.
    pub logits: Vec<f32>,
    /// State of the last token after each layer that was asked for, `dim` per nonce.
    pub last_states: Vec<Vec<f32>>,
}

impl Forward {
    /// `params` must hold and `pool` be as long as they say.
    pub fn new(params: Params, pool: Arc<Pool>) -> Self {
        Self {
            rope: Rope::new(&params),
            params,
            pool,
            work: Work::default(),
        }
    }

    /// Elements of one nonce's input.
    pub fn input_len(&self) -> usize {
        self.params.seq_len * self.params.dim
    }

    /// Nonces worth running together.
    pub fn group(&self) -> usize {
        (TOKENS / self.params.seq_len).max(1)
    }

    /// Runs the inputs of one or more nonces; `watched` layers leave their last token's state behind, in this order.
    ///
    /// # Panics
    /// When `inputs` is not a whole number of inputs.
    pub fn run(&mut self, inputs: &[f32], watched: &[usize]) -> Output {
        let sequences = inputs.len() / self.input_len();
        assert!(
            sequences > 0 && inputs.len() == sequences * self.input_len(),
            "inputs are seq_len * dim elements each"
        );
        let dim = self.params.dim;
        let block = Block {
            params: &self.params,
            pool: &self.pool,
            rope: &self.rope,
        };
        let mut state = inputs.to_vec();
        let mut last_states = vec![Vec::new(); watched.len()];
        for layer in 0..self.params.n_layers {
            let last_only = layer + 1 == self.params.n_layers;
            block.run(layer, last_only, sequences, &mut state, &mut self.work);
            for (_, kept) in watched
                .iter()
                .zip(&mut last_states)
                .filter(|(watched, _)| **watched == layer)
            {
                kept.clone_from(&state);
                keep_last(kept, sequences, dim);
            }
        }
        let (mut normed, mut logits) = (Vec::new(), Vec::new());
        block.norm("norm.weight", &state, &mut normed);
        let linear = self.work.linear_mut();
        block.linear("output.weight", self.params.vocab_size, &normed, linear, &mut logits);
        Output { logits, last_states }
    }
}
