//! Certificates as they are made, checked as clients check them, and what a replica serves.

mod secret;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use prometheus::Registry;
use proptest::prelude::*;
use rstest::rstest;

use super::decide::{AUTHORITY_SECONDS, OVERLAP_SECONDS, PUBLISHED_SECONDS, SERVER_SECONDS, Step};
use super::held::{AUTHORITIES, CERTIFICATE, Held, KEY, KeyPem, Pems, Shape};
use super::make::bring_up;
use super::proof::{Proof, Unfit};
use super::{Keeper, Settings};
use crate::chain::now_ms;
use crate::metrics::Metrics;

const NAME: &str = "gonka-fleet-signal.gonka-system.svc";
const DAY: i64 = 86_400;

fn now() -> i64 {
    now_ms() / 1000
}

fn made(now: i64) -> Held {
    let (held, steps) = bring_up(None, NAME, now).expect("made");
    assert_eq!(steps, [Step::Begin, Step::Issue]);
    held.expect("there is one")
}

fn pems(now: i64) -> Pems {
    made(now).pems().expect("a certificate")
}

async fn keeper(folder: &std::path::Path) -> (Keeper, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(&Registry::new()).expect("metrics"));
    let settings = Settings {
        namespace: "gonka-system".to_owned(),
        service: "gonka-fleet-signal".to_owned(),
        secret: "gonka-fleet-signal-tls".to_owned(),
        provided: false,
        cache_dir: folder.to_owned(),
    };
    (Keeper::load(settings, None, Arc::clone(&metrics)).await, metrics)
}

fn failures(metrics: &Metrics, reason: &str) -> u64 {
    metrics
        .signal_certificate_failures_total
        .with_label_values(&[reason])
        .get()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every authority of an installation, from its first day until the second successor signs.
    #[test]
    fn every_bundle_of_the_last_ninety_days_verifies_the_certificate_served_now(
        start in 1_600_000_000..2_000_000_000_i64,
        pauses in proptest::collection::vec(DAY..9 * DAY, 600..700),
    ) {
        let mut now = start;
        let mut held = None;
        let mut bundles: Vec<(i64, String)> = Vec::new();
        let mut switches = 0;
        for pause in pauses {
            now += pause;
            let (after, steps) = bring_up(held, NAME, now).expect("brought up to date");
            let after = after.expect("there is one");
            switches += usize::from(steps.contains(&Step::Switch));
            if !steps.is_empty() {
                bundles.push((now, after.authorities()));
            }
            let server = after.pems().expect("a certificate");
            let proof = Proof::read(server.clone(), NAME).expect("it verifies with its own bundle");
            prop_assert!(proof.life.not_before < now && now + 600 < proof.life.not_after);
            // A bundle is held until the next one comes, and by whoever sleeps for ninety days after that.
            let until = |index: usize| bundles.get(index + 1).map_or(now, |(at, _)| *at);
            for (index, (_, bundle)) in bundles.iter().enumerate() {
                if !steps.is_empty() && until(index) >= now - PUBLISHED_SECONDS {
                    let believed = Pems { authorities: bundle.clone(), ..server.clone() };
                    prop_assert!(Proof::read(believed, NAME).is_ok(), "a bundle held until {} does not, at {now}", until(index));
                }
            }
            held = Some(after);
        }
        prop_assert!(switches >= 1, "no authority ended");
    }
}

#[test]
fn an_authority_is_followed_by_one_that_clients_know_already_and_its_key_is_destroyed() {
    let start = now();
    let first = made(start);
    let ends = start + AUTHORITY_SECONDS;
    let (introduced, steps) = bring_up(Some(first.clone()), NAME, ends - OVERLAP_SECONDS).expect("introduced");
    let introduced = introduced.expect("there is one");
    assert_eq!(steps, [Step::Introduce, Step::Issue]);
    assert_eq!(introduced.signing, first.signing);
    assert_eq!(super::proof::split(&introduced.authorities()).len(), 2);
    let switched_at = ends - OVERLAP_SECONDS + PUBLISHED_SECONDS;
    let (switched, steps) = bring_up(Some(introduced.clone()), NAME, switched_at).expect("switched");
    let switched = switched.expect("there is one");
    assert_eq!(steps, [Step::Switch]);
    assert_eq!(Some(&switched.signing), introduced.next.as_ref());
    assert_eq!(switched.former, std::slice::from_ref(&first.signing.certificate));
    let written = switched.secret("gonka-system", "x", None);
    let old_key = first.signing.key.0.as_bytes();
    let all = written.data.expect("data");
    assert!(
        all.values().all(|value| value.0 != old_key),
        "the old authority's key is gone"
    );
    let (retired, steps) = bring_up(Some(switched), NAME, ends + SERVER_SECONDS).expect("retired");
    assert_eq!(steps, [Step::Issue, Step::Retire]);
    assert_eq!(retired.expect("there is one").former, Vec::<String>::new());
}

