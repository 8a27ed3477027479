//! Whole nonces: every kernel in its place, products of matrices on the host, against the scheme and against published artifacts.

use crate::{
    emulator::{Argument, Buffer, NULL, Shape, launch},
    numbers::{bits, widen},
    rows::threads,
};
use half::f16;
use kernels::{
    artifact,
    decoder::{Config, Dtype, Model, Recipe, tensor},
    householder,
    prefill_v2::PrefillV2,
    scheme::{Round, Scheme},
    seed, statistics,
};
use rstest::rstest;
use serde_json::Value;
use std::sync::Arc;

const TAG: &str = "public-tiny-v1";
/// Distance of bf16 artifacts between two implementations (`kernels/vectors/README.md`).
const BF16_ARTIFACT: f64 = 0.03;

/// A model's tensors as a bf16 run loads them, and the round.
struct Device<'a> {
    name: &'a str,
    config: &'a Config,
    round: &'a Round,
}

impl Device<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Vec<u16> {
        bits(&tensor(TAG, self.name, name, shape))
    }

    fn norm(&self, name: &str) -> Buffer<u16> {
        Buffer::new(&self.tensor(name, &[self.config.hidden]))
    }

    /// Outputs of some linear maps side by side.
    fn product(&self, x: &[u16], inp: usize, maps: &[(String, usize)]) -> Buffer<u16> {
        let maps: Vec<Vec<f32>> = maps
            .iter()
            .map(|(name, out)| widen(&self.tensor(name, &[*out, inp])))
            .collect();
        let mut outputs = Vec::new();
        for row in widen(x).chunks_exact(inp) {
            for weights in maps.iter().flat_map(|map| map.chunks_exact(inp)) {
                outputs.push(row.iter().zip(weights).map(|(x, w)| x * w).sum::<f32>());
            }
        }
        Buffer::new(&bits(&outputs))
    }

    fn inputs(&self, nonces: &[i64]) -> Buffer<u16> {
        let len = self.round.seq_len * self.config.hidden;
        let segments = if self.round.stronger_rng { 8 } else { 1 };
        let seeds: Vec<u32> = nonces
            .iter()
            .map(|&nonce| seed::input(&self.round.block_hash, &self.round.public_key, nonce))
            .flat_map(|text| seed::seeds_from_string(&text)[..segments].to_vec())
            .collect();
        let out = Buffer::new(&vec![0_u16; nonces.len() * len]);
        let segment = len.div_ceil(segments);
        let grid = [segment.div_ceil(2).div_ceil(2048), segments, nonces.len()].map(|size| size as u32);
        let sizes = [segments, segment, len].map(|size| size as u32);
        launch(
            "fill_inputs",
            Shape(grid, 256, 0),
            &[&out, &Buffer::new(&seeds), &sizes[0], &sizes[1], &sizes[2]],
        );
        out
    }

    /// One of the kernels over whole rows; `operands` are what it takes before the width.
    fn rows(&self, kernel: &str, rows: usize, operands: &[&dyn Argument]) {
        let (width, eps) = (self.config.hidden as u32, self.config.eps as f32);
        let mut arguments = operands.to_vec();
        arguments.extend([&width as &dyn Argument, &eps]);
        launch(
            kernel,
            Shape([rows as u32, 1, 1], threads(self.config.hidden), 0),
            &arguments,
        );
    }

    fn turn(&self, at: &str, qkv: &Buffer<u16>, rows: usize) {
        let Config {
            heads,
            kv_heads,
            head_dim: dim,
            theta,
            ..
        } = *self.config;
        let frequency = |pair: usize| theta.powf(-(2.0 * pair as f64) / dim as f64) as f32;
        let rope: Vec<[f32; 2]> = (0..self.round.seq_len)
            .flat_map(|position| (0..dim / 2).map(move |pair| (position, pair)))
            .map(|(position, pair)| {
                let (sin, cos) = (position as f32 * frequency(pair)).sin_cos();
                [cos, sin]
            })
            .collect();
        let norms = self
            .config
            .qk_norm
            .then(|| ["q_norm", "k_norm"].map(|name| Buffer::new(&self.tensor(&format!("{at}.{name}"), &[dim]))));
        let [q, k]: [&dyn Argument; 2] = match &norms {
            Some([q, k]) => [q, k],
            None => [&NULL, &NULL],
        };
        let sizes = [qkv.len() / rows, heads, kv_heads, dim, self.round.seq_len, 0].map(|size| size as u32);
        let rope = Buffer::new(&rope);
        let mut arguments: Vec<&dyn Argument> = vec![qkv, q, k, &rope];
        arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
        let eps = self.config.eps as f32;
        arguments.push(&eps);
        let grid = [(heads + kv_heads).div_ceil(8) as u32, rows as u32, 1];
        launch("head_norm_rope", Shape(grid, 256, 0), &arguments);
    }

    /// Attention of all tokens, or of the last one of each sequence.
    fn attend(&self, qkv: &Buffer<u16>, sequences: usize, only_last: bool) -> Buffer<u16> {
        let Config {
            heads,
            kv_heads,
            head_dim: dim,
            ..
        } = *self.config;
        let (q_width, kv_width, seq_len) = (heads * dim, kv_heads * dim, self.round.seq_len);
        let stride = q_width + 2 * kv_width;
        let rows = if only_last { sequences } else { sequences * seq_len };
        let out = Buffer::new(&vec![0_u16; rows * q_width]);
        // The last queries, a whole row apart.
        let last = Buffer::new(&vec![0_u16; sequences * stride]);
        let sizes = [stride, stride, q_width, heads, kv_heads, seq_len, dim].map(|size| size as u32);
        let scale = 1.0 / (dim as f32).sqrt();
        let (q, k, v) = (qkv.at(0), qkv.at(q_width), qkv.at(q_width + kv_width));
        let mut arguments: Vec<&dyn Argument> = vec![&q, &k, &v, &out];
        arguments.extend(sizes[..6].iter().map(|size| size as &dyn Argument));
        if only_last {
            let shape = Shape([sequences as u32, 1, 1], 256, 0);
            launch("gather_last", shape, &[qkv, &last, &sizes[5], &sizes[0]]);
            arguments[0] = &last;
            arguments.extend([&sizes[6] as &dyn Argument, &scale]);
            let grid = [heads as u32, sequences as u32, 1];
            launch("attention_last", Shape(grid, 256, 0), &arguments);
        } else {
            arguments.push(&scale);
            let grid = [seq_len.div_ceil(128), heads, sequences].map(|size| size as u32);
            launch(
                &format!("attention_{dim}"),
                Shape(grid, 128, 768 * dim as u32),
                &arguments,
            );
        }
        out
    }

    /// The artifacts of some nonces in one batch.
    fn artifacts(&self, nonces: &[i64]) -> Vec<Vec<f32>> {
        let (hidden, inner) = (self.config.hidden, self.config.intermediate);
        let mut rows = nonces.len() * self.round.seq_len;
        let mut residual = self.inputs(nonces);
        let mut normed = Buffer::new(&vec![0_u16; rows * hidden]);
        let first = self.norm("layers.0.input_layernorm");
        self.rows("norm", rows, &[&residual, &first, &normed]);
        for layer in 0..self.config.layers {
            let at = |name: &str| format!("layers.{layer}.{name}");
            let dim = self.config.head_dim;
            let projections = [
                ("q", self.config.heads),
                ("k", self.config.kv_heads),
                ("v", self.config.kv_heads),
            ]
            .map(|(name, heads)| (at(&format!("self_attn.{name}_proj")), heads * dim));
            let qkv = self.product(&normed, hidden, &projections);
            self.turn(&at("self_attn"), &qkv, rows);
            let is_last = layer + 1 == self.config.layers;
            let heads = self.attend(&qkv, nonces.len(), is_last);
            if is_last {
                rows = nonces.len();
                let kept = Buffer::new(&vec![0_u16; rows * hidden]);
                let sizes = [self.round.seq_len, hidden].map(|size| size as u32);
                let shape = Shape([rows as u32, 1, 1], 256, 0);
                launch("gather_last", shape, &[&residual, &kept, &sizes[0], &sizes[1]]);
                residual = kept;
                normed = Buffer::new(&vec![0_u16; rows * hidden]);
            }
            let o = self.product(&heads, self.config.heads * dim, &[(at("self_attn.o_proj"), hidden)]);
            let post = self.norm(&at("post_attention_layernorm"));
            self.rows("add_norm", rows, &[&o, &residual, &post, &normed]);
            let gate_up = ["gate", "up"].map(|name| (at(&format!("mlp.{name}_proj")), inner));
            let gate_up = self.product(&normed, hidden, &gate_up);
            let gated = Buffer::new(&vec![0_u16; rows * inner]);
            let shape = Shape([inner.div_ceil(2048) as u32, rows as u32, 1], 256, 0);
            launch("swiglu", shape, &[&gate_up, &gated, &(inner as u32)]);
            let down = self.product(&gated, inner, &[(at("mlp.down_proj"), hidden)]);
            let v = Buffer::new(&bits(&householder::reflection_vector(
                &self.round.block_hash,
                layer,
                hidden,
            )));
            let next = if is_last {
                self.norm("norm")
            } else {
                self.norm(&format!("layers.{}.input_layernorm", layer + 1))
            };
            self.rows("reflect_add_norm", rows, &[&down, &residual, &v, &next, &normed]);
        }
        self.projected(&normed, nonces)
    }

    fn projected(&self, states: &Buffer<u16>, nonces: &[i64]) -> Vec<Vec<f32>> {
        let Round {
            block_hash,
            public_key,
            k_dim: k,
            ..
        } = self.round;
        let seeds: Vec<u32> = nonces
            .iter()
            .flat_map(|&nonce| {
                let rotations = (0..k - 1).map(move |index| seed::rotation(block_hash, public_key, nonce, *k, index));
                [seed::pick(block_hash, public_key, nonce, *k)]
                    .into_iter()
                    .chain(rotations)
            })
            .map(|text| seed::seed_from_string(&text))
            .collect();
        let (out, flags) = (
            Buffer::new(&vec![0_u16; nonces.len() * k]),
            Buffer::new(&vec![7_u32; nonces.len()]),
        );
        let shape = Shape([nonces.len() as u32, 1, 1], 256, 0);
        let sizes = [self.config.hidden, *k].map(|size| size as u32);
        launch(
            "project",
            shape,
            &[states, &Buffer::new(&seeds), &out, &flags, &sizes[0], &sizes[1]],
        );
        assert!(flags.iter().all(|&flag| flag == 0));
        out.chunks_exact(*k)
            .map(|bits| bits.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect())
            .collect()
    }
}

