//! Tokens that hold, and all the ways in which one does not.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::chain::now_ms;

const JWKS: &str = include_str!("../../tests/keys/jwks.json");
const EC: &[u8] = include_bytes!("../../tests/keys/test-es256.pem");
const RSA: &[u8] = include_bytes!("../../tests/keys/test-rs256.pem");
const OTHER: &[u8] = include_bytes!("../../tests/keys/test-other.pem");

/// Claims as a kubelet's projected token has them.
fn claims(expires_in: i64) -> Value {
    let now = now_ms() / 1000;
    json!({
        "aud": ["fleetsignal"],
        "exp": now + expires_in,
        "iat": now - 10,
        "nbf": now - 10,
        "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:gonka:slots",
        "kubernetes.io": {
            "namespace": "gonka",
            "node": {"name": "n1", "uid": "node-uid"},
            "pod": {"name": "tiny-x", "uid": "pod-uid"},
            "serviceaccount": {"name": "slots", "uid": "u"},
        },
    })
}

fn token(kid: &str, algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(algorithm)
    };
    encode(&header, claims, key).expect("signed")
}

fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(EC).expect("a key")
}

async fn trust() -> (tempfile::TempDir, Trust) {
    let folder = tempfile::tempdir().expect("a folder");
    tokio::fs::write(folder.path().join("jwks.json"), JWKS)
        .await
        .expect("written");
    let trust = Trust::load(folder.path(), "fleetsignal", None).await;
    (folder, trust)
}

#[tokio::test]
async fn a_token_of_a_slot_pod_tells_its_pod_and_node() {
    let (_folder, trust) = trust().await;
    let token = token("ec-1", Algorithm::ES256, &ec(), &claims(3600));
    let identity = trust.verify(Some(&token)).await.expect("accepted");
    assert_eq!(
        identity,
        Identity {
            subject: "system:serviceaccount:gonka:slots".into(),
            pod: "tiny-x".into(),
            pod_uid: "pod-uid".into(),
            node: "n1".into(),
        }
    );
    assert_eq!(trust.jwks_json().as_deref(), Some(JWKS));
}

#[tokio::test]
async fn rsa_keys_are_accepted_too() {
    let (_folder, trust) = trust().await;
    let key = EncodingKey::from_rsa_pem(RSA).expect("a key");
    let token = token("rsa-1", Algorithm::RS256, &key, &claims(3600));
    assert!(trust.verify(Some(&token)).await.is_ok());
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims(3600);
    claims[field] = value;
    claims
}

#[rstest]
#[case::expired(claims(-31))]
#[case::for_somebody_else(with("aud", json!(["https://kubernetes.default.svc"])))]
#[case::for_nobody(with("aud", Value::Null))]
#[case::for_later(with("nbf", json!(now_ms() / 1000 + 120)))]
#[case::for_ever(with("exp", Value::Null))]
#[tokio::test]
async fn a_token_that_does_not_hold_is_refused(#[case] claims: Value) {
    let (_folder, trust) = trust().await;
    let token = token("ec-1", Algorithm::ES256, &ec(), &claims);
    assert!(matches!(trust.verify(Some(&token)).await, Err(TrustError::Refused(_))));
}

#[tokio::test]
async fn clocks_may_differ_by_less_than_half_a_minute() {
    let (_folder, trust) = trust().await;
    let token = token("ec-1", Algorithm::ES256, &ec(), &claims(-20));
    assert!(trust.verify(Some(&token)).await.is_ok());
}

#[tokio::test]
async fn a_strange_key_an_unknown_kid_and_a_chosen_algorithm_are_refused() {
    let (_folder, trust) = trust().await;
    let other = EncodingKey::from_ec_pem(OTHER).expect("a key");
    let forged = token("ec-1", Algorithm::ES256, &other, &claims(3600));
    let unknown = token("ec-2", Algorithm::ES256, &ec(), &claims(3600));
    // The public key taken for a shared secret.
    let secret = EncodingKey::from_secret(JWKS.as_bytes());
    let confused = token("ec-1", Algorithm::HS256, &secret, &claims(3600));
    for token in [forged, unknown, confused, "no.token".to_owned()] {
        assert!(matches!(trust.verify(Some(&token)).await, Err(TrustError::Refused(_))));
    }
    assert!(matches!(trust.verify(None).await, Err(TrustError::Missing { .. })));
}

#[tokio::test]
async fn without_keys_nobody_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let trust = Trust::load(folder.path(), "fleetsignal", None).await;
    let token = token("ec-1", Algorithm::ES256, &ec(), &claims(3600));
    assert!(matches!(trust.verify(Some(&token)).await, Err(TrustError::NoKeys)));
    assert_eq!(trust.jwks_json(), None);
}

#[rstest]
#[case("{}")]
#[case(r#"{"keys": []}"#)]
#[case(r#"{"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]}"#)]
#[case(r#"{"keys": [{"kty": "EC", "crv": "P-384", "kid": "a", "x": "", "y": ""}]}"#)]
#[case("not json")]
fn keys_of_other_kinds_are_none(#[case] text: &str) {
    assert!(Jwks::parse(text).is_err());
}
