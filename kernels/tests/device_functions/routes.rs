//! From tokens to experts and back: logits, choices, their order, the sum of what experts give; queries and keys normed as a whole.

use crate::{
    emulator::{Argument, Buffer, NULL, Shape, bank_conflicts, in_every_order, launch},
    numbers::{assert_same, assert_same_but_for_sums, bits, normals, round, weights, widen},
    rows,
};
use half::bf16;
use kernels::{moe, rng};
use rstest::rstest;

fn router(x: &[u16], weights: &[f32], (rows, experts, width): (usize, usize, usize)) -> Vec<u32> {
    // High, middle and low part of each weight.
    let mut rest = weights.to_vec();
    let mut parts = Vec::new();
    for _ in 0..3 {
        let part = bits(&rest);
        for (rest, part) in rest.iter_mut().zip(&part) {
            *rest -= bf16::from_bits(*part).to_f32();
        }
        parts.extend(part);
    }
    let out = Buffer::new(&vec![0_u32; rows * experts]);
    let grid = [experts.div_ceil(64), rows.div_ceil(64), 1].map(|size| size as u32);
    let sizes = [rows, experts, width].map(|size| size as u32);
    let (x, parts) = (Buffer::new(x), Buffer::new(&parts));
    let shape = Shape(grid, 128, 65_536);
    launch("router", shape, &[&x, &parts, &out, &sizes[0], &sizes[1], &sizes[2]]);
    out.to_vec()
}

#[rstest]
#[case(1, 8, 128)]
#[case(70, 100, 256)]
#[case(64, 256, 384)]
fn logits_are_single_precisions(#[case] rows: usize, #[case] experts: usize, #[case] width: usize) {
    let (x, weights) = (normals(3, rows * width), rng::normal(4, experts * width));
    let found = in_every_order(|| router(&x, &weights, (rows, experts, width)));
    let x = widen(&x);
    for (at, found) in found.into_iter().map(f32::from_bits).enumerate() {
        let (row, expert) = (at / experts, at % experts);
        let (mut exact, mut amount) = (0.0, 0.0);
        for k in 0..width {
            let term = f64::from(x[row * width + k]) * f64::from(weights[expert * width + k]);
            exact += term;
            amount += term.abs();
        }
        // One rounding of single precision for each of the additions of sixteen products.
        let within = amount * 2.0_f64.powi(-24) * (3 * width / 16) as f64;
        assert!((f64::from(found) - exact).abs() <= within, "{row} {expert}");
    }
    assert_eq!(
        bank_conflicts(|| drop(router(&bits(&x), &weights, (rows, experts, width)))),
        0
    );
}

/// A token with a single one in it: the logit is the weight, all of its bits.
#[test]
fn a_weight_in_single_precision_is_met_whole() {
    const WIDTH: usize = 128;
    let weights = rng::normal(4, 64 * WIDTH);
    let mut x = vec![0_u16; WIDTH];
    x[77] = 0x3f80;
    let found = router(&x, &weights, (1, 64, WIDTH));
    for (expert, found) in found.into_iter().enumerate() {
        assert_eq!(found, weights[expert * WIDTH + 77].to_bits(), "{expert}");
    }
}

/// Choices and the bits of their weights.
fn routed(logits: &[f32], bias: Option<&[f32]>, (experts, top_k): (usize, usize)) -> (Vec<u32>, Vec<u32>) {
    let rows = logits.len() / experts;
    in_every_order(|| {
        let (chosen, weights) = (
            Buffer::new(&vec![u32::MAX; rows * top_k]),
            Buffer::new(&vec![0_u32; rows * top_k]),
        );
        let (logits, bias) = (Buffer::new(logits), bias.map(Buffer::new));
        let bias: &dyn Argument = bias.as_ref().map_or(&NULL, |bias| bias);
        let sizes = [rows, experts, top_k].map(|size| size as u32);
        let shape = Shape([rows.div_ceil(4) as u32, 1, 1], 128, 0);
        launch(
            "route",
            shape,
            &[&logits, bias, &chosen, &weights, &sizes[0], &sizes[1], &sizes[2]],
        );
        (chosen.to_vec(), weights.to_vec())
    })
}

/// A sigmoid is the reference's to the bit; a softmax's sum is added in another order, which moves scores by less than this.
const SOFTMAX_MARGIN: f32 = 1e-6;