#[track_caller]
fn assert_near(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let distance = statistics::distance(found, expected);
        assert!(distance < BF16_ARTIFACT, "{distance}");
    }
}

#[test]
fn published_nonces_come_out_of_the_kernels() {
    let document: Value = serde_json::from_str(include_str!("../../vectors/v2_tiny_models.json")).expect("JSON");
    let mut compared = 0;
    for case in document["cases"].as_array().expect("cases") {
        let text = |name: &str| case[name].as_str().expect("text");
        let config = text("model").parse::<Recipe>().expect("a recipe").config();
        if config.moe.is_some() {
            continue;
        }
        let nonces: Vec<i64> = serde_json::from_value(case["nonces"].clone()).expect("numbers");
        for run in case["runs"].as_array().expect("runs") {
            let round = Round {
                block_hash: text("block_hash").into(),
                public_key: text("public_key").into(),
                seq_len: config.seq_len,
                k_dim: case["k_dim"].as_u64().expect("number") as usize,
                stronger_rng: run["input_scheme"].as_str() != Some("legacy"),
            };
            let published: Vec<String> =
                serde_json::from_value(run["vector_b64_bf16_model"].clone()).expect("artifacts");
            let published: Vec<Vec<f32>> = published
                .iter()
                .map(|text| artifact::decode(&artifact::from_base64(text).expect("base64")).expect("halves"))
                .collect();
            let device = Device {
                name: text("model"),
                config: &config,
                round: &round,
            };
            assert_near(&device.artifacts(&nonces), &published);
            compared += published.len();
        }
    }
    assert_eq!(compared, 24);
}

