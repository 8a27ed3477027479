//! The MLP's gate, and queries and keys before attention.

use crate::{
    emulator::{Argument, Buffer, NULL, Shape, in_every_order, launch},
    numbers::{assert_same, assert_same_but_for_sums, bits, normals, round, weights, widen},
    rows,
};
use half::bf16;
use kernels::decoder::silu;
use rstest::rstest;

fn gated(gate_up: &[u16], inner: usize) -> Vec<u16> {
    let rows = gate_up.len() / inner / 2;
    in_every_order(|| {
        let out = Buffer::new(&vec![0xffff_u16; rows * inner]);
        let shape = Shape([inner.div_ceil(2048) as u32, rows as u32, 1], 256, 0);
        launch("swiglu", shape, &[&Buffer::new(gate_up), &out, &(inner as u32)]);
        out.to_vec()
    })
}

fn expected_gate(gate_up: &[u16], inner: usize) -> Vec<u16> {
    let silu = |x: f32| round((f64::from(x) / (1.0 + (-f64::from(x)).exp())) as f32);
    let row = |row: &[f32]| {
        let (gate, up) = row.split_at(inner);
        gate.iter()
            .zip(up)
            .map(|(gate, up)| silu(*gate) * up)
            .collect::<Vec<_>>()
    };
    bits(&widen(gate_up).chunks_exact(2 * inner).flat_map(row).collect::<Vec<_>>())
}

#[rstest]
fn rows_of_every_width_are_gated(#[values(8, 48, 160, 2048, 2056, 12_288)] inner: usize) {
    let gate_up = normals(8, 3 * 2 * inner);
    assert_same_but_for_sums(&gated(&gate_up, inner), &expected_gate(&gate_up, inner));
}

/// All there are: zeros, the smallest, infinities, what is no number. Below -87 the exponential ends and so does the gate.
#[test]
fn every_gate_there_is_lets_through_what_the_formula_says() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let few: Vec<u16> = all
        .iter()
        .copied()
        .filter(|&x| !(-88.0..-86.0).contains(&widen(&[x])[0]))
        .collect();
    let few = &few[..few.len() / 8 * 8];
    let gate_up: Vec<u16> = few.iter().copied().chain(normals(9, few.len())).collect();
    let found = gated(&gate_up, few.len());
    let expected = expected_gate(&gate_up, few.len());
    let (found, expected): (Vec<u16>, Vec<u16>) = few
        .iter()
        .zip(found.into_iter().zip(expected))
        .filter(|(gate, _)| !(f32::NEG_INFINITY..-86.0).contains(&widen(&[**gate])[0]))
        .map(|(_, pair)| pair)
        .unzip();
    assert!(found.len() > 40_000);
    assert_same_but_for_sums(&found, &expected);
}

/// The nearest of bf16 to an exact gate, and the one that single precision may take for it: where the exact one is as good as in the middle of both.
fn gates_of(exact: f64) -> [f32; 2] {
    let nearest = bf16::from_f32(exact as f32);
    let towards = if exact.abs() > f64::from(nearest.to_f32()).abs() {
        1
    } else {
        -1
    };
    let other = bf16::from_bits(nearest.to_bits().wrapping_add_signed(towards));
    let middle = f64::midpoint(f64::from(nearest.to_f32()), f64::from(other.to_f32()));
    if (exact - middle).abs() <= exact.abs() / 4_194_304.0 {
        [nearest.to_f32(), other.to_f32()]
    } else {
        [nearest.to_f32(); 2]
    }
}

/// All gates of bf16, each with several ups, against the formula in double precision with the reference's two roundings.
#[test]
fn every_gate_is_to_the_bit_the_exact_one_rounded_twice() {
    let gates: Vec<u16> = (0..=u16::MAX).collect();
    let mut in_the_middle = 0;
    for up in [1.0_f32, -0.6875, 300.0, 1e-3] {
        let up = round(up);
        let ups = bits(&vec![up; gates.len()]);
        let gate_up: Vec<u16> = gates.iter().copied().chain(ups).collect();
        let found = gated(&gate_up, gates.len());
        for (gate, found) in widen(&gates).into_iter().zip(found) {
            // Beyond the reach of its exponential the reference's gate is shut.
            let exact = if (f32::MIN..-88.0).contains(&gate) {
                -0.0
            } else {
                f64::from(gate) / (1.0 + (-f64::from(gate)).exp())
            };
            let wanted = gates_of(exact).map(|gate| bf16::from_f32(gate * up));
            let found = bf16::from_bits(found);
            if exact.is_nan() {
                assert!(found.is_nan(), "{gate}");
                continue;
            }
            assert!(
                wanted.contains(&found),
                "silu({gate}) × {up}: {found}, not one of {wanted:?}"
            );
            in_the_middle += usize::from(found != wanted[0]);
        }
    }
    assert!(
        in_the_middle <= 40,
        "{in_the_middle} roundings of 262,144 went the other way"
    );
}

