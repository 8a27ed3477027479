//! Who may use the operator door: bearers of a service account's token, verified offline against a key set in a file.
//!
//! The key is chosen by the token's `kid`, the algorithm by the key; what the token says of its algorithm is only
//! compared. Time is an argument.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet},
};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use thiserror::Error;

/// Clocks may differ by this much.
const LEEWAY_SECONDS: i64 = 60;
/// Longest key set that is read.
const MAX_FILE: u64 = 1 << 20;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 65_536;

/// Why a token is not accepted.
#[derive(Debug, Error)]
pub enum Error {
    /// No file was named.
    #[error("this slot trusts nobody: start serve with --trust-jwks")]
    NoTrust,
    /// The file cannot be read.
    #[error("cannot read the key set {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no key set.
    #[error("{path} is no JSON Web Key Set")]
    KeySet {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Not a token.
    #[error("the token does not parse")]
    Header(#[source] jsonwebtoken::errors::Error),
    /// No key of that id.
    #[error("no key has the token's kid {0:?}")]
    UnknownKey(String),
    /// A key of another kind than ES256 and RS256, or another algorithm in the token than the key's.
    #[error("the token's algorithm is not the key's")]
    Algorithm,
    /// Signature, audience or subject.
    #[error("the token is not valid")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    /// Over, or not begun.
    #[error("the token is not valid at this time")]
    Time,
    /// No `authorization: Bearer …`.
    #[error("send authorization: Bearer <token>")]
    NoToken,
}

#[derive(Debug, Deserialize)]
struct Claims {
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
}

/// Whom to believe.
#[derive(Debug)]
pub struct Trust {
    path: Option<PathBuf>,
    audience: String,
    subject: String,
    cached: Mutex<Option<(Stamp, JwkSet)>>,
}

/// Tells one state of a file from another; the file behind a projected volume's link is another inode.
type Stamp = (Option<SystemTime>, u64, u64);

impl Trust {
    /// Reads the file when it is first needed and whenever it changed.
    pub fn new(path: Option<PathBuf>, audience: String, subject: String) -> Self {
        Self {
            path,
            audience,
            subject,
            cached: Mutex::new(None),
        }
    }

    /// Checks the value of an `authorization` header.
    pub fn check_header(&self, header: Option<&str>, now_ms: i64) -> Result<(), Error> {
        let token = header
            .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")))
            .filter(|token| token.len() <= MAX_TOKEN)
            .ok_or(Error::NoToken)?;
        let keys = self.keys()?;
        verify(&keys, token.trim(), &self.audience, &self.subject, now_ms / 1_000)
    }

    fn keys(&self) -> Result<JwkSet, Error> {
        let path = self.path.as_ref().ok_or(Error::NoTrust)?;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match stamp(path) {
            Ok(stamp) => stamp,
            // The volume is being swapped or gone: what was trusted a moment ago still is.
            Err(source) => match &*cached {
                Some((_, keys)) => return Ok(keys.clone()),
                None => {
                    return Err(Error::Read {
                        path: path.clone(),
                        source,
                    });
                }
            },
        };
        if let Some((before, keys)) = &*cached
            && *before == stamp
        {
            return Ok(keys.clone());
        }
        let keys = read(path, stamp.1)?;
        *cached = Some((stamp, keys.clone()));
        Ok(keys)
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path)?;
    Ok((found.modified().ok(), found.len(), found.ino()))
}

fn read(path: &Path, length: u64) -> Result<JwkSet, Error> {
    let refuse = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    if length > MAX_FILE {
        return Err(refuse(std::io::ErrorKind::FileTooLarge.into()));
    }
    serde_json::from_slice(&std::fs::read(path).map_err(refuse)?).map_err(|source| Error::KeySet {
        path: path.to_owned(),
        source,
    })
}

/// Verifies a token; pure.
fn verify(keys: &JwkSet, token: &str, audience: &str, subject: &str, now_seconds: i64) -> Result<(), Error> {
    let header = decode_header(token).map_err(Error::Header)?;
    let kid = header.kid.unwrap_or_default();
    let key = keys
        .find(&kid)
        .ok_or_else(|| Error::UnknownKey(kid.chars().take(64).collect()))?;
    let algorithm = algorithm_of(key)
        .filter(|algorithm| *algorithm == header.alg)
        .ok_or(Error::Algorithm)?;
    let mut rules = Validation::new(algorithm);
    rules.set_audience(&[audience]);
    rules.sub = Some(subject.to_owned());
    rules.set_required_spec_claims(&["exp", "aud", "sub"]);
    // Time is checked below, against the time that was passed in.
    rules.validate_exp = false;
    rules.validate_nbf = false;
    let decoding = DecodingKey::from_jwk(key).map_err(Error::Invalid)?;
    let claims = decode::<Claims>(token, &decoding, &rules)
        .map_err(Error::Invalid)?
        .claims;
    let begun = claims
        .nbf
        .is_none_or(|nbf| nbf.saturating_sub(LEEWAY_SECONDS) <= now_seconds);
    if !begun || claims.exp.saturating_add(LEEWAY_SECONDS) <= now_seconds {
        return Err(Error::Time);
    }
    Ok(())
}

/// The one algorithm a key may be used with here.
fn algorithm_of(key: &Jwk) -> Option<Algorithm> {
    match &key.algorithm {
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Some(Algorithm::ES256),
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
