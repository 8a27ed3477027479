//! Tokens, good and bad, against the key set of the tests.

use super::*;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

const EC: &str = include_str!("../../../../tests/keys/es256.pem");
const RSA: &str = include_str!("../../../../tests/keys/rs256.pem");
const STRANGER: &str = include_str!("../../../../tests/keys/stranger.pem");
const JWKS: &str = include_str!("../../../../tests/keys/jwks.json");
const OPERATOR: &str = "system:serviceaccount:gonka-system:gonka-operator";
const NOW: i64 = 1_800_000_000;

fn claims() -> serde_json::Value {
    json!({
        "aud": ["fleet-slot"], "sub": OPERATOR, "exp": NOW + 600, "nbf": NOW - 10, "iat": NOW - 10,
        "iss": "https://kubernetes.default.svc", "kubernetes.io": { "namespace": "gonka-system" },
    })
}

fn sign(algorithm: Algorithm, kid: &str, key: &str, claims: &serde_json::Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.into());
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(key.as_bytes()),
        _ => EncodingKey::from_rsa_pem(key.as_bytes()),
    };
    encode(&header, claims, &key.unwrap()).unwrap()
}

fn keys() -> JwkSet {
    serde_json::from_str(JWKS).unwrap()
}

fn check(token: &str) -> Result<(), Error> {
    verify(&keys(), token, "fleet-slot", OPERATOR, NOW)
}

#[test]
fn the_operators_token_is_accepted_with_either_algorithm() {
    check(&sign(Algorithm::ES256, "ec-1", EC, &claims())).unwrap();
    check(&sign(Algorithm::RS256, "rsa-1", RSA, &claims())).unwrap();
}

#[test]
fn another_audience_subject_or_signature_is_refused() {
    for (field, value) in [
        ("aud", json!(["fleetsignal"])),
        ("aud", json!(null)),
        ("sub", json!("system:serviceaccount:gonka:default")),
    ] {
        let mut wrong = claims();
        wrong[field] = value;
        let token = sign(Algorithm::ES256, "ec-1", EC, &wrong);
        assert!(matches!(check(&token), Err(Error::Invalid(_))), "{wrong}");
    }
    let forged = sign(Algorithm::ES256, "ec-1", STRANGER, &claims());
    assert!(matches!(check(&forged), Err(Error::Invalid(_))));
}

#[test]
fn a_token_is_over_sixty_seconds_after_its_end_and_begins_sixty_before_its_start() {
    let at = |field: &str, time: i64| {
        let mut claims = claims();
        claims[field] = json!(time);
        check(&sign(Algorithm::ES256, "ec-1", EC, &claims))
    };
    assert!(at("exp", NOW - 59).is_ok());
    assert!(matches!(at("exp", NOW - 60), Err(Error::Time)));
    assert!(at("nbf", NOW + 60).is_ok());
    assert!(matches!(at("nbf", NOW + 61), Err(Error::Time)));
}

#[test]
fn the_key_decides_the_algorithm_and_an_unknown_key_is_nobodys() {
    let mixed = sign(Algorithm::RS256, "ec-1", RSA, &claims());
    assert!(matches!(check(&mixed), Err(Error::Algorithm)));
    let unknown = sign(Algorithm::ES256, "ec-2", EC, &claims());
    assert!(matches!(check(&unknown), Err(Error::UnknownKey(kid)) if kid == "ec-2"));
    let symmetric = encode(
        &Header {
            kid: Some("ec-1".into()),
            ..Header::new(Algorithm::HS256)
        },
        &claims(),
        &EncodingKey::from_secret(JWKS.as_bytes()),
    )
    .unwrap();
    assert!(matches!(check(&symmetric), Err(Error::Algorithm)));
    assert!(matches!(check("no.token"), Err(Error::Header(_))));
}

#[test]
fn the_key_set_is_read_again_when_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, r#"{"keys":[]}"#).unwrap();
    let trust = Trust::new(Some(path.clone()), "fleet-slot".into(), OPERATOR.into());
    let header = format!("Bearer {}", sign(Algorithm::ES256, "ec-1", EC, &claims()));
    let check = || trust.check_header(Some(&header), NOW * 1_000);
    assert!(matches!(check(), Err(Error::UnknownKey(_))));
    std::fs::write(&path, JWKS).unwrap();
    check().unwrap();
    std::fs::remove_file(&path).unwrap();
    check().expect("a volume that is being swapped takes nobody's trust away");
    assert!(matches!(trust.check_header(None, NOW * 1_000), Err(Error::NoToken)));
}

#[test]
fn without_a_key_set_nobody_is_trusted() {
    let trust = Trust::new(None, "fleet-slot".into(), OPERATOR.into());
    assert!(matches!(trust.check_header(Some("Bearer x"), 0), Err(Error::NoTrust)));
    let absent = Trust::new(Some("/nowhere/jwks.json".into()), "fleet-slot".into(), OPERATOR.into());
    assert!(matches!(
        absent.check_header(Some("Bearer x"), 0),
        Err(Error::Read { .. })
    ));
}