/// Before it is rounded to bf16, where a wrong last coefficient still shows.
#[test]
fn gates_in_single_precision_are_the_references_to_the_bit() {
    let steps = (-1_000_000..1_000_000).map(|step| step as f32 * 9.1e-5);
    let ends = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::MIN,
    ];
    let inputs: Vec<f32> = steps.chain(ends).collect();
    let found = Buffer::new(&inputs);
    launch(
        "probe_silu",
        Shape([1, 1, 1], 1024, 0),
        &[&found, &(inputs.len() as u32)],
    );
    for (input, found) in inputs.iter().zip(found.iter()) {
        let wanted = silu(*input);
        assert!(
            found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan(),
            "silu({input}): {found} instead of {wanted}"
        );
    }
}

/// Heads of queries and of keys, elements of each, tokens of a sequence, position of the first.
struct Heads {
    counts: [usize; 2],
    dim: usize,
    period: usize,
    first: usize,
}

const SEQUENCES: usize = 2;

impl Heads {
    /// Room for values and some more.
    fn stride(&self) -> usize {
        (self.counts[0] + 2 * self.counts[1]) * self.dim + 8
    }

    fn rows(&self) -> usize {
        SEQUENCES * self.period
    }

    fn angles(&self) -> Vec<[f32; 2]> {
        let frequency = |pair: usize| 1e6_f64.powf(-(2.0 * pair as f64) / self.dim as f64) as f32;
        (0..self.first + self.period)
            .flat_map(|position| (0..self.dim / 2).map(move |pair| (position, pair)))
            .map(|(position, pair)| {
                let (sin, cos) = (position as f32 * frequency(pair)).sin_cos();
                [cos, sin]
            })
            .collect()
    }

    fn prepared(&self, x: &[u16], weights: Option<&[Vec<u16>; 2]>) -> Vec<u16> {
        in_every_order(|| {
            let (x, rope) = (Buffer::new(x), Buffer::new(&self.angles()));
            let weights = weights.map(|[q, k]| [Buffer::new(q), Buffer::new(k)]);
            let [q, k]: [&dyn Argument; 2] = match &weights {
                Some([q, k]) => [q, k],
                None => [&NULL, &NULL],
            };
            let sizes = [
                self.stride(),
                self.counts[0],
                self.counts[1],
                self.dim,
                self.period,
                self.first,
            ];
            let [stride, q_heads, k_heads, dim, period, first] = sizes.map(|size| size as u32);
            let shape = Shape([(q_heads + k_heads).div_ceil(8), self.rows() as u32, 1], 256, 0);
            launch(
                "head_norm_rope",
                shape,
                &[
                    &x, q, k, &rope, &stride, &q_heads, &k_heads, &dim, &period, &first, &1e-6_f32,
                ],
            );
            x.to_vec()
        })
    }

    fn expected(&self, x: &[u16], weights: Option<&[Vec<u16>; 2]>) -> Vec<u16> {
        let (half, angles) = (self.dim / 2, self.angles());
        let mut x = widen(x);
        for (row, x) in x.chunks_exact_mut(self.stride()).enumerate() {
            let angles = &angles[(self.first + row % self.period) * half..][..half];
            let heads = x.chunks_exact_mut(self.dim).take(self.counts[0] + self.counts[1]);
            for (head, x) in heads.enumerate() {
                if let Some(weights) = weights {
                    let weight = &weights[usize::from(head >= self.counts[0])];
                    x.copy_from_slice(&widen(&rows::normed(x, &widen(weight))));
                }
                for (pair, [cos, sin]) in angles.iter().enumerate() {
                    let (left, right) = (x[pair], x[pair + half]);
                    x[pair] = round(left * cos - right * sin);
                    x[pair + half] = round(right * cos + left * sin);
                }
            }
        }
        bits(&x)
    }
}

#[rstest]
fn queries_and_keys_are_normed_and_turned_and_values_left_alone(
    #[values(16, 24, 32, 64, 128, 256)] dim: usize,
    #[values([4, 4], [6, 3], [8, 1], [16, 2])] counts: [usize; 2],
    #[values((1, 0), (7, 0), (1, 6))] (period, first): (usize, usize),
    #[values(false, true)] with_norm: bool,
) {
    let heads = Heads {
        counts,
        dim,
        period,
        first,
    };
    // The last row is so small that what is added to its mean square counts.
    let mut x = widen(&normals(dim as u32, heads.rows() * heads.stride()));
    let last = x.len() - heads.stride();
    x[last..].iter_mut().for_each(|x| *x /= 1024.0);
    let x = bits(&x);
    let weights = with_norm.then(|| [weights(1, dim), weights(2, dim)]);
    let (found, expected) = (
        heads.prepared(&x, weights.as_ref()),
        heads.expected(&x, weights.as_ref()),
    );
    if with_norm {
        assert_same_but_for_sums(&found, &expected);
    } else {
        assert_same(&found, &expected);
    }
}
