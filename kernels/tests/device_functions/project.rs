//! `project` against the reference and against published artifacts.

use crate::{
    emulator::{Buffer, Shape, in_every_order, launch},
    numbers::{bits, normals, widen},
};
use half::f16;
use kernels::{artifact, rng, seed, statistics};
use rstest::rstest;
use serde_json::Value;

const HASH: &str = "C0DEC0DE00112233445566778899AABBCCDDEEFF0123456789ABCDEF01234567";
const KEY: &str = "02feed";

fn seeds(block_hash: &str, public_key: &str, nonce: i64, k: usize) -> Vec<u32> {
    let pick = seed::seed_from_string(&seed::pick(block_hash, public_key, nonce, k));
    let rotation = |index| seed::seed_from_string(&seed::rotation(block_hash, public_key, nonce, k, index));
    [pick].into_iter().chain((0..k - 1).map(rotation)).collect()
}

/// An artifact and a flag for each state.
fn projected(states: &[u16], seeds: &[u32], k: usize) -> Vec<(Vec<u16>, u32)> {
    let batch = seeds.len() / k;
    in_every_order(|| {
        let (artifacts, flags) = (
            Buffer::new(&vec![0xffff_u16; batch * k]),
            Buffer::new(&vec![7_u32; batch]),
        );
        let (state, seeds) = (Buffer::new(states), Buffer::new(seeds));
        let sizes = [states.len() / batch, k].map(|size| size as u32);
        launch(
            "project",
            Shape([batch as u32, 1, 1], 256, 0),
            &[&state, &seeds, &artifacts, &flags, &sizes[0], &sizes[1]],
        );
        artifacts
            .chunks_exact(k)
            .map(<[u16]>::to_vec)
            .zip(flags.iter().copied())
            .collect()
    })
}

fn expected(state: &[u16], nonce: i64, k: usize) -> (Vec<u16>, u32) {
    match artifact::project(&widen(state), HASH, KEY, nonce, k) {
        Some(projection) => {
            let bytes = projection.encode();
            (
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|pair| u16::from_le_bytes(*pair))
                    .collect(),
                0,
            )
        }
        None => (vec![0; k], 1),
    }
}

#[rstest]
fn artifacts_are_the_references_to_the_bit(
    #[values(64, 96, 1024, 4096, 5120, 16_384)] width: usize,
    #[values(1, 2, 11, 12, 31, 32)] k: usize,
) {
    let nonces = [0_i64, 1, 99_999];
    let states = normals(width as u32, nonces.len() * width);
    let seeds: Vec<u32> = nonces.iter().flat_map(|&nonce| seeds(HASH, KEY, nonce, k)).collect();
    let found = projected(&states, &seeds, k);
    for ((state, nonce), found) in states.chunks_exact(width).zip(nonces).zip(found) {
        assert_eq!(found, expected(state, nonce, k), "nonce {nonce}");
    }
}

/// A model as wide as the artifact is picked whole.
#[test]
fn every_dimension_may_be_picked() {
    let state = normals(5, 32);
    assert_eq!(
        projected(&state, &seeds(HASH, KEY, 4, 32), 32),
        [expected(&state, 4, 32)]
    );
}

#[rstest]
fn a_state_that_is_not_finite_has_no_artifact_and_its_neighbours_have_theirs(
    #[values(0x7f80, 0xff80, 0x7fc0, 0x7f81)] spoilt: u16,
    #[values(0, 511, 1023)] at: usize,
) {
    let mut states = normals(6, 3 * 1024);
    states[1024 + at] = spoilt;
    let seeds: Vec<u32> = (0..3).flat_map(|nonce| seeds(HASH, KEY, nonce, 12)).collect();
    let found = projected(&states, &seeds, 12);
    assert_eq!(found.iter().map(|(_, flag)| *flag).collect::<Vec<_>>(), [0, 1, 0]);
    for ((state, nonce), found) in states.chunks_exact(1024).zip(0..).zip(found) {
        assert_eq!(found, expected(state, nonce, 12));
    }
}

/// Nothing, and numbers whose squares single precision cannot hold.
#[rstest]
fn states_of_extreme_lengths_are_projected(#[values(0.0, 1e-30, 1e30)] size: f32) {
    let states = bits(&rng::normal(7, 1024).iter().map(|x| x * size).collect::<Vec<_>>());
    assert_eq!(
        projected(&states, &seeds(HASH, KEY, 3, 12), 12),
        [expected(&states, 3, 12)]
    );
}

/// The published artifacts of given states, grown with another library: one step of bf16 may lie between two states. Another order of
/// picks is farther away than one.
#[test]
fn published_artifacts_come_out_of_their_states() {
    let document: Value = serde_json::from_str(include_str!("../../vectors/v2_rng.json")).expect("JSON");
    let mut compared = 0;
    for set in document["sets"].as_array().expect("sets") {
        let text = |name: &str| set[name].as_str().expect("text");
        let (hash, key) = (text("block_hash"), text("public_key"));
        for entry in set["postprocess_last_hidden_to_artifact"].as_array().expect("states") {
            let width = entry["dim"].as_u64().expect("number") as usize;
            let k = entry["xk_f32"]["shape"][1].as_u64().expect("number") as usize;
            let published = entry["vector_b64_cuda_order"].as_array().expect("artifacts");
            for (nonce, published) in set["nonces"].as_array().expect("nonces").iter().zip(published) {
                let nonce = nonce.as_i64().expect("number");
                let state = normals(seed::seed_from_string(&format!("{hash}_post_test_{nonce}")), width);
                let found = projected(&state, &seeds(hash, key, nonce, k), k);
                let published = artifact::from_base64(published.as_str().expect("text")).expect("base64");
                let published = artifact::decode(&published).expect("halves");
                let found: Vec<f32> = found[0].0.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect();
                let distance = statistics::distance(&found, &published);
                assert!(distance < 5e-3, "{distance}");
                compared += 1;
            }
        }
    }
    assert!(compared > 10, "{compared}");
}
