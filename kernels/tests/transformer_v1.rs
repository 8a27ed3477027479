//! Scheme `transformer_v1` as a host and a validator use it, on the published small models.

use kernels::{
    scheme::{Artifact, Error, Prepared, Round, Scheme as _},
    transformer_v1::{NAME, Params, R_TARGET, STAT_TEST, TransformerV1, decode},
};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::{LazyLock, Mutex};

/// A target most nonces of a model with few outputs miss, and some hit.
const TARGET: f64 = 1.398_077;

fn params() -> Params {
    Params {
        dim: 64,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: 96,
        multiple_of: 32,
        seq_len: 8,
        ..Params::default()
    }
}

fn round() -> Round {
    Round {
        block_hash: "AB".to_owned(),
        public_key: "02ab".to_owned(),
        seq_len: 8,
        k_dim: 1,
        stronger_rng: false,
    }
}

fn prepare(round: &Round) -> Box<dyn Prepared> {
    let scheme = TransformerV1::new(params(), TARGET).expect("valid");
    assert_eq!(scheme.name(), NAME);
    scheme.prepare(round).expect("prepared")
}

#[test]
fn the_published_distances_of_the_small_models_come_out_of_the_scheme() {
    let text = include_str!("../vectors/v1_model_small.json");
    let document: Value = serde_json::from_str(text).expect("JSON");
    for case in document["cases"].as_array().expect("cases").iter().take(2) {
        let params: Params = serde_json::from_value(case["params"].clone()).expect("params");
        let text = |name: &str| case[name].as_str().expect("text").to_owned();
        let round = Round {
            block_hash: text("block_hash"),
            public_key: text("public_key"),
            seq_len: params.seq_len,
            ..round()
        };
        let nonces: Vec<i64> = serde_json::from_value(case["nonces"].clone()).expect("nonces");
        let distances: Vec<f64> = serde_json::from_value(case["distances_fp16arith_fp32acc"].clone()).expect("numbers");
        let mut prepared = TransformerV1::new(params, 2.0)
            .expect("valid")
            .prepare(&round)
            .expect("prepared");
        let batch = prepared.generate(&nonces).expect("generated");
        assert_eq!(batch.artifacts.len(), nonces.len());
        for ((artifact, nonce), published) in batch.artifacts.iter().zip(&nonces).zip(&distances) {
            assert_eq!(artifact.nonce, *nonce);
            let distance = decode(&artifact.vector).expect("eight bytes");
            assert!((distance - published).abs() < 1e-4, "{distance} {published}");
        }
        // With the network's target only the nonces below it count.
        let params: Params = serde_json::from_value(case["params"].clone()).expect("params");
        let mut prepared = TransformerV1::new(params, R_TARGET)
            .expect("valid")
            .prepare(&round)
            .expect("prepared");
        let hits: Vec<i64> = prepared
            .generate(&nonces)
            .expect("generated")
            .artifacts
            .iter()
            .map(|a| a.nonce)
            .collect();
        let expected: Vec<i64> = nonces
            .iter()
            .zip(&distances)
            .filter(|(_, distance)| **distance < R_TARGET)
            .map(|(nonce, _)| *nonce)
            .collect();
        assert!(!expected.is_empty() && expected.len() < nonces.len());
        assert_eq!(hits, expected);
    }
}

#[test]
fn nonces_computed_together_or_alone_give_the_same_bits() {
    let mut prepared = prepare(&round());
    let nonces: Vec<i64> = (0..40).collect();
    let together = prepared.generate(&nonces).expect("generated").artifacts;
    let mut alone = Vec::new();
    for nonce in nonces {
        alone.extend(prepared.generate(&[nonce]).expect("generated").artifacts);
    }
    assert_eq!(together, alone);
}

#[test]
fn an_honest_batch_is_accepted() {
    let mut prover = prepare(&round());
    let batch = prover.generate(&(0..200).collect::<Vec<_>>()).expect("generated");
    assert!(batch.artifacts.len() > 10);
    let verdict = prepare(&round())
        .validate(&batch.artifacts, &STAT_TEST)
        .expect("validated");
    assert_eq!(
        (verdict.total as usize, verdict.mismatch_nonces),
        (batch.artifacts.len(), Vec::new())
    );
    assert!(!verdict.fraud);
    assert_eq!(verdict.computed, batch.artifacts);
}

