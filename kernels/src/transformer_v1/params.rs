//! Shape of the v1 transformer (`docs/poc-v1.md`, section 3): parameters as on the wire, tensors in the order of the
//! reference.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most elements of one tensor and of anything counted here; beyond it no machine has the memory.
const MOST: u64 = 1 << 40;
/// Smallest pool.
const SMALLEST_POOL: u64 = 50_000;
/// Values in the pool per parameter.
const POOL_FRACTION: f64 = 0.05;

/// The parameters of a request; the defaults are those of the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Params {
    /// Width.
    pub dim: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Rows of the output.
    pub vocab_size: usize,
    /// Factor of the feed-forward width.
    pub ffn_dim_multiplier: f64,
    /// The feed-forward width is rounded up to a multiple of it.
    pub multiple_of: usize,
    /// Of the norms.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Must be false: the reference cannot run it.
    pub use_scaled_rope: bool,
    /// Tokens per nonce.
    pub seq_len: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            dim: 2048,
            n_layers: 16,
            n_heads: 16,
            n_kv_heads: 16,
            vocab_size: 8192,
            ffn_dim_multiplier: 1.3,
            multiple_of: 1024,
            norm_eps: 1e-5,
            rope_theta: 500_000.0,
            use_scaled_rope: false,
            seq_len: 16,
        }
    }
}

/// Why parameters make no model.
#[derive(Debug, Error, PartialEq)]
pub enum InvalidParams {
    /// A number is zero or too large.
    #[error("params: {0} is out of range")]
    Range(&'static str),
    /// Heads do not divide the width, or key heads the query heads, or a head has no pairs to turn.
    #[error("params: {heads} heads and {kv_heads} key heads do not divide a width of {dim} into even parts")]
    Heads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
        /// Width.
        dim: usize,
    },
    /// The reference raises an exception.
    #[error("params: use_scaled_rope is true: the reference cannot run it")]
    ScaledRope,
}