#[test]
fn what_is_written_into_the_secret_is_read_back() {
    let start = now();
    let late = start + AUTHORITY_SECONDS - OVERLAP_SECONDS;
    let (held, _) = bring_up(Some(made(start)), NAME, late).expect("introduced");
    let (held, _) = bring_up(held, NAME, late + PUBLISHED_SECONDS).expect("switched");
    let mut held = held.expect("there is one");
    held.next = Some(made(late).signing);
    held.former.push(made(start).signing.certificate);
    assert_eq!(held.former.len(), 2);
    let secret = held.secret("gonka-system", "gonka-fleet-signal-tls", None);
    assert_eq!(Held::of(&secret).expect("ours").as_ref(), Some(&held));
    assert_eq!(Some(Pems::of(&secret).expect("whole")), held.pems());
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
}

#[test]
fn somebody_elses_secret_is_not_written_over_and_an_empty_one_is() {
    let mut secret = made(now()).secret("gonka-system", "x", None);
    let data = secret.data.as_mut().expect("data");
    data.remove("authority.crt");
    assert!(matches!(Held::of(&secret), Err(Shape::NotOurs)));
    secret.data = None;
    assert_eq!(Held::of(&secret).expect("empty"), None);
    let mut broken = made(now()).secret("gonka-system", "x", None);
    broken.data.as_mut().expect("data").remove("authority.key");
    assert!(matches!(Held::of(&broken), Err(Shape::Lacks("authority.key"))));
}

#[test]
fn another_name_of_the_service_gets_another_certificate() {
    let held = made(now());
    let (after, steps) = bring_up(Some(held), "signal.elsewhere.svc", now()).expect("issued");
    assert_eq!(steps, [Step::Issue]);
    let pems = after.and_then(|held| held.pems()).expect("a certificate");
    assert!(Proof::read(pems, "signal.elsewhere.svc").is_ok());
}

#[test]
fn a_key_is_shown_in_no_log() {
    let shown = format!("{:?}", made(now()));
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

fn without(text: &str) -> String {
    text.replace("CERTIFICATE", "NOTHING")
}

#[rstest]
#[case::no_certificate(|good: Pems, _: Pems| Pems { certificate: without(&good.certificate), ..good })]
#[case::no_authorities(|good: Pems, _: Pems| Pems { authorities: String::new(), ..good })]
#[case::no_key(|good: Pems, _: Pems| Pems { key: KeyPem("none".to_owned()), ..good })]
#[case::the_key_of_another(|good: Pems, other: Pems| Pems { key: other.key, ..good })]
#[case::the_authority_of_another(|good: Pems, other: Pems| Pems { authorities: other.authorities, ..good })]
#[case::an_authority_as_the_server(|good: Pems, _: Pems| Pems { certificate: good.authorities.clone(), ..good })]
#[tokio::test]
async fn what_no_client_would_accept_does_not_take_the_place_of_what_is_served(#[case] spoil: fn(Pems, Pems) -> Pems) {
    let folder = tempfile::tempdir().expect("a folder");
    let (keeper, metrics) = keeper(folder.path()).await;
    let good = pems(now());
    keeper.adopt(good.clone()).await;
    keeper.adopt(spoil(good.clone(), pems(now()))).await;
    assert_eq!(keeper.served().proof().expect("served").pems, good);
    assert_eq!(failures(&metrics, "Refused"), 1);
}

#[test]
fn a_certificate_for_another_name_says_which_name_clients_ask_for() {
    let refused = Proof::read(pems(now()), "elsewhere.svc").expect_err("another name");
    assert!(matches!(refused, Unfit::NoProof { .. }));
    assert!(refused.to_string().contains("elsewhere.svc"), "{refused}");
}

#[tokio::test]
async fn a_replica_starts_from_its_cache_which_nobody_else_may_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = pems(now());
    let (first, _) = keeper(folder.path()).await;
    assert_eq!(first.authorities(), None);
    first.adopt(served.clone()).await;
    let file = folder.path().join("signal-certificate.json");
    let mode = std::fs::metadata(&file).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (again, metrics) = keeper(folder.path()).await;
    assert_eq!(again.served().proof().expect("served").pems, served);
    assert_eq!(again.authorities(), Some(served.authorities));
    let left = metrics.signal_certificate_seconds.get();
    assert!((SERVER_SECONDS - 60..=SERVER_SECONDS).contains(&left), "{left}");
    assert_eq!(failures(&metrics, "Cache"), 0);
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_served_on_and_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, _) = keeper(folder.path()).await;
    first.adopt(pems(now() - SERVER_SECONDS - 10 * DAY)).await;
    let (again, metrics) = keeper(folder.path()).await;
    assert!(again.served().proof().is_some());
    assert!(metrics.signal_certificate_seconds.get() < -9 * DAY);
}

#[tokio::test]
async fn a_broken_cache_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("signal-certificate.json"), "{").expect("written");
    let (keeper, metrics) = keeper(folder.path()).await;
    assert!(keeper.served().proof().is_none());
    assert_eq!(failures(&metrics, "Cache"), 1);
    assert_eq!(metrics.signal_certificate_seconds.get(), 0);
}

#[test]
fn keys_are_named_as_cert_manager_names_them() {
    assert_eq!([CERTIFICATE, KEY, AUTHORITIES], ["tls.crt", "tls.key", "ca.crt"]);
}