#[rstest]
#[case(256, 8)]
#[case(128, 8)]
#[case(8, 2)]
#[case(33, 32)]
#[case(512, 1)]
#[case(4, 4)]
fn the_best_experts_are_the_references(
    #[case] experts: usize,
    #[case] top_k: usize,
    #[values(false, true)] sigmoid: bool,
) {
    const ROWS: usize = 37;
    let mut logits = rng::normal(experts as u32, ROWS * experts);
    // Coarse numbers are often equal.
    logits[..5 * experts].iter_mut().for_each(|x| *x = (*x * 2.0).round());
    let bias = sigmoid.then(|| rng::normal(5, experts));
    let (chosen, weights) = routed(&logits, bias.as_deref(), (experts, top_k));
    for row in 0..ROWS {
        let expected = moe::choose(&logits[row * experts..][..experts], bias.as_deref(), top_k);
        let chosen: Vec<usize> = chosen[row * top_k..][..top_k].iter().map(|x| *x as usize).collect();
        let weights = weights[row * top_k..][..top_k].iter().map(|bits| f32::from_bits(*bits));
        assert_eq!(chosen, expected.experts, "row {row}");
        for (found, expected) in weights.zip(&expected.weights) {
            let within = if sigmoid { 0.0 } else { SOFTMAX_MARGIN };
            assert!((found - expected).abs() <= within * expected, "row {row}");
        }
    }
}

#[test]
fn equals_go_by_number_and_what_is_no_number_comes_last() {
    let mut logits = vec![0.25; 3 * 70];
    logits[70 + 64] = 0.5;
    logits[140..].fill(f32::NAN);
    logits[140 + 69] = -3.0;
    let bias = vec![0.0; 70];
    for bias in [None, Some(&bias[..])] {
        let (chosen, weights) = routed(&logits, bias, (70, 4));
        assert_eq!(chosen[..8], [0, 1, 2, 3, 64, 0, 1, 2]);
        // A softmax over what is no number is none anywhere.
        let last = if bias.is_some() { [69, 0, 1, 2] } else { [0, 1, 2, 3] };
        assert_eq!(chosen[8..], last);
        assert!(weights[8..].iter().all(|bits| f32::from_bits(*bits).is_nan()));
    }
}

/// First places, first tiles, order, places.
type Sorted = [Vec<u32>; 4];

fn sorted(chosen: &[u32], experts: usize, tile: u32) -> Sorted {
    let (pairs, blocks) = (chosen.len(), chosen.len().div_ceil(2048));
    let threads = experts.next_multiple_of(32) as u32;
    in_every_order(|| {
        let counts = Buffer::new(&vec![u32::MAX; blocks * experts]);
        let out = [experts + 1, experts + 1, pairs, pairs].map(|len| Buffer::new(&vec![u32::MAX; len]));
        let chosen = Buffer::new(chosen);
        let shape = Shape([blocks as u32, 1, 1], threads, 0);
        let sizes = [pairs as u32, experts as u32];
        launch("count_routes", shape, &[&chosen, &counts, &sizes[0], &sizes[1]]);
        launch(
            "place_routes",
            shape,
            &[
                &chosen, &counts, &out[0], &out[1], &out[2], &out[3], &sizes[0], &sizes[1], &tile,
            ],
        );
        out.map(|buffer| buffer.to_vec())
    })
}

#[rstest]
#[case(1, 8)]
#[case(2048, 256)]
#[case(2049, 12)]
#[case(6000, 128)]
fn pairs_are_sorted_by_expert_then_by_token(#[case] pairs: usize, #[case] experts: usize) {
    // Some experts are nobody's.
    let chosen: Vec<u32> = rng::normal(6, pairs)
        .iter()
        .map(|x| (x.abs() * 40.0) as u32 % experts as u32 / 2 * 2)
        .collect();
    let [starts, tiles, order, places] = sorted(&chosen, experts, 128);
    let mut expected: Vec<u32> = (0..pairs as u32).collect();
    expected.sort_by_key(|pair| chosen[*pair as usize]);
    assert_eq!(order, expected);
    for (place, pair) in order.iter().enumerate() {
        assert_eq!(places[*pair as usize] as usize, place);
    }
    let (mut start, mut tile) = (0, 0);
    for expert in 0..experts {
        assert_eq!((starts[expert], tiles[expert]), (start, tile), "expert {expert}");
        let count = chosen.iter().filter(|x| **x == expert as u32).count() as u32;
        (start, tile) = (start + count, tile + count.div_ceil(128));
    }
    assert_eq!((starts[experts], tiles[experts]), (start, tile));
}