/// Name and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// For example `layers.0.attention.wq.weight`.
    pub name: String,
    /// [out, in] of a linear map, [length] of a norm.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Elements.
    pub fn len(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Params {
    /// Parameters of the main network's last v1 epochs: 17.8 billion parameters.
    pub fn main_net() -> Self {
        Self {
            dim: 1792,
            n_layers: 64,
            n_heads: 64,
            n_kv_heads: 64,
            vocab_size: 8196,
            ffn_dim_multiplier: 10.0,
            multiple_of: 8192,
            rope_theta: 10_000.0,
            seq_len: 256,
            ..Self::default()
        }
    }

    /// Refuses shapes that are none.
    pub fn check(&self) -> Result<(), InvalidParams> {
        for (name, value, most) in [
            ("dim", self.dim, 1 << 20),
            ("n_layers", self.n_layers, 1 << 12),
            ("n_heads", self.n_heads, 1 << 12),
            ("n_kv_heads", self.n_kv_heads, 1 << 12),
            ("vocab_size", self.vocab_size, 1 << 24),
            ("multiple_of", self.multiple_of, 1 << 24),
            ("seq_len", self.seq_len, crate::scheme::MAX_SEQ_LEN),
        ] {
            if !(1..=most).contains(&value) {
                return Err(InvalidParams::Range(name));
            }
        }
        for (name, value, most) in [
            ("ffn_dim_multiplier", self.ffn_dim_multiplier, 1e3),
            ("norm_eps", self.norm_eps, 1.0),
            ("rope_theta", self.rope_theta, 1e12),
        ] {
            if !(value > 0.0 && value <= most) {
                return Err(InvalidParams::Range(name));
            }
        }
        if self.use_scaled_rope {
            return Err(InvalidParams::ScaledRope);
        }
        if !self.dim.is_multiple_of(2 * self.n_heads) || !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(InvalidParams::Heads {
                heads: self.n_heads,
                kv_heads: self.n_kv_heads,
                dim: self.dim,
            });
        }
        if self.ffn_hidden() == 0 || self.total() > MOST {
            return Err(InvalidParams::Range("the number of parameters"));
        }
        Ok(())
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Width of all keys of a token.
    pub fn kv_dim(&self) -> usize {
        self.head_dim() * self.n_kv_heads
    }

    /// Width of the feed-forward block: two thirds of four times the width, times the factor, each cut to an integer,
    /// rounded up.
    pub fn ffn_hidden(&self) -> usize {
        let base = (8.0 * self.dim as f64 / 3.0) as usize;
        ((self.ffn_dim_multiplier * base as f64) as usize).next_multiple_of(self.multiple_of)
    }

    /// Every tensor, in the order the reference registers them.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = vec![spec("tok_embeddings.weight".to_owned(), &[self.vocab_size, self.dim])];
        for layer in 0..self.n_layers {
            specs.extend(self.layer(layer));
        }
        specs.push(spec("norm.weight".to_owned(), &[self.dim]));
        specs.push(spec("output.weight".to_owned(), &[self.vocab_size, self.dim]));
        specs
    }

    fn layer(&self, layer: usize) -> [TensorSpec; 9] {
        let (dim, kv, inner) = (self.dim, self.kv_dim(), self.ffn_hidden());
        let at = |name: &str, shape: &[usize]| spec(format!("layers.{layer}.{name}.weight"), shape);
        [
            at("attention.wq", &[dim, dim]),
            at("attention.wk", &[kv, dim]),
            at("attention.wv", &[kv, dim]),
            at("attention.wo", &[dim, dim]),
            at("feed_forward.w1", &[inner, dim]),
            at("feed_forward.w2", &[dim, inner]),
            at("feed_forward.w3", &[inner, dim]),
            at("attention_norm", &[dim]),
            at("ffn_norm", &[dim]),
        ]
    }

    /// Number of all parameters: the token embeddings count although nothing reads them.
    pub fn total(&self) -> u64 {
        let layer: u64 = self.layer(0).iter().map(TensorSpec::len).sum();
        self.n_layers as u64 * layer + 2 * (self.vocab_size as u64 * self.dim as u64) + self.dim as u64
    }

    /// Multiplications of a run over some nonces, attention aside: the last block runs in full for the last tokens only.
    pub fn multiplications(&self, nonces: usize) -> u64 {
        let layer: u64 = self.layer(0).iter().map(TensorSpec::len).sum();
        let (nonces, tokens) = (nonces as u64, self.seq_len as u64);
        let (dim, kv) = (self.dim as u64, self.kv_dim() as u64);
        let keys = 2_u64.saturating_mul(kv).saturating_mul(dim);
        let before = (self.n_layers as u64 - 1).saturating_mul(layer).saturating_add(keys);
        let last = layer.saturating_add(self.vocab_size as u64 * dim);
        nonces.saturating_mul(tokens.saturating_mul(before).saturating_add(last))
    }

    /// Values in the pool all tensors are cut from.
    pub fn pool_len(&self) -> u64 {
        ((self.total() as f64 * POOL_FRACTION) as u64).max(SMALLEST_POOL)
    }
}

fn spec(name: String, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name,
        shape: shape.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_main_network_has_its_published_size() {
        let params = Params::main_net();
        assert_eq!(params.check(), Ok(()));
        assert_eq!((params.ffn_hidden(), params.head_dim()), (49_152, 28));
        assert_eq!(params.total(), 17_763_122_944);
        assert_eq!(
            params.total(),
            params.tensors().iter().map(TensorSpec::len).sum::<u64>()
        );
        assert_eq!(params.pool_len(), 888_156_147);
    }

    #[rstest]
    #[case(Params { dim: 0, ..Params::default() })]
    #[case(Params { dim: 1 << 40, ..Params::default() })]
    #[case(Params { n_heads: 3, ..Params::default() })]
    #[case(Params { n_kv_heads: 5, ..Params::default() })]
    #[case(Params { rope_theta: f64::NAN, ..Params::default() })]
    #[case(Params { ffn_dim_multiplier: f64::INFINITY, ..Params::default() })]
    #[case(Params { seq_len: 1 << 17, ..Params::default() })]
    #[case(Params { use_scaled_rope: true, ..Params::default() })]
    #[case(Params { dim: 1 << 20, n_layers: 1 << 12, ..Params::default() })]
    fn shapes_without_meaning_are_refused(#[case] params: Params) {
        assert!(params.check().is_err(), "{params:?}");
    }
}
