//! Apply, first half: keys and certificates, as a decision's step asks for them. The only place with randomness.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};

use super::decide::{self, AUTHORITY_SECONDS, BACKDATE_SECONDS, SERVER_SECONDS, Step};
use super::held::{self, Held, KeyPem, Pair};
use super::proof::{self, Unfit};

/// More steps in a row than any state needs.
const MOST_STEPS: usize = 8;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What there is cannot be read.
    #[error("the authorities that there are cannot be used")]
    Unfit(#[from] Unfit),
    /// A key was not made, or an authority's key cannot be read.
    #[error("no certificate was made")]
    Make(#[from] rcgen::Error),
    /// A decision that finds no rest.
    #[error("certificates find no rest: {0:?}")]
    Restless(Vec<Step>),
}

/// Takes every step that is due, and says which.
pub fn bring_up(held: Option<Held>, name: &str, now: i64) -> Result<(Option<Held>, Vec<Step>), Error> {
    let mut held = held;
    let mut steps = Vec::new();
    loop {
        let step = decide::step(&held::seen(held.as_ref(), name, now)?);
        if step == Step::Keep {
            return Ok((held, steps));
        }
        if steps.len() == MOST_STEPS {
            return Err(Error::Restless(steps));
        }
        steps.push(step);
        held = Some(take(held, step, name, now)?);
    }
}

/// What a step makes of what there is.
fn take(held: Option<Held>, step: Step, name: &str, now: i64) -> Result<Held, Error> {
    let Some(mut held) = held else {
        return Ok(Held {
            signing: authority(now)?,
            next: None,
            former: Vec::new(),
            server: None,
        });
    };
    match step {
        Step::Keep | Step::Begin => {}
        Step::Issue => held.server = Some(server(&held.signing, name, now)?),
        Step::Introduce => held.next = Some(authority(now)?),
        Step::Switch => {
            if let Some(next) = held.next.take() {
                let before = std::mem::replace(&mut held.signing, next);
                held.former.push(before.certificate);
                held.server = Some(server(&held.signing, name, now)?);
            }
        }
        Step::Retire => {
            let mut kept = Vec::new();
            for former in std::mem::take(&mut held.former) {
                if !proof::life(&former)?.is_spent(now) {
                    kept.push(former);
                }
            }
            held.former = kept;
        }
    }
    Ok(held)
}

fn good_from(now: i64, seconds: i64) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |seconds: i64| epoch + Duration::from_secs(seconds.max(0).unsigned_abs());
    parameters.not_before = at(now - BACKDATE_SECONDS);
    parameters.not_after = at(now + seconds);
    parameters
}

/// An authority's name follows from its key: two of them never share one.
fn authority_parameters(key: &KeyPair, now: i64) -> CertificateParams {
    let mut parameters = good_from(now, AUTHORITY_SECONDS);
    let digest = Sha256::digest(key.subject_public_key_info());
    let mut subject = DistinguishedName::new();
    subject.push(
        DnType::CommonName,
        format!("gonka-fleet FleetSignal authority {}", hex::encode(&digest[..4])),
    );
    parameters.distinguished_name = subject;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn authority(now: i64) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority_parameters(&key, now).self_signed(&key)?;
    Ok(pair(&certificate, &key))
}

fn server(signing: &Pair, name: &str, now: i64) -> Result<Pair, rcgen::Error> {
    let authority = KeyPair::from_pem(&signing.key.0)?;
    let issuer = Issuer::new(authority_parameters(&authority, now), authority);
    let key = KeyPair::generate()?;
    let mut parameters = good_from(now, SERVER_SECONDS);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "gonka-fleet FleetSignal");
    parameters.distinguished_name = subject;
    parameters.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into()?)];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&key, &issuer)?;
    Ok(pair(&certificate, &key))
}

fn pair(certificate: &rcgen::Certificate, key: &KeyPair) -> Pair {
    Pair {
        certificate: certificate.pem(),
        key: KeyPem(key.serialize_pem()),
    }
}
