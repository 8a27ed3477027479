//! `fill_inputs` against the generator it is a copy of, and against published inputs.

use crate::{
    emulator::{Buffer, Shape, in_every_order, launch},
    numbers::{assert_same, bits},
};
use kernels::{prefill_v2, rng, scheme::Round, seed};
use rstest::rstest;
use serde_json::Value;
use std::ops::Range;

/// Inputs of some nonces of `len` elements, from `segments` seeds each.
fn filled(seeds: &[u32], segments: usize, len: usize) -> Vec<u16> {
    let batch = seeds.len() / segments;
    let segment_len = len.div_ceil(segments).max(1);
    in_every_order(|| {
        let out = Buffer::new(&vec![0xffff_u16; batch * len]);
        let grid = [segment_len.div_ceil(2).div_ceil(2048), segments, batch].map(|size| size as u32);
        let sizes = [segments, segment_len, len].map(|size| size as u32);
        launch(
            "fill_inputs",
            Shape(grid, 256, 0),
            &[&out, &Buffer::new(seeds), &sizes[0], &sizes[1], &sizes[2]],
        );
        out.to_vec()
    })
}

/// Lengths odd, shorter than the eight segments, with empty and with shorter last ones, off 16-byte borders, and over many blocks.
#[rstest]
fn inputs_are_the_generators_to_the_bit(
    #[values(1, 2, 5, 8, 17, 19, 64, 512, 4097, 3072 * 7 + 8, 65_536)] len: usize,
    #[values(1, 8)] segments: usize,
) {
    let seeds: Vec<u32> = (0..3 * segments as u32)
        .map(|seed| seed.wrapping_mul(0x9e37_79b9))
        .collect();
    let mut expected = vec![0.0; 3 * len];
    for (part, seeds) in expected.chunks_exact_mut(len).zip(seeds.chunks_exact(segments)) {
        match seeds.as_array() {
            Some(seeds) => rng::fill_concat_normal(*seeds, part),
            None => rng::fill_normal(seeds[0], part),
        }
    }
    assert_same(&filled(&seeds, segments, len), &bits(&expected));
}

/// Before rounding hides the last bits: four million normals in single precision.
#[test]
fn normals_are_the_generators_to_the_last_bit_of_single_precision() {
    const HALF: usize = 1 << 18;
    for seed in 0..8_u32 {
        let seed = seed.wrapping_mul(0x0123_4567);
        let out = Buffer::new(&vec![0_f32; 2 * HALF]);
        launch(
            "probe_normals",
            Shape([1, 1, 1], 256, 0),
            &[&out, &seed, &(HALF as u32)],
        );
        let expected = rng::normal(seed, 2 * HALF);
        let other = out.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(other, None, "seed {seed}");
    }
}

/// All the generator can ask for: the count and the digest are those of `kernels/src/elementary.rs`, whose test takes them in the same order.
#[test]
fn every_uniform_gives_the_references_logarithm_sine_and_cosine_to_the_bit() {
    let out = Buffer::new(&[0_u64; 2]);
    launch("probe_every_uniform", Shape([1, 1, 1], 32, 0), &[&out]);
    assert_eq!(out[..], [83_886_081, 0xe442_90dd_c636_6b90]);
}

/// A seed for which a hash of one of the indices is as wanted: over all seeds the hashes of an index are all numbers there are.
fn seed_of(indices: Range<u32>, wanted: fn(u32) -> bool) -> u32 {
    (0..u32::MAX)
        .find(|&seed| indices.clone().any(|index| wanted(rng::hash32(index, seed))))
        .expect("one of them")
}