#[rstest]
fn outputs_are_added_by_weight_best_first(#[values(128, 1152, 3072)] width: usize, #[values(1, 8)] top_k: usize) {
    const ROWS: usize = 3;
    let outputs = normals(width as u32, ROWS * top_k * width);
    let weights = rng::normal(9, ROWS * top_k);
    let pairs = ROWS * top_k;
    let places: Vec<u32> = (0..pairs).map(|pair| ((pair * 5 + 2) % pairs) as u32).collect();
    let found = in_every_order(|| {
        let out = Buffer::new(&vec![0xffff_u16; ROWS * width]);
        let operands = (Buffer::new(&outputs), Buffer::new(&places), Buffer::new(&weights));
        let sizes = [width as u32, top_k as u32];
        launch(
            "combine",
            Shape([ROWS as u32, 1, 1], 128, 0),
            &[&operands.0, &operands.1, &operands.2, &out, &sizes[0], &sizes[1]],
        );
        out.to_vec()
    });
    let outputs = widen(&outputs);
    let mut expected = vec![0.0_f32; ROWS * width];
    for (row, expected) in expected.chunks_exact_mut(width).enumerate() {
        for pair in row * top_k..(row + 1) * top_k {
            for (at, expected) in expected.iter_mut().enumerate() {
                *expected += weights[pair] * outputs[places[pair] as usize * width + at];
            }
        }
    }
    assert_same(&found, &bits(&expected));
}

/// Heads, elements of each, how many of them are turned.
#[rstest]
#[case(1, 128, 64)]
#[case(4, 64, 32)]
#[case(48, 128, 64)]
#[case(8, 32, 32)]
#[case(3, 64, 16)]
fn a_part_of_each_head_is_turned_after_a_norm_of_all(
    #[case] heads: usize,
    #[case] dim: usize,
    #[case] rotary: usize,
    #[values(false, true)] with_norm: bool,
    #[values((3, 0), (1, 6))] (period, first): (usize, usize),
) {
    let (width, rows, half) = (heads * dim, 2 * period, rotary / 2);
    let stride = width + 40;
    let x = normals(width as u32, rows * stride);
    let weight = weights(5, width);
    let angles: Vec<[f32; 2]> = (0..first + period)
        .flat_map(|position| (0..half).map(move |pair| (position, pair)))
        .map(|(position, pair)| {
            let (sin, cos) = (position as f32 * 0.7_f32.powi(pair as i32)).sin_cos();
            [cos, sin]
        })
        .collect();
    let found = in_every_order(|| {
        let (x, weight, rope) = (Buffer::new(&x), Buffer::new(&weight), Buffer::new(&angles));
        let norm: &dyn Argument = if with_norm { &weight } else { &NULL };
        let sizes = [stride, width, dim, rotary, period, first].map(|size| size as u32);
        let mut arguments: Vec<&dyn Argument> = vec![&x, norm, &rope];
        arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
        arguments.push(&1e-6_f32);
        let shape = Shape([rows as u32, 1, 1], 256, 2 * width as u32);
        launch("whole_norm_rope", shape, &arguments);
        x.to_vec()
    });
    let mut expected = widen(&x);
    for (row, x) in expected.chunks_exact_mut(stride).enumerate() {
        let angles = &angles[(first + row % period) * half..][..half];
        if with_norm {
            let normed = widen(&rows::normed(&x[..width], &widen(&weight)));
            x[..width].copy_from_slice(&normed);
        }
        for head in x[..width].chunks_exact_mut(dim) {
            for (pair, [cos, sin]) in angles.iter().enumerate() {
                let (left, right) = (head[pair], head[pair + half]);
                head[pair] = round(left * cos - right * sin);
                head[pair + half] = round(right * cos + left * sin);
            }
        }
    }
    if with_norm {
        assert_same_but_for_sums(&found, &bits(&expected));
    } else {
        assert_same(&found, &bits(&expected));
    }
}
