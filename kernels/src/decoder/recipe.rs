//! Shapes of the models that can be built from a tag alone (`docs/poc-v2.md`, section 4.3).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Width of the hidden state.
    pub hidden: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head; even.
    pub head_dim: usize,
    /// Inner width of the dense MLP; unused (0) with experts.
    #[serde(rename = "inter")]
    pub intermediate: usize,
    /// Added to the mean square in every norm.
    pub eps: f64,
    /// Base of the rotary position embedding.
    pub theta: f64,
    /// Whether queries and keys are normed per head.
    pub qk_norm: bool,
    /// Mixture of experts in place of the dense MLP.
    pub moe: Option<MoeConfig>,
    /// Sequence length the published vectors of this model use; a round may ask for another one.
    pub seq_len: usize,
}

/// Shape of a mixture of experts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoeConfig {
    /// Number of experts.
    pub experts: usize,
    /// Experts used per token.
    pub top_k: usize,
    /// Inner width of each expert.
    #[serde(rename = "inter")]
    pub intermediate: usize,
}

/// A shape no decoder can have, or one too large for a CPU reference.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("model config: {0}")]
pub struct InvalidConfig(String);

/// Largest size of any one dimension.
const MAX_DIMENSION: usize = 65_536;
/// Most weights of one model: 256 MiB in single precision.
const MAX_WEIGHTS: usize = 1 << 26;

impl Config {
    /// Refuses shapes without meaning and shapes beyond 256 MiB of weights.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let sizes = [
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("seq_len", self.seq_len),
        ];
        let mlp = match &self.moe {
            None => vec![("inter", self.intermediate)],
            Some(moe) => {
                vec![
                    ("moe.experts", moe.experts),
                    ("moe.top_k", moe.top_k),
                    ("moe.inter", moe.intermediate),
                ]
            }
        };
        for (name, size) in sizes.into_iter().chain(mlp) {
            if size == 0 || size > MAX_DIMENSION {
                return Err(InvalidConfig(format!(
                    "{name} is {size}: it must lie between 1 and {MAX_DIMENSION}"
                )));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(InvalidConfig(format!(
                "kv_heads {} does not divide heads {}",
                self.kv_heads, self.heads
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(InvalidConfig(format!("head_dim {} is odd", self.head_dim)));
        }
        if let Some(moe) = self.moe.as_ref().filter(|moe| moe.top_k > moe.experts) {
            return Err(InvalidConfig(format!(
                "moe.top_k {} exceeds moe.experts {}",
                moe.top_k, moe.experts
            )));
        }
        if !(self.eps.is_finite() && self.eps >= 0.0 && self.theta.is_finite() && self.theta > 0.0) {
            return Err(InvalidConfig(format!(
                "eps {} or theta {} is out of range",
                self.eps, self.theta
            )));
        }
        if self.weights() > MAX_WEIGHTS as u128 {
            return Err(InvalidConfig(format!(
                "{} weights: at most {MAX_WEIGHTS} are built",
                self.weights()
            )));
        }
        Ok(())
    }

    fn weights(&self) -> u128 {
        let size = |a: usize, b: usize| a as u128 * b as u128;
        let attention =
            2 * size(self.hidden, self.heads * self.head_dim) + 2 * size(self.hidden, self.kv_heads * self.head_dim);
        let mlp = match &self.moe {
            None => 3 * size(self.hidden, self.intermediate),
            Some(moe) => size(moe.experts, self.hidden) * (3 * moe.intermediate as u128 + 1),
        };
        self.layers as u128 * (attention + mlp)
    }
}

/// The models with published vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// 3 layers of width 64, dense, no norm on queries and keys.
    TinyLlamaDense,
    /// 4 layers of width 96, dense, queries and keys normed per head.
    TinyQwen3Dense,
    /// 3 layers of width 64, 8 experts of which 2 are used per token.
    TinyQwen3Moe,
}

/// A name that is no recipe.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("model {0:?} has no recipe: use tiny_llama_dense, tiny_qwen3_dense or tiny_qwen3_moe")]
pub struct UnknownRecipe(String);

impl Recipe {
    /// All recipes.
    pub const ALL: [Self; 3] = [Self::TinyLlamaDense, Self::TinyQwen3Dense, Self::TinyQwen3Moe];

    /// The recipe of a model id of the form `organisation/name`: what follows the last slash.
    pub fn from_model_id(model_id: &str) -> Result<Self, UnknownRecipe> {
        let name = model_id.rsplit('/').next().unwrap_or(model_id);
        name.parse().map_err(|_| UnknownRecipe(model_id.to_owned()))
    }

    /// Name as in the published vectors; part of the weights' seed strings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TinyLlamaDense => "tiny_llama_dense",
            Self::TinyQwen3Dense => "tiny_qwen3_dense",
            Self::TinyQwen3Moe => "tiny_qwen3_moe",
        }
    }

    /// Shape of the model.
    pub fn config(self) -> Config {
        let base = Config {
            hidden: 64,
            layers: 3,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            intermediate: 128,
            eps: 1e-6,
            theta: 1_000_000.0,
            qk_norm: false,
            moe: None,
            seq_len: 8,
        };
        match self {
            Self::TinyLlamaDense => base,
            Self::TinyQwen3Dense => Config {
                hidden: 96,
                layers: 4,
                heads: 6,
                intermediate: 160,
                qk_norm: true,
                seq_len: 16,
                ..base
            },
            Self::TinyQwen3Moe => Config {
                kv_heads: 1,
                head_dim: 32,
                intermediate: 0,
                qk_norm: true,
                moe: Some(MoeConfig {
                    experts: 8,
                    top_k: 2,
                    intermediate: 48,
                }),
                ..base
            },
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Recipe {
    type Err = UnknownRecipe;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|recipe| recipe.name() == name)
            .ok_or_else(|| UnknownRecipe(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_valid_and_found_by_name_and_by_model_id() {
        for recipe in Recipe::ALL {
            assert_eq!(recipe.config().check(), Ok(()));
            assert_eq!(recipe.name().parse(), Ok(recipe));
            assert_eq!(Recipe::from_model_id(&format!("gonka-fleet/{recipe}")), Ok(recipe));
        }
        assert!("MiniMaxAI/MiniMax-M2.7".parse::<Recipe>().is_err());
    }

    #[test]
    fn shapes_without_meaning_are_refused() {
        let base = Recipe::TinyQwen3Moe.config();
        let moe = |top_k| {
            Some(MoeConfig {
                experts: 8,
                top_k,
                intermediate: 48,
            })
        };
        for broken in [
            Config {
                hidden: 0,
                ..base.clone()
            },
            Config {
                hidden: usize::MAX,
                ..base.clone()
            },
            Config {
                kv_heads: 3,
                ..base.clone()
            },
            Config {
                head_dim: 15,
                ..base.clone()
            },
            Config {
                theta: f64::NAN,
                ..base.clone()
            },
            Config {
                moe: moe(9),
                ..base.clone()
            },
            Config {
                layers: 60_000,
                hidden: 60_000,
                ..base.clone()
            },
        ] {
            assert!(broken.check().is_err(), "{broken:?}");
        }
    }
}
