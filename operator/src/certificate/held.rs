//! The Secret of an installation that is its own authority, as values, and as dates for a decision. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::decide::{Life, Seen};
use super::proof::{self, Proof, Unfit};

/// Keys of the Secret that every replica reads, as cert-manager names them.
pub const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub const KEY: &str = "tls.key";
/// What clients are to believe.
pub const AUTHORITIES: &str = "ca.crt";
/// The authority that signs. Used by the leader alone, and kept nowhere else.
const SIGNING: [&str; 2] = ["authority.crt", "authority.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const FORMER: &str = "former.crt";

/// A private key as PEM, which no log shows.
#[derive(Clone, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct KeyPem(pub String);

impl std::fmt::Debug for KeyPem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeyPem(…)")
    }
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: KeyPem,
}

/// What a replica serves and clients believe, PEM.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Pems {
    /// The server's certificate, with what leads to an authority.
    pub certificate: String,
    /// Its key.
    pub key: KeyPem,
    /// Certificates of authorities.
    pub authorities: String,
}

/// Everything in the Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The authority that signs.
    pub signing: Pair,
    /// The one that will.
    pub next: Option<Pair>,
    /// Those that signed once: certificates alone.
    pub former: Vec<String>,
    /// The server's certificate.
    pub server: Option<Pair>,
}

/// Why a Secret is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Shape {
    /// A key is missing or not text.
    #[error("it has no usable key {0}")]
    Lacks(&'static str),
    /// Somebody else's.
    #[error(
        "it has a certificate and no {}: to use it as it is, name it in the value fleetSignal.tls.secretName", SIGNING[0]
    )]
    NotOurs,
}

fn text(secret: &Secret, key: &'static str) -> Result<Option<String>, Shape> {
    let Some(ByteString(bytes)) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Ok(None);
    };
    String::from_utf8(bytes.clone())
        .map(|text| Some(text).filter(|text| !text.is_empty()))
        .map_err(|_| Shape::Lacks(key))
}

fn pair(secret: &Secret, [certificate, key]: [&'static str; 2]) -> Result<Option<Pair>, Shape> {
    let Some(pem) = text(secret, certificate)? else {
        return Ok(None);
    };
    Ok(Some(Pair {
        certificate: pem,
        key: KeyPem(text(secret, key)?.ok_or(Shape::Lacks(key))?),
    }))
}

impl Pems {
    /// What a replica needs of a Secret, ours or a provided one.
    pub fn of(secret: &Secret) -> Result<Self, Shape> {
        let server = pair(secret, [CERTIFICATE, KEY])?.ok_or(Shape::Lacks(CERTIFICATE))?;
        Ok(Self {
            certificate: server.certificate,
            key: server.key,
            authorities: text(secret, AUTHORITIES)?.ok_or(Shape::Lacks(AUTHORITIES))?,
        })
    }
}

impl Held {
    /// What is in the Secret; nothing in an empty one. What is not understood is never written over.
    pub fn of(secret: &Secret) -> Result<Option<Self>, Shape> {
        let server = pair(secret, [CERTIFICATE, KEY])?;
        let Some(signing) = pair(secret, SIGNING)? else {
            return if server.is_some() {
                Err(Shape::NotOurs)
            } else {
                Ok(None)
            };
        };
        let former = text(secret, FORMER)?.unwrap_or_default();
        Ok(Some(Self {
            signing,
            next: pair(secret, NEXT)?,
            former: proof::split(&former),
            server,
        }))
    }

    /// What clients are to believe.
    pub fn authorities(&self) -> String {
        let next = self.next.iter().map(|next| next.certificate.as_str());
        let former = self.former.iter().map(String::as_str);
        std::iter::once(self.signing.certificate.as_str())
            .chain(next)
            .chain(former)
            .flat_map(|pem| [pem.trim(), "\n"])
            .collect()
    }

    /// What a replica serves, where there is something to serve.
    pub fn pems(&self) -> Option<Pems> {
        let server = self.server.clone()?;
        Some(Pems {
            certificate: server.certificate,
            key: server.key,
            authorities: self.authorities(),
        })
    }

    /// The Secret with this in it. `before`: the object it replaces, and no other.
    pub fn secret(&self, namespace: &str, name: &str, before: Option<&Secret>) -> Secret {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, pem: &str| data.insert(key.to_owned(), ByteString(pem.as_bytes().to_vec()));
        let mut put_pair = |[certificate, key]: [&str; 2], pair: &Pair| {
            put(certificate, &pair.certificate);
            put(key, &pair.key.0);
        };
        put_pair(SIGNING, &self.signing);
        if let Some(next) = &self.next {
            put_pair(NEXT, next);
        }
        if let Some(server) = &self.server {
            put_pair([CERTIFICATE, KEY], server);
        }
        if !self.former.is_empty() {
            put(FORMER, &self.former.concat());
        }
        put(AUTHORITIES, &self.authorities());
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                uid: before.and_then(|before| before.metadata.uid.clone()),
                resource_version: before.and_then(|before| before.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }
}

/// Dates of what there is. A server certificate that the signing authority does not vouch for under `name` is none.
pub fn seen(held: Option<&Held>, name: &str, now: i64) -> Result<Seen, Unfit> {
    let Some(held) = held else {
        return Ok(Seen { now, ..Seen::default() });
    };
    let life = |pem: &str| proof::life(pem);
    let server = held.server.as_ref().and_then(|server| {
        let pems = Pems {
            certificate: server.certificate.clone(),
            key: server.key.clone(),
            authorities: held.signing.certificate.clone(),
        };
        Proof::read(pems, name).ok().map(|proof| proof.life)
    });
    Ok(Seen {
        now,
        signing: Some(life(&held.signing.certificate)?),
        next: held.next.as_ref().map(|next| life(&next.certificate)).transpose()?,
        former: held
            .former
            .iter()
            .map(|pem| life(pem))
            .collect::<Result<Vec<Life>, _>>()?,
        server,
    })
}