/// Heads of every size the kernels know, sequences around their tiles; the vectors have only the smallest.
#[rstest]
fn nonces_of_larger_models_are_the_schemes(
    #[values((32, 4, 1), (64, 4, 4), (128, 8, 1))] (head_dim, heads, kv_heads): (usize, usize, usize),
    #[values(1, 65, 130)] seq_len: usize,
) {
    let config = Config {
        hidden: 128,
        layers: 2,
        heads,
        kv_heads,
        head_dim,
        seq_len,
        ..Recipe::TinyQwen3Dense.config()
    };
    let round = Round {
        block_hash: "C0DEC0DE".into(),
        public_key: "02feed".into(),
        seq_len,
        k_dim: 12,
        stronger_rng: seq_len > 1,
    };
    let model = Model::from_config("larger", config.clone(), TAG).expect("a shape");
    let mut scheme = PrefillV2::new(Arc::new(model), Dtype::Bf16)
        .prepare(&round)
        .expect("a round");
    let expected: Vec<Vec<f32>> = scheme
        .generate(&[0, 7])
        .expect("generated")
        .artifacts
        .iter()
        .map(|artifact| artifact::decode(&artifact.vector).expect("halves"))
        .collect();
    let device = Device {
        name: "larger",
        config: &config,
        round: &round,
    };
    assert_near(&device.artifacts(&[0, 7]), &expected);
}