/// The interval of the uniforms is closed: a radius of nothing, a whole turn, and the logarithm of nothing, which is cut off.
#[rstest]
#[case::no_radius(0, |hash| hash >= u32::MAX - 127)]
#[case::a_whole_turn(1 << 10, |hash| hash >= u32::MAX - 127)]
#[case::the_longest_radius(0, |hash| hash < 64)]
fn the_ends_of_the_uniforms_are_the_generators(#[case] from: u32, #[case] wanted: fn(u32) -> bool) {
    const HALF: u32 = 1 << 10;
    let seed = seed_of(from..from + HALF, wanted);
    let count = 2 * HALF as usize;
    let out = Buffer::new(&vec![0_f32; count]);
    launch("probe_normals", Shape([1, 1, 1], 256, 0), &[&out, &seed, &HALF]);
    let found: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
    let expected: Vec<u32> = rng::normal(seed, count).iter().map(|x| x.to_bits()).collect();
    assert!(found == expected, "seed {seed}");
}

/// A hash of zero: the seed is what remains when the last steps of the hash are undone.
#[test]
fn the_logarithm_of_nothing_is_cut_off() {
    let inner = 0xe654_6b64_u32
        .wrapping_neg()
        .wrapping_mul(0xcccc_cccd)
        .rotate_right(13);
    let seed = inner
        ^ 5_u32
            .wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593);
    assert_eq!(rng::hash32(5, seed), 0);
    let out = Buffer::new(&[0_f32; 32]);
    launch("probe_normals", Shape([1, 1, 1], 32, 0), &[&out, &seed, &16_u32]);
    assert_eq!(
        out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        rng::normal(seed, 32).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    );
}

/// The published bf16 inputs are another library's: one in a thousand may be rounded to the neighbour.
#[test]
fn published_inputs_come_out_of_both_generators() {
    let document: Value = serde_json::from_str(include_str!("../../vectors/v2_rng.json")).expect("JSON");
    let mut compared = [0_usize; 2];
    for set in document["sets"].as_array().expect("sets") {
        let text = |name: &str| set[name].as_str().expect("text");
        for entry in set["inputs"].as_array().expect("inputs") {
            let nonce = entry["nonce"].as_i64().expect("number");
            for (name, array) in entry.as_object().expect("fields") {
                if !name.contains("bf16") {
                    continue;
                }
                let stronger = name.starts_with("concat_murmur");
                let published = halves(&array["hex_le"]);
                let seeds = seed::seeds_from_string(&seed::input(text("block_hash"), text("public_key"), nonce));
                let segments = if stronger { 8 } else { 1 };
                let found = filled(&seeds[..segments], segments, published.len());
                let differing = found.iter().zip(&published).filter(|(a, b)| a != b).count();
                assert!(differing * 1000 <= published.len(), "{name}: {differing} differ");
                compared[usize::from(stronger)] += published.len();
            }
        }
    }
    assert!(compared.iter().all(|&count| count > 1000), "{compared:?}");
}

fn halves(hex_le: &Value) -> Vec<u16> {
    let bytes = hex::decode(hex_le.as_str().unwrap_or_default()).expect("hex");
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|pair| u16::from_le_bytes(*pair))
        .collect()
}

/// A round's inputs as the scheme makes them, in one launch for all its nonces.
#[rstest]
fn a_batch_is_what_the_scheme_makes_nonce_by_nonce(#[values(false, true)] stronger_rng: bool) {
    const LEN: usize = 13 * 96;
    let round = Round {
        block_hash: "C0DEC0DE".into(),
        public_key: "02feed".into(),
        seq_len: 13,
        k_dim: 12,
        stronger_rng,
    };
    let segments = if stronger_rng { 8 } else { 1 };
    let (mut seeds, mut expected) = (Vec::new(), vec![0.0; 4 * LEN]);
    for (nonce, part) in (-1_i64..).zip(expected.chunks_exact_mut(LEN)) {
        let text = seed::input(&round.block_hash, &round.public_key, nonce);
        seeds.extend_from_slice(&seed::seeds_from_string(&text)[..segments]);
        prefill_v2::fill_input(&round, nonce, part);
    }
    assert_same(&filled(&seeds, segments, LEN), &bits(&expected));
}
