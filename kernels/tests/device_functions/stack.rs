//! Whole stacks of experts: every step of the plan on the emulator, each layer against the reference from the same start.
//!
//! What may differ: attention's exponentials, what its probabilities are relative to once a row has more keys than a tile, and the order of
//! sums. Any of these may move a number over the border of two codes (up to an eighth of that number) or a score over another.

use crate::{
    emulator::{Address, Argument, Buffer, NULL, Shape, launch},
    numbers::widen,
};
use half::bf16;
use kernels::{
    cuda::{
        moe::{Layout, bench, plan},
        plan::{Arg, Batch, Buffer as Name, Kernel, Launch, Step},
    },
    decoder::{Arithmetic, Bf16},
    householder,
    moe::{Grown, Model, QkNorm, Routed, Scoring, Shape as Experts},
    scheme::Round,
    seed,
};
use rstest::rstest;
use std::collections::BTreeMap;

/// Relative distance between device and reference of what a layer adds to a row: of any row, and on average over a layer's rows.
const ROW: f64 = 0.05;
const MEAN: f64 = 0.005;
/// Experts are the same where a choice was decided by more.
const SIGMOID_MARGIN: f32 = 0.002;
const SOFTMAX_MARGIN: f32 = 0.01;

/// Buffers of a plan by name, each of words so that it begins as aligned as a device's.
struct Machine(BTreeMap<Name, Buffer<u128>>);

impl Machine {
    fn new(sizes: &[(Name, u64)]) -> Self {
        let buffer = |bytes: u64| Buffer::new(&vec![u128::MAX; bytes.div_ceil(16) as usize]);
        Self(sizes.iter().map(|(name, bytes)| (*name, buffer(*bytes))).collect())
    }

    fn write(&mut self, to: Name, offset: u64, bytes: &[u8]) {
        let buffer = self.0.get_mut(&to).expect("a buffer of the plan");
        for (at, byte) in bytes.iter().enumerate() {
            let (at, shift) = ((offset as usize + at) / 16, (offset as usize + at) % 16 * 8);
            buffer[at] = buffer[at] & !(0xff << shift) | u128::from(*byte) << shift;
        }
    }

    fn bytes(&self, from: Name) -> Vec<u8> {
        self.0[&from].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn halves(&self, from: Name, count: usize) -> Vec<f32> {
        let halves = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes);
        widen(
            &self.bytes(from).as_chunks::<2>().0[..count]
                .iter()
                .map(halves)
                .collect::<Vec<_>>(),
        )
    }

    fn words(&self, from: Name, count: usize) -> Vec<usize> {
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as usize;
        self.bytes(from).as_chunks::<4>().0[..count].iter().map(word).collect()
    }

    fn place(&self, name: Name, offset: u64) -> Address {
        let buffer = &self.0[&name];
        let (word, rest) = (offset as usize / 16, offset % 16);
        assert_eq!(rest, 0, "places are aligned");
        buffer.at(word)
    }

    fn run(&self, step: &Step) {
        let Step::Launch(Launch {
            kernel,
            grid,
            block,
            shared,
            args,
            ..
        }) = step
        else {
            unreachable!("all products are ours")
        };
        let arguments: Vec<Box<dyn Argument>> = args
            .iter()
            .map(|arg| -> Box<dyn Argument> {
                match arg {
                    Arg::At(place) => Box::new(self.place(place.buffer, place.offset)),
                    Arg::Nothing => Box::new(NULL),
                    Arg::Size(size) => Box::new(*size),
                    Arg::Number(number) => Box::new(*number),
                }
            })
            .collect();
        let arguments: Vec<&dyn Argument> = arguments.iter().map(AsRef::as_ref).collect();
        launch(kernel.name(), Shape(*grid, *block, *shared), &arguments);
    }
}

fn like_minimax() -> Experts {
    Experts {
        hidden: 256,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        rotary: 32,
        experts: 12,
        top_k: 3,
        inner: 128,
        ..Experts::minimax_m2(3)
    }
}

