//! Norms, residual additions and reflections of whole rows.

use crate::{
    emulator::{Buffer, Shape, in_every_order, launch},
    numbers::{assert_same, assert_same_but_for_sums, bits, normals, round, weights, widen},
};
use kernels::{decoder::Bf16, householder};
use rstest::rstest;

const ROWS: usize = 5;
const EPS: f32 = 1e-6;

/// A thread for every 16 elements, in whole warps.
pub(crate) fn threads(width: usize) -> u32 {
    (width.div_ceil(16).next_multiple_of(32) as u32).clamp(32, 1024)
}

/// The norm of each row, its sum in double precision.
pub(crate) fn normed(rows: &[f32], weight: &[f32]) -> Vec<u16> {
    let norm = |row: &[f32]| {
        let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let scale = 1.0 / (squares as f32 / row.len() as f32 + EPS).sqrt();
        let normed: Vec<f32> = row.iter().zip(weight).map(|(x, w)| round(x * scale) * w).collect();
        bits(&normed)
    };
    rows.chunks_exact(weight.len()).flat_map(norm).collect()
}

fn added(hidden: &[f32], residual: &[f32]) -> Vec<f32> {
    hidden.iter().zip(residual).map(|(a, b)| round(a + b)).collect()
}

/// Hidden, residual, reflection vector, norm weight.
fn operands(width: usize) -> [Vec<u16>; 4] {
    let seed = width as u32;
    let v = bits(&householder::reflection_vector("AB", 3, width));
    [
        normals(seed, ROWS * width),
        normals(seed + 1, ROWS * width),
        v,
        weights(seed + 2, width),
    ]
}

#[rstest]
fn rows_are_normed_as_by_the_reference(#[values(8, 64, 96, 520, 1024, 2560, 4096, 5120, 8200, 16_384)] width: usize) {
    let [_, residual, _, weight] = operands(width);
    let found = in_every_order(|| {
        let out = Buffer::new(&vec![0xffff_u16; residual.len()]);
        let shape = Shape([ROWS as u32, 1, 1], threads(width), 0);
        let arguments = (Buffer::new(&residual), Buffer::new(&weight), width as u32);
        launch("norm", shape, &[&arguments.0, &arguments.1, &out, &arguments.2, &EPS]);
        out.to_vec()
    });
    assert_same_but_for_sums(&found, &normed(&widen(&residual), &widen(&weight)));
}

/// One of the two kernels that add: what is left as residual and as norm.
fn sum_and_norm(kernel: &str, width: usize, [hidden, residual, v, weight]: &[Vec<u16>; 4]) -> (Vec<u16>, Vec<u16>) {
    in_every_order(|| {
        let (hidden, sum, v, weight) = (
            Buffer::new(hidden),
            Buffer::new(residual),
            Buffer::new(v),
            Buffer::new(weight),
        );
        let out = Buffer::new(&vec![0xffff_u16; sum.len()]);
        let shape = Shape([ROWS as u32, 1, 1], threads(width), 0);
        if kernel == "add_norm" {
            launch(kernel, shape, &[&hidden, &sum, &weight, &out, &(width as u32), &EPS]);
        } else {
            launch(
                kernel,
                shape,
                &[&hidden, &sum, &v, &weight, &out, &(width as u32), &EPS],
            );
        }
        (sum.to_vec(), out.to_vec())
    })
}

#[rstest]
fn rows_are_added_and_normed_as_by_the_reference(#[values(8, 64, 96, 1024, 4096, 5120, 16_384)] width: usize) {
    let operands = operands(width);
    let (sum, out) = sum_and_norm("add_norm", width, &operands);
    let [hidden, residual, _, weight] = operands.map(|bits| widen(&bits));
    let expected = added(&hidden, &residual);
    assert_same(&sum, &bits(&expected));
    assert_same_but_for_sums(&out, &normed(&expected, &weight));
}

/// Vectors of length one, and long ones that make every rounding step count.
#[rstest]
fn both_streams_are_reflected_then_added_and_normed(
    #[values(8, 64, 96, 1024, 4096, 5120, 16_384)] width: usize,
    #[values(1.0, 3.0)] length: f32,
) {
    let mut operands = operands(width);
    let v: Vec<f32> = widen(&operands[2]).iter().map(|x| x * length).collect();
    operands[2] = bits(&v);
    let (sum, out) = sum_and_norm("reflect_add_norm", width, &operands);
    let [mut hidden, mut residual, v, weight] = operands.map(|bits| widen(&bits));
    householder::reflect::<Bf16>(&mut hidden, &v);
    householder::reflect::<Bf16>(&mut residual, &v);
    let expected = added(&hidden, &residual);
    assert_same(&sum, &bits(&expected));
    assert_same_but_for_sums(&out, &normed(&expected, &weight));
}

#[test]
fn a_row_that_is_not_finite_spoils_itself_alone() {
    const WIDTH: usize = 96;
    let mut operands = operands(WIDTH);
    operands[0][2 * WIDTH + 5] = 0x7f80;
    operands[1][3 * WIDTH + 95] = 0x7fc0;
    let (_, out) = sum_and_norm("reflect_add_norm", WIDTH, &operands);
    for (row, out) in widen(&out).chunks_exact(WIDTH).enumerate() {
        let spoilt = out.iter().filter(|x| x.is_nan()).count();
        assert_eq!(spoilt, if row == 2 || row == 3 { WIDTH } else { 0 }, "row {row}");
    }
}

#[rstest]
fn the_last_row_of_each_sequence_is_gathered(#[values(1, 7, 65)] seq_len: usize, #[values(8, 96, 4096)] width: usize) {
    let from = normals(4, 3 * seq_len * width);
    let found = in_every_order(|| {
        let to = Buffer::new(&vec![0xffff_u16; 3 * width]);
        let shape = Shape([3, 1, 1], 256, 0);
        launch(
            "gather_last",
            shape,
            &[&Buffer::new(&from), &to, &(seq_len as u32), &(width as u32)],
        );
        to.to_vec()
    });
    let expected: Vec<u16> = from
        .chunks_exact(seq_len * width)
        .flat_map(|sequence| &sequence[(seq_len - 1) * width..])
        .copied()
        .collect();
    assert_same(&found, &expected);
}