#[test]
fn claimed_misses_are_found_and_many_of_them_are_fraud() {
    let mut prepared = prepare(&round());
    let hits = prepared
        .generate(&(0..100).collect::<Vec<_>>())
        .expect("generated")
        .artifacts;
    let misses: Vec<i64> = (0..100)
        .filter(|nonce| hits.iter().all(|hit| hit.nonce != *nonce))
        .collect();
    let claimed: Vec<Artifact> = misses
        .iter()
        .map(|&nonce| Artifact {
            nonce,
            vector: 1.3_f64.to_le_bytes().to_vec(),
        })
        .collect();
    let verdict = prepared.validate(&claimed, &STAT_TEST).expect("validated");
    assert_eq!(verdict.mismatch_nonces, misses);
    assert!(verdict.fraud);
    // Under another key the same hits are misses, but for chance.
    let other = Round {
        public_key: "02ac".to_owned(),
        ..round()
    };
    let verdict = prepare(&other).validate(&hits, &STAT_TEST).expect("validated");
    assert!(verdict.fraud);
}

#[test]
fn rounds_and_batches_that_make_no_sense_are_refused() {
    let scheme = TransformerV1::new(params(), TARGET).expect("valid");
    let refuse = |round: Round| scheme.prepare(&round).err().expect("refused");
    assert_eq!(refuse(Round { seq_len: 9, ..round() }), Error::SeqLen(9));
    assert_eq!(
        refuse(Round { k_dim: 12, ..round() }),
        Error::KDim { k_dim: 12, hidden: 1 }
    );
    assert_eq!(
        refuse(Round {
            stronger_rng: true,
            ..round()
        }),
        Error::StrongerRng(NAME)
    );
    assert!(TransformerV1::new(params(), f64::NAN).is_err());
    assert!(TransformerV1::new(Params { n_heads: 5, ..params() }, TARGET).is_err());
    let twice = vec![
        Artifact {
            nonce: 3,
            vector: Vec::new()
        };
        2
    ];
    assert_eq!(
        prepare(&round()).validate(&twice, &STAT_TEST).err(),
        Some(Error::DuplicateNonce(3))
    );
    let empty = prepare(&round()).validate(&[], &STAT_TEST).expect("validated");
    assert_eq!((empty.total, empty.p_value, empty.fraud), (0, 1.0, false));
}

/// A round and its honest batch.
type Honest = (Mutex<Box<dyn Prepared>>, Vec<Artifact>);

/// Computed once.
static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let mut prepared = prepare(&round());
    let artifacts = prepared
        .generate(&(0..60).collect::<Vec<_>>())
        .expect("generated")
        .artifacts;
    (Mutex::new(prepared), artifacts)
});

fn invalid(received: &[Artifact]) -> Vec<i64> {
    let mut prepared = HONEST.0.lock().expect("not poisoned");
    prepared
        .validate(received, &STAT_TEST)
        .expect("validated")
        .mismatch_nonces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_honest_artifact_is_valid_in_any_order(order in Just(HONEST.1.clone()).prop_shuffle()) {
        prop_assert_eq!(invalid(&order), Vec::<i64>::new());
    }

    #[test]
    fn a_mutated_artifact_is_invalid(
        index in any::<prop::sample::Index>(),
        mutation in prop_oneof![
            Just(R_TARGET.to_le_bytes().to_vec()),
            Just(f64::NAN.to_le_bytes().to_vec()),
            (R_TARGET..2.0).prop_map(|distance| distance.to_le_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
            prop::collection::vec(any::<u8>(), 9..20),
        ],
    ) {
        let mut received = HONEST.1.clone();
        let artifact = index.get(&received).clone();
        if let Some(place) = received.iter_mut().find(|place| place.nonce == artifact.nonce) {
            place.vector = mutation;
        }
        prop_assert_eq!(invalid(&received), vec![artifact.nonce]);
    }

    #[test]
    fn a_nonce_that_missed_is_invalid_whatever_it_claims(nonce in 0_i64..60, claim in 0.0..R_TARGET) {
        prop_assume!(HONEST.1.iter().all(|artifact| artifact.nonce != nonce));
        let claimed = Artifact { nonce, vector: claim.to_le_bytes().to_vec() };
        prop_assert_eq!(invalid(&[claimed]), vec![nonce]);
    }
}