fn like_qwen() -> Experts {
    Experts {
        heads: 8,
        kv_heads: 4,
        head_dim: 32,
        rotary: 32,
        qk_norm: QkNorm::Heads,
        experts: 40,
        top_k: 8,
        scoring: Scoring::Softmax,
        theta: 1e6,
        layers: 2,
        ..like_minimax()
    }
}

fn source() -> Grown {
    Grown {
        tag: "public-tiny-v1".into(),
        model: "experts".into(),
    }
}

fn round(seq_len: usize) -> Round {
    Round {
        block_hash: "C0DEC0DE".into(),
        public_key: "02feed".into(),
        seq_len,
        k_dim: 12,
        stronger_rng: true,
    }
}

fn batch(round: &Round, nonces: usize) -> Batch {
    Batch {
        nonces,
        seq_len: round.seq_len,
        k_dim: round.k_dim,
        segments: 8,
    }
}

fn reflection(round: &Round, layer: usize, width: usize) -> Vec<f32> {
    let v = householder::reflection_vector(&round.block_hash, layer, width);
    v.into_iter().map(Bf16::round).collect()
}

fn halves(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()
}

/// A machine with weights and a round's vectors.
fn machine(shape: &Experts, layout: &Layout, round: &Round, nonces: usize) -> Machine {
    let mut sizes = plan(shape, layout, batch(round, nonces)).expect("a plan").sizes;
    sizes.push((Name::Weights, layout.bytes));
    let mut machine = Machine::new(&sizes);
    layout
        .fill(shape, &source(), &mut |_, offset, bytes| {
            machine.write(Name::Weights, offset, bytes);
            Ok(())
        })
        .expect("weights");
    for layer in 0..shape.layers {
        let v = halves(&reflection(round, layer, shape.hidden));
        machine.write(Name::Reflections, (layer * v.len()) as u64, &v);
    }
    let half = shape.rotary / 2;
    let frequency = |pair: usize| shape.theta.powf(-(2.0 * pair as f64) / shape.rotary as f64) as f32;
    let rope: Vec<u8> = (0..round.seq_len)
        .flat_map(|position| (0..half).map(move |pair| (position, pair)))
        .flat_map(|(position, pair)| {
            let (sin, cos) = (position as f32 * frequency(pair)).sin_cos();
            [cos.to_le_bytes(), sin.to_le_bytes()]
        })
        .flatten()
        .collect();
    machine.write(Name::Rope, 0, &rope);
    let nonces = 0..nonces as i64;
    let (hash, key, k) = (&round.block_hash, &round.public_key, round.k_dim);
    let mut seeds: Vec<u32> = nonces
        .clone()
        .flat_map(|nonce| seed::seeds_from_string(&seed::input(hash, key, nonce)))
        .collect();
    for nonce in nonces {
        seeds.push(seed::seed_from_string(&seed::pick(hash, key, nonce, k)));
        let rotation = |index| seed::seed_from_string(&seed::rotation(hash, key, nonce, k, index));
        seeds.extend((0..k - 1).map(rotation));
    }
    let seeds: Vec<u8> = seeds.into_iter().flat_map(u32::to_le_bytes).collect();
    machine.write(Name::Seeds, 0, &seeds);
    machine
}

