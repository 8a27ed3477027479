//! Shapes of the models, as their publishers give them.

use super::Scoring;
use crate::fp8::GROUP;
use thiserror::Error;

/// What of queries and keys is normed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head.
    Heads,
    /// All heads of a token.
    Whole,
}

/// Shape and constants of a decoder whose MLPs are all experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Width of the hidden state.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a head that are turned, the first ones.
    pub rotary: usize,
    /// Norm of queries and keys.
    pub qk_norm: QkNorm,
    /// Experts of a layer.
    pub experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// Inner width of an expert.
    pub inner: usize,
    /// From logits to scores.
    pub scoring: Scoring,
    /// Added to the mean square in every norm.
    pub eps: f32,
    /// Base of the rotary embedding.
    pub theta: f64,
}

/// A shape these kernels and this reference do not run.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("experts' shape: {0}")]
pub struct InvalidShape(String);

impl Shape {
    /// MiniMax-M2, M2.5 and M2.7: 229 billion weights, 10 of them active; 62 layers when whole.
    pub const fn minimax_m2(layers: usize) -> Self {
        Self {
            hidden: 3072,
            layers,
            heads: 48,
            kv_heads: 8,
            head_dim: 128,
            rotary: 64,
            qk_norm: QkNorm::Whole,
            experts: 256,
            top_k: 8,
            inner: 1536,
            scoring: Scoring::Sigmoid,
            eps: 1e-6,
            theta: 5e6,
        }
    }

    /// Qwen3-235B-A22B-Instruct-2507: 94 layers when whole.
    pub const fn qwen3_235b(layers: usize) -> Self {
        Self {
            hidden: 4096,
            layers,
            heads: 64,
            kv_heads: 4,
            head_dim: 128,
            rotary: 128,
            qk_norm: QkNorm::Heads,
            experts: 128,
            top_k: 8,
            inner: 1536,
            scoring: Scoring::Softmax,
            eps: 1e-6,
            theta: 5e6,
        }
    }

    /// Width of all query heads.
    pub const fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of queries, keys and values together.
    pub const fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Weights that one token meets.
    pub const fn active_weights(&self) -> usize {
        let attention = self.hidden * (self.qkv_width() + self.q_width());
        self.layers * (attention + self.hidden * (self.experts + 3 * self.inner * self.top_k))
    }

    /// Refuses what the kernels would leave out.
    pub fn check(&self) -> Result<(), InvalidShape> {
        let refuse = |what: String| Err(InvalidShape(what));
        for (name, size) in [
            ("hidden width", self.hidden),
            ("width of queries", self.q_width()),
            ("width of keys", self.kv_width()),
            ("inner width", self.inner),
        ] {
            if size == 0 || !size.is_multiple_of(GROUP) {
                return refuse(format!("{name} is {size}: a multiple of {GROUP} is needed"));
            }
        }
        if self.layers == 0 || self.hidden > 16_384 {
            return refuse(format!(
                "{} layers of width {}: at least 1, and at most 16384",
                self.layers, self.hidden
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || ![16, 32, 64, 128].contains(&self.head_dim) {
            return refuse(format!(
                "{} heads, {} of keys, of width {}: 16, 32, 64 or 128, the one a multiple of the other",
                self.heads, self.kv_heads, self.head_dim
            ));
        }
        if self.rotary == 0 || !self.rotary.is_multiple_of(16) || self.rotary > self.head_dim {
            return refuse(format!(
                "{} of a head are turned: a multiple of 16 is needed",
                self.rotary
            ));
        }
        if self.qk_norm == QkNorm::Heads && self.rotary != self.head_dim {
            return refuse("heads normed one by one are turned whole".into());
        }
        if self.top_k == 0 || self.top_k > 32.min(self.experts) || self.experts > 512 {
            return refuse(format!(
                "{} of {} experts: at most 32 of at most 512",
                self.top_k, self.experts
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_shapes_have_the_weights_their_publishers_say() {
        let (minimax, qwen) = (Shape::minimax_m2(62), Shape::qwen3_235b(94));
        assert_eq!((minimax.check(), qwen.check()), (Ok(()), Ok(())));
        // Without embeddings and head: 9.8 and 20.95 billion.
        assert!((minimax.active_weights() as f64 / 9.80e9 - 1.0).abs() < 0.01);
        assert!((qwen.active_weights() as f64 / 20.95e9 - 1.0).abs() < 0.01);
    }

    #[test]
    fn shapes_the_kernels_do_not_run_are_refused_by_name() {
        let good = Shape::minimax_m2(2);
        for (bad, named) in [
            (
                Shape {
                    hidden: 3100,
                    ..good.clone()
                },
                "hidden width is 3100",
            ),
            (
                Shape {
                    inner: 64,
                    ..good.clone()
                },
                "inner width is 64",
            ),
            (
                Shape {
                    kv_heads: 5,
                    ..good.clone()
                },
                "5 of keys",
            ),
            (
                Shape {
                    head_dim: 96,
                    ..good.clone()
                },
                "of width 96",
            ),
            (
                Shape {
                    rotary: 40,
                    ..good.clone()
                },
                "40 of a head",
            ),
            (
                Shape {
                    qk_norm: QkNorm::Heads,
                    ..good.clone()
                },
                "turned whole",
            ),
            (
                Shape {
                    top_k: 33,
                    ..good.clone()
                },
                "33 of 256",
            ),
            (
                Shape {
                    experts: 513,
                    ..good.clone()
                },
                "of 513 experts",
            ),
            (
                Shape {
                    layers: 0,
                    ..good.clone()
                },
                "0 layers",
            ),
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
