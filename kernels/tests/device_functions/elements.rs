//! The MLP's gate, and queries and keys before attention.

use crate::{
    emulator::{Argument, Buffer, NULL, Shape, in_every_order, launch},
    numbers::{assert_same, assert_same_but_for_sums, bits, normals, round, weights, widen},
    rows,
};
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
