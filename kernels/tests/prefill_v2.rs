//! The scheme as its callers see it.

use kernels::{
    artifact,
    decoder::{Dtype, Model, Recipe},
    prefill_v2::PrefillV2,
    scheme::{Artifact, Error, Round, Scheme, StatTest, Verdict},
};
use rstest::rstest;
use std::sync::Arc;

fn scheme(recipe: Recipe, dtype: Dtype) -> PrefillV2 {
    PrefillV2::new(Arc::new(Model::from_recipe(&recipe, "public-tiny-v1")), dtype)
}

fn round() -> Round {
    Round {
        block_hash: "C0DEC0DE00112233445566778899AABBCCDDEEFF0123456789ABCDEF01234567".into(),
        public_key: "02feedface00112233445566778899aabbccddeeff00112233445566778899aabb".into(),
        seq_len: 16,
        k_dim: 12,
        stronger_rng: false,
    }
}

fn generate(scheme: &PrefillV2, round: &Round, nonces: &[i64]) -> Vec<Artifact> {
    let batch = scheme
        .prepare(round)
        .expect("valid round")
        .generate(nonces)
        .expect("generated");
    assert_eq!(batch.rejected_non_finite, 0);
    batch.artifacts
}

fn validate(scheme: &PrefillV2, received: &[Artifact], dist_threshold: f64) -> Verdict {
    let test = StatTest {
        dist_threshold,
        p_mismatch: 0.1,
        fraud_threshold: 0.01,
    };
    scheme
        .prepare(&round())
        .expect("valid round")
        .validate(received, &test)
        .expect("validated")
}

fn distance(a: &Artifact, b: &Artifact) -> f64 {
    let decode = |artifact: &Artifact| artifact::decode(&artifact.vector).expect("halves");
    kernels::statistics::distance(&decode(a), &decode(b))
}

/// First published artifact of `tiny_qwen3_dense` in single precision.
#[test]
fn a_published_nonce_comes_out_through_the_scheme() {
    let artifacts = generate(&scheme(Recipe::TinyQwen3Dense, Dtype::F32), &round(), &[0]);
    let published = artifact::from_base64("4iaOsUg0K7RdsOckra7FN1U3fS87N+c1").expect("base64");
    assert!(
        distance(
            &artifacts[0],
            &Artifact {
                nonce: 0,
                vector: published
            }
        ) < 2e-3
    );
}

#[rstest]
#[case(Recipe::TinyLlamaDense)]
#[case(Recipe::TinyQwen3Dense)]
#[case(Recipe::TinyQwen3Moe)]
fn batches_of_any_shape_give_the_same_artifacts(#[case] recipe: Recipe) {
    let scheme = scheme(recipe, Dtype::Bf16);
    let nonces = [9, 4, 1001, 5, 6, 7, 1002, 12, 13];
    let together = generate(&scheme, &round(), &nonces);
    let apart: Vec<_> = nonces
        .into_iter()
        .flat_map(|nonce| generate(&scheme, &round(), &[nonce]))
        .collect();
    assert_eq!(together, apart);
    assert!(together.iter().all(|artifact| artifact.vector.len() == 24));
    assert!(generate(&scheme, &round(), &[]).is_empty());
}

#[test]
fn everything_in_the_round_matters() {
    let scheme = scheme(Recipe::TinyQwen3Dense, Dtype::F32);
    let original = generate(&scheme, &round(), &[7]);
    for other in [
        Round {
            block_hash: round().block_hash.to_lowercase(),
            ..round()
        },
        Round {
            public_key: round().public_key.to_uppercase(),
            ..round()
        },
        Round { seq_len: 15, ..round() },
        Round {
            stronger_rng: true,
            ..round()
        },
    ] {
        assert!(
            distance(&original[0], &generate(&scheme, &other, &[7])[0]) > 0.3,
            "{other:?}"
        );
    }
    let longer = generate(&scheme, &Round { k_dim: 13, ..round() }, &[7]);
    assert_eq!(longer[0].vector.len(), 26);
}

#[test]
fn an_honest_prover_of_another_precision_passes_and_a_liar_does_not() {
    let (prover, validator) = (
        scheme(Recipe::TinyQwen3Dense, Dtype::Bf16),
        scheme(Recipe::TinyQwen3Dense, Dtype::F32),
    );
    let honest = generate(&prover, &round(), &(0..30).collect::<Vec<_>>());
    let verdict = validate(&validator, &honest, 0.1);
    assert_eq!(
        (verdict.total, verdict.fraud, verdict.mismatch_nonces),
        (30, false, vec![])
    );
    assert_eq!(verdict.computed.len(), 30);

    let other_key = Round {
        public_key: "02".into(),
        ..round()
    };
    let stolen = generate(&prover, &other_key, &(0..30).collect::<Vec<_>>());
    let verdict = validate(&validator, &stolen, 0.1);
    assert_eq!((verdict.mismatch_nonces.len(), verdict.fraud), (30, true));
}

#[test]
fn mismatches_are_named_in_the_order_received() {
    let validator = scheme(Recipe::TinyLlamaDense, Dtype::F32);
    let mut received = generate(&validator, &round(), &[5, 3, 8, 1]);
    received[2].vector[1] ^= 0x80;
    received[0].vector.truncate(22);
    let verdict = validate(&validator, &received, 0.02);
    assert_eq!(verdict.mismatch_nonces, [5, 8]);
    assert_eq!(verdict.total, 4);
    // P[X >= 2] for four trials at one in ten.
    assert!((verdict.p_value - 0.0523).abs() < 1e-12);
    assert!(!validate(&validator, &[], 0.02).fraud);
}

#[test]
fn rounds_and_requests_without_meaning_are_refused() {
    let scheme = scheme(Recipe::TinyLlamaDense, Dtype::F32);
    let refused = |round: Round| scheme.prepare(&round).err();
    assert_eq!(refused(Round { seq_len: 0, ..round() }), Some(Error::SeqLen(0)));
    assert_eq!(
        refused(Round {
            seq_len: usize::MAX,
            ..round()
        }),
        Some(Error::SeqLen(usize::MAX))
    );
    assert_eq!(
        refused(Round { k_dim: 0, ..round() }),
        Some(Error::KDim { k_dim: 0, hidden: 64 })
    );
    assert_eq!(
        refused(Round { k_dim: 65, ..round() }),
        Some(Error::KDim { k_dim: 65, hidden: 64 })
    );

    let mut prepared = scheme.prepare(&round()).expect("valid round");
    let artifact = Artifact {
        nonce: 3,
        vector: Vec::new(),
    };
    let twice = prepared.validate(&[artifact.clone(), artifact], &StatTest::default());
    assert_eq!(twice, Err(Error::DuplicateNonce(3)));
    let senseless = StatTest {
        p_mismatch: f64::NAN,
        ..StatTest::default()
    };
    assert!(matches!(prepared.validate(&[], &senseless), Err(Error::StatTest(_))));
}
