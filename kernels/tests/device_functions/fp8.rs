//! Numbers of eight bits: the tensor core's product of them, and activations on their way into it.

use crate::{
    emulator::{Buffer, Shape, in_every_order, launch},
    numbers::{normals, round, widen},
};
use kernels::{
    fp8::{GROUP, Rows, decode},
    rng,
};
use rstest::rstest;

/// Registers as the PTX ISA's tables for m16n8k32 say, written from the tables and not from the emulator.
#[test]
fn the_product_of_codes_takes_its_operands_from_where_the_tables_say() {
    let code = |seed: u32, at: usize| (rng::normal(seed, 512)[at].to_bits() >> 13) as u8 & 0xbf;
    let a: Vec<u8> = (0..16 * 32).map(|at| code(1, at)).collect();
    let b: Vec<u8> = (0..32 * 8).map(|at| code(2, at)).collect();
    let word = |bytes: [u8; 4]| u32::from_le_bytes(bytes);
    let of_a = |lane: usize, register: usize| {
        let (row, first) = (lane / 4 + register % 2 * 8, lane % 4 * 4 + register / 2 * 16);
        word(std::array::from_fn(|i| a[row * 32 + first + i]))
    };
    let of_b = |lane: usize, register: usize| {
        let (column, first) = (lane / 4, lane % 4 * 4 + register * 16);
        word(std::array::from_fn(|i| b[(first + i) * 8 + column]))
    };
    let all = |count: usize, of: &dyn Fn(usize, usize) -> u32| -> Vec<u32> {
        (0..32 * count).map(|at| of(at / count, at % count)).collect()
    };
    let found = in_every_order(|| {
        let c = Buffer::new(&[0.5_f32; 128]);
        let (a, b) = (Buffer::new(&all(4, &of_a)), Buffer::new(&all(2, &of_b)));
        launch("probe_multiply_codes", Shape([1, 1, 1], 32, 0), &[&a, &b, &c]);
        c.to_vec()
    });
    for (at, found) in found.into_iter().enumerate() {
        let (lane, i) = (at / 4, at % 4);
        let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
        let exact: f64 = (0..32)
            .map(|k| f64::from(decode(a[row * 32 + k])) * f64::from(decode(b[k * 8 + column])))
            .sum();
        assert_eq!(found.to_bits(), ((exact + 0.5) as f32).to_bits(), "{row} {column}");
    }
}

/// Every number of sixteen bits there is, zeros, the smallest and what is none among them.
#[test]
fn every_bf16_is_quantised_as_by_the_reference_to_the_bit() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let (codes, scales) = quantised(&all);
    let expected = Rows::quantise(&widen(&all), GROUP);
    for (at, found) in codes.iter().enumerate() {
        assert_eq!(*found, expected.codes[at], "{at:#x}");
    }
    for (at, found) in scales.iter().enumerate() {
        assert_eq!(*found, expected.scales[at].to_bits(), "group {at}");
    }
}

/// The ties that normals hardly meet: a group whose scale is one holds numbers half way between two codes.
#[test]
fn ties_go_to_the_even_code() {
    let mut x = vec![0_u16; GROUP];
    for (at, x) in x.iter_mut().enumerate() {
        let number = f32::midpoint(decode(at as u8), decode((at as u8 + 1).min(0x7e)));
        *x = (number.to_bits() >> 16) as u16;
    }
    x[127] = (448.0_f32.to_bits() >> 16) as u16;
    let (codes, scales) = quantised(&x);
    assert_eq!(scales, [1.0_f32.to_bits()]);
    for (at, code) in codes[..125].iter().enumerate() {
        assert_eq!(usize::from(*code), at + at % 2);
    }
}

fn quantised(x: &[u16]) -> (Vec<u8>, Vec<u32>) {
    let groups = x.len() / GROUP;
    in_every_order(|| {
        let (codes, scales) = (Buffer::new(&vec![0x7f_u8; x.len()]), Buffer::new(&vec![0_u32; groups]));
        let shape = Shape([groups.div_ceil(16) as u32, 1, 1], 256, 0);
        let x = Buffer::new(x);
        launch("quantize", shape, &[&x, &codes, &scales, &(groups as u32)]);
        (codes.to_vec(), scales.to_vec())
    })
}

#[rstest]
fn what_the_gate_lets_through_is_quantised(#[values(128, 384, 1536)] inner: usize, #[values(1, 5)] rows: usize) {
    let gate_up = normals(inner as u32, rows * 2 * inner);
    let groups = rows * inner / GROUP;
    let (codes, scales) = in_every_order(|| {
        let codes = Buffer::new(&vec![0x7f_u8; rows * inner]);
        let scales = Buffer::new(&vec![0_f32; groups]);
        let shape = Shape([groups.div_ceil(16) as u32, 1, 1], 256, 0);
        let (from, sizes) = (Buffer::new(&gate_up), [groups, inner / GROUP].map(|size| size as u32));
        launch(
            "swiglu_quantize",
            shape,
            &[&from, &codes, &scales, &sizes[0], &sizes[1]],
        );
        (codes.to_vec(), scales.to_vec())
    });
    let silu = |x: f32| round((f64::from(x) / (1.0 + (-f64::from(x)).exp())) as f32);
    let gated: Vec<f32> = widen(&gate_up)
        .chunks_exact(2 * inner)
        .flat_map(|row| {
            let (gate, up) = row.split_at(inner);
            gate.iter()
                .zip(up)
                .map(|(g, up)| round(silu(*g) * up))
                .collect::<Vec<_>>()
        })
        .collect();
    let expected = Rows::quantise(&gated, inner);
    let differing = codes.iter().zip(&expected.codes).filter(|(a, b)| a != b).count();
    // One silu in five hundred may be rounded to a neighbour, and few of those change a code.
    assert!(differing * 500 <= codes.len(), "{differing} of {}", codes.len());
    for (found, expected) in scales.iter().zip(&expected.scales) {
        assert!((found / expected - 1.0).abs() <= 1.0 / 128.0);
    }
}
