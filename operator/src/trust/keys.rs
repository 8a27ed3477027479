//! A JWKS as keys: ES256 and RS256, chosen by key id. Pure.

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// Most bytes and keys that are looked at.
const MAX_BYTES: usize = 1 << 20;
const MAX_KEYS: usize = 64;

/// Why there are no keys in a text.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a JWKS.
    #[error("not a JWKS of at most {MAX_KEYS} keys")]
    Shape,
    /// Nothing in it can be used.
    #[error("a JWKS without an ES256 or RS256 key that has a kid")]
    Empty,
}

/// One public key.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// The keys of one cluster.
#[derive(Clone)]
pub struct Jwks {
    json: String,
    keys: BTreeMap<String, Key>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Key")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Jwks")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// The only algorithm this key is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key.
    pub fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

impl Jwks {
    /// Reads a JWKS. Keys of other kinds are passed over.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() > MAX_BYTES {
            return Err(KeyError::Shape);
        }
        let value: Value = serde_json::from_str(text).map_err(|_| KeyError::Shape)?;
        let listed = value.get("keys").and_then(Value::as_array).ok_or(KeyError::Shape)?;
        if listed.len() > MAX_KEYS {
            return Err(KeyError::Shape);
        }
        let keys: BTreeMap<String, Key> = listed.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self {
            json: text.to_owned(),
            keys,
        })
    }

    /// The key of this id.
    pub fn find(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    /// As it was read.
    pub fn json(&self) -> &str {
        &self.json
    }
}

fn key(value: &Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty())?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        _ => return None,
    };
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some((kid, Key { algorithm, decoding }))
}