fn length(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// Distance of each row from the reference's, relative to what the layer added to `before`.
fn compare_layer(before: &[f32], after: &[f32], expected: &[f32], v: &[f32]) -> Vec<f64> {
    let mut start = before.to_vec();
    householder::reflect::<Bf16>(&mut start, v);
    let width = v.len();
    let rows = after.chunks_exact(width).zip(expected.chunks_exact(width));
    rows.zip(start.chunks_exact(width))
        .map(|((found, expected), start)| {
            let apart = length(found.iter().zip(expected).map(|(a, b)| a - b));
            apart / length(expected.iter().zip(start).map(|(a, b)| a - b))
        })
        .collect()
}

/// Whether a row's experts are those of the reference; where they are not, the choice was close.
#[track_caller]
fn same_experts(shape: &Experts, chosen: &[usize], routed: &Routed) -> bool {
    let (mut found, mut expected) = (chosen.to_vec(), routed.experts.clone());
    found.sort_unstable();
    expected.sort_unstable();
    let margin = match shape.scoring {
        Scoring::Sigmoid => SIGMOID_MARGIN,
        Scoring::Softmax => SOFTMAX_MARGIN,
    };
    assert!(
        found == expected || routed.margin <= margin,
        "{found:?} instead of {expected:?} by {}",
        routed.margin
    );
    found == expected
}

/// Rows are within half a hundredth of what the layer adds to them on average, and each within five; experts are the reference's where they
/// lead by more than 0.002 of a sigmoid or 0.01 of a logit.
#[rstest]
#[case::minimax(like_minimax(), 20)]
#[case::minimax_of_many_tokens(Experts { layers: 2, ..like_minimax() }, 75)]
#[case::qwen(like_qwen(), 20)]
fn a_layer_is_within_half_a_percent_of_the_reference_and_chooses_its_experts(
    #[case] shape: Experts,
    #[case] seq_len: usize,
) {
    const NONCES: usize = 2;
    let (layout, model, round) = (Layout::new(&shape), Model::new(&shape, &source()), round(seq_len));
    let machine = machine(&shape, &layout, &round, NONCES);
    let (rows, width) = (NONCES * seq_len, shape.hidden);
    let (mut layer, mut before, mut other) = (0, Vec::new(), 0);
    for step in plan(&shape, &layout, batch(&round, NONCES)).expect("a plan").steps {
        machine.run(&step);
        let Step::Launch(Launch { kernel, .. }) = step else {
            continue;
        };
        if kernel == Kernel::FillInputs {
            before = machine.halves(Name::Residual, rows * width);
        }
        if kernel != Kernel::ReflectAddNorm {
            continue;
        }
        let (mut expected, v) = (before.clone(), reflection(&round, layer, width));
        let mut routed = model.layer(layer, &mut expected, seq_len, &v);
        let mut after = machine.halves(Name::Residual, rows * width);
        if layer + 1 == shape.layers {
            let last = |x: &[f32]| -> Vec<f32> {
                let sequences = x.chunks_exact(seq_len * width);
                sequences.flat_map(|x| &x[(seq_len - 1) * width..]).copied().collect()
            };
            (before, expected) = (last(&before), last(&expected));
            after = machine.halves(Name::LastResidual, NONCES * width);
            routed = routed.into_iter().skip(seq_len - 1).step_by(seq_len).collect();
        }
        let chosen = machine.words(Name::Chosen, routed.len() * shape.top_k);
        let apart = compare_layer(&before, &after, &expected, &v);
        let same: Vec<f64> = apart
            .into_iter()
            .enumerate()
            .filter(|(row, _)| same_experts(&shape, &chosen[row * shape.top_k..][..shape.top_k], &routed[*row]))
            .map(|(_, apart)| apart)
            .collect();
        other += routed.len() - same.len();
        let (worst, mean) = (
            same.iter().copied().fold(0.0, f64::max),
            same.iter().sum::<f64>() / same.len() as f64,
        );
        assert!(
            worst <= ROW && mean <= MEAN,
            "layer {layer}: {worst}, on average {mean}"
        );
        (before, layer) = (after, layer + 1);
    }
    assert_eq!(layer, shape.layers);
    assert!(other * 20 <= rows * shape.layers, "{other} rows chose others");
}

#[test]
fn what_row_a3_times_runs_and_leaves_numbers() {
    const NONCES: usize = 2;
    let (shape, round) = (like_minimax(), round(20));
    let (layout, batch) = (Layout::new(&shape), batch(&round, NONCES));
    for bench in [
        bench::layer(&shape, &layout, batch),
        bench::grouped_products(&shape, &layout, batch),
    ] {
        let mut machine = machine(&shape, &layout, &round, NONCES);
        for (to, bytes) in &bench.uploads {
            machine.write(*to, 0, bytes);
        }
        for step in bench.before.iter().chain(&bench.plan.steps).chain(&bench.plan.steps) {
            machine.run(step);
        }
        let routed = machine.halves(Name::Routed, NONCES * 20 * shape.top_k * shape.hidden);
        assert!(routed.iter().all(|x| x.is_finite()), "{}", bench.name);
        assert!(routed.iter().any(|x| *x != 0.0) && bench.operations > 1e6);
    }
}
