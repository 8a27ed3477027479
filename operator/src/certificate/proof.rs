//! A certificate that proves a name, read and checked as a client would, whatever the time is. Pure.

use std::sync::Arc;
use std::time::Duration;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, Reader as _, SliceReader, Tag, TagNumber};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

use super::decide::Life;
use super::held::Pems;

/// Most bytes of one text and certificates in it that are looked at.
const MAX_BYTES: usize = 256 << 10;
const MAX_CERTIFICATES: usize = 32;

/// Why a certificate is not served. Says nothing of a key's content.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Not a certificate.
    #[error("{0} holds no certificate as PEM, or more than {MAX_CERTIFICATES}")]
    NoCertificate(&'static str),
    /// A certificate without dates.
    #[error("a certificate cannot be read: it is not X.509")]
    Dates,
    /// Not a key.
    #[error("tls.key holds no private key as PEM")]
    NoKey,
    /// Key and certificate are not a pair, or of a kind that is not used.
    #[error("tls.key is not the key of tls.crt")]
    NoPair(#[source] rustls::Error),
    /// An authority that cannot be one.
    #[error("a certificate in ca.crt is no authority's")]
    NoAuthority(#[source] rustls::Error),
    /// No client would accept it.
    #[error("the authorities in ca.crt do not vouch for tls.crt under the name {name}, which clients ask for")]
    NoProof {
        /// Name of the Service.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A certificate to serve.
#[derive(Clone, Debug)]
pub struct Proof {
    /// As it was read.
    pub pems: Pems,
    /// From when to when it is good.
    pub life: Life,
    /// For the server.
    pub key: Arc<CertifiedKey>,
}

fn certificates(pem: &str, of: &'static str) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let none = || Unfit::NoCertificate(of);
    if pem.len() > MAX_BYTES {
        return Err(none());
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CERTIFICATES + 1)
        .collect();
    let found = found.map_err(|_| none())?;
    if found.is_empty() || found.len() > MAX_CERTIFICATES {
        return Err(none());
    }
    Ok(found)
}

/// The certificates of a text, each as a text of its own.
pub fn split(pems: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pems.split_inclusive(END)
        .filter(|part| part.contains(END))
        .map(|part| format!("{}\n", part.trim()))
        .collect()
}

/// From when to when the first certificate of a text is good.
pub fn life(pem: &str) -> Result<Life, Unfit> {
    let all = certificates(pem, "an authority's entry")?;
    all.first().and_then(|first| validity(first)).ok_or(Unfit::Dates)
}

/// Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serial, signature, issuer, validity, … }, … }
fn validity(certificate: &[u8]) -> Option<Life> {
    let mut reader = SliceReader::new(certificate).ok()?;
    let outer = AnyRef::decode(&mut reader).ok()?;
    let mut reader = SliceReader::new(outer.value()).ok()?;
    let to_be_signed = AnyRef::decode(&mut reader).ok()?;
    let mut reader = SliceReader::new(to_be_signed.value()).ok()?;
    let version = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber::N0,
    };
    let before_validity = if reader.peek_tag().ok()? == version { 4 } else { 3 };
    for _ in 0..before_validity {
        AnyRef::decode(&mut reader).ok()?;
    }
    let validity = AnyRef::decode(&mut reader).ok()?;
    let mut reader = SliceReader::new(validity.value()).ok()?;
    Some(Life {
        not_before: moment(&mut reader)?,
        not_after: moment(&mut reader)?,
    })
}

fn moment(reader: &mut SliceReader<'_>) -> Option<i64> {
    let since = match reader.peek_tag().ok()? {
        Tag::UtcTime => UtcTime::decode(reader).ok()?.to_unix_duration(),
        _ => GeneralizedTime::decode(reader).ok()?.to_unix_duration(),
    };
    i64::try_from(since.as_secs()).ok()
}

impl Proof {
    /// Reads and checks: key and certificate are a pair, and a client that believes the authorities accepts it as `name` while it
    /// is good. Whether it is good now is not asked: an ended one is better than none for those who are connected.
    pub fn read(pems: Pems, name: &str) -> Result<Self, Unfit> {
        let chain = certificates(&pems.certificate, "tls.crt")?;
        let life = chain.first().and_then(|first| validity(first)).ok_or(Unfit::Dates)?;
        let key = PrivateKeyDer::from_pem_slice(pems.key.0.as_bytes()).map_err(|_| Unfit::NoKey)?;
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&pems.authorities, "ca.crt")? {
            roots.add(authority).map_err(Unfit::NoAuthority)?;
        }
        let no_proof = |source: Box<dyn std::error::Error + Send + Sync>| Unfit::NoProof {
            name: name.to_owned(),
            source,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| no_proof(Box::new(error)))?;
        let asked = ServerName::try_from(name.to_owned()).map_err(|error| no_proof(Box::new(error)))?;
        let while_good = Duration::from_secs(life.not_after.max(1).unsigned_abs() - 1);
        verifier
            .verify_server_cert(
                &chain[0],
                &chain[1..],
                &asked,
                &[],
                UnixTime::since_unix_epoch(while_good),
            )
            .map_err(|error| no_proof(Box::new(error)))?;
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(Unfit::NoPair)?;
        Ok(Self {
            pems,
            life,
            key: Arc::new(key),
        })
    }
}
