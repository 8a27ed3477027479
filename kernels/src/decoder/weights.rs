//! Weights grown from a tag, so that none need to be shipped (`docs/poc-v2.md`, section 4.3).

use super::{
    Config,
    arithmetic::{Arithmetic, Bf16},
};
use crate::{linear::Linear, rng, seed};

/// Name and shape of one tensor, as its seed string and the published vectors know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// For example `layers.0.self_attn.q_proj`.
    pub name: String,
    /// [out, in] of a linear map, or [length] of a norm.
    pub shape: Vec<usize>,
}

/// The tag and the model a tensor belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) tag: &'a str,
    pub(super) model: &'a str,
}

impl Source<'_> {
    pub(super) fn linear(&self, name: &str, out: usize, inp: usize) -> Linear {
        Linear::pack(out, inp, &tensor(self.tag, self.model, name, &[out, inp]))
    }

    pub(super) fn norm(&self, name: &str, length: usize) -> Vec<f32> {
        tensor(self.tag, self.model, name, &[length])
    }
}

/// The elements of a tensor, row-major, in single precision. Linear maps: normals over the root of the input width;
/// norms: one plus a tenth of a normal.
pub fn tensor(tag: &str, model: &str, name: &str, shape: &[usize]) -> Vec<f32> {
    let seed = seed::seed_from_string(&format!("{tag}_{model}_{name}"));
    let mut elements = rng::normal(seed, shape.iter().product());
    if let [_, width] = shape {
        let root = (*width as f32).sqrt();
        for x in &mut elements {
            *x /= root;
        }
    } else {
        for x in &mut elements {
            *x = 1.0 + 0.1 * *x;
        }
    }
    elements
}

/// Every tensor of a shape, in no particular order.
pub fn tensors(config: &Config) -> Vec<TensorSpec> {
    let mut specs = vec![spec("norm", &[config.hidden])];
    for layer in 0..config.layers {
        let at = |name: &str| format!("layers.{layer}.{name}");
        let (hidden, q, kv) = (
            config.hidden,
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        specs.push(spec(&at("input_layernorm"), &[hidden]));
        specs.push(spec(&at("post_attention_layernorm"), &[hidden]));
        for (name, out, inp) in [
            ("q_proj", q, hidden),
            ("k_proj", kv, hidden),
            ("v_proj", kv, hidden),
            ("o_proj", hidden, q),
        ] {
            specs.push(spec(&at(&format!("self_attn.{name}")), &[out, inp]));
        }
        if config.qk_norm {
            specs.push(spec(&at("self_attn.q_norm"), &[config.head_dim]));
            specs.push(spec(&at("self_attn.k_norm"), &[config.head_dim]));
        }
        match &config.moe {
            None => specs.extend(mlp_specs(&at("mlp"), hidden, config.intermediate)),
            Some(moe) => {
                specs.push(spec(&at("mlp.gate"), &[moe.experts, hidden]));
                for expert in 0..moe.experts {
                    specs.extend(mlp_specs(
                        &at(&format!("mlp.experts.{expert}")),
                        hidden,
                        moe.intermediate,
                    ));
                }
            }
        }
    }
    specs
}

fn mlp_specs(prefix: &str, hidden: usize, inner: usize) -> [TensorSpec; 3] {
    [
        spec(&format!("{prefix}.gate_proj"), &[inner, hidden]),
        spec(&format!("{prefix}.up_proj"), &[inner, hidden]),
        spec(&format!("{prefix}.down_proj"), &[hidden, inner]),
    ]
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
    }
}

pub(super) fn round_norm(elements: &mut [f32]) {
    for x in elements {
        *x = Bf16::round(*x);
    }
}
