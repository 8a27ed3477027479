//! FleetSignal over a real socket, with real tokens.

mod secure;

use std::time::Duration;

use crds::references::Window;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use prometheus::Registry;
use proto::v1::fleet_signal_client::FleetSignalClient;
use proto::v1::{self, Frame, WatchRequest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::*;
use crate::certificate::held::{Held, Pems};
use crate::certificate::make::bring_up;
use crate::certificate::proof::Proof;
use crate::chain::{Queries, now_ms};
use crate::facts::Facts;

const JWKS: &str = include_str!("../../tests/keys/jwks.json");
const EC: &[u8] = include_bytes!("../../tests/keys/test-es256.pem");
const CHAIN: &str = "gonka-testnet-1";
const NAME: &str = "gonka-fleet-signal.gonka-system.svc";

fn facts(height: i64) -> Facts {
    Facts {
        schedule: "test".into(),
        chain_id: CHAIN.into(),
        height,
        window: Window::Amber,
        ..Facts::default()
    }
}

fn token() -> String {
    let header = Header {
        kid: Some("ec-1".to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    let claims = serde_json::json!({"aud": ["fleetsignal"], "sub": "test", "exp": now_ms() / 1000 + 600});
    encode(&header, &claims, &EncodingKey::from_ec_pem(EC).expect("a key")).expect("signed")
}

/// A new installation's authority, and a certificate of it.
fn held() -> Held {
    let (held, _) = bring_up(None, NAME, now_ms() / 1000).expect("made");
    held.expect("there is one")
}

fn pems(held: &Held) -> Pems {
    held.pems().expect("a certificate")
}

struct Running {
    address: SocketAddr,
    facts: watch::Sender<Arc<Facts>>,
    held: Held,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Error>>,
    _cache: tempfile::TempDir,
}

async fn running() -> Running {
    let served = Arc::new(Served::default());
    let held = held();
    served.swap(Proof::read(pems(&held), NAME).expect("a proof"));
    serving(held, served, false).await
}

async fn serving(held: Held, served: Arc<Served>, plaintext: bool) -> Running {
    let cache = tempfile::tempdir().expect("a folder");
    tokio::fs::write(cache.path().join("jwks.json"), JWKS)
        .await
        .expect("written");
    let book = Arc::new(Book::default());
    let (facts, seen) = watch::channel(Arc::new(facts(100)));
    drop(rustls::crypto::ring::default_provider().install_default());
    let queries = Queries::new(reqwest::Client::new(), watch::channel(Vec::new()).1);
    book.insert("test", seen, Arc::new(queries));
    let metrics = Arc::new(Metrics::new(&Registry::new()).expect("metrics"));
    let serving = Serving {
        source: "operator-0".into(),
        book,
        trust: Arc::new(Trust::load(cache.path(), "fleetsignal", None).await),
        served: Arc::clone(&served),
        plaintext,
        metrics: Arc::clone(&metrics),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_on(listener, serving, stop.clone()));
    Running {
        address,
        facts,
        held,
        served,
        metrics,
        stop,
        tasks,
        _cache: cache,
    }
}

/// A connection as clients make it: TLS to this address, believing these authorities.
async fn secure(address: SocketAddr, authorities: &str) -> std::io::Result<Channel> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.expect("PEM")).expect("an authority");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    // TLS is spoken already, so that the channel itself must not.
    let endpoint = Endpoint::from_static("http://gonka-fleet-signal.gonka-system.svc");
    Ok(endpoint.connect_with_connector(connector).await.expect("HTTP/2"))
}

async fn watch_over(
    channel: Channel,
    chain_id: &str,
    resume_sequence: u64,
    token: Option<&str>,
) -> Result<Streaming<Frame>, Status> {
    let mut client = FleetSignalClient::new(channel);
    let mut request = Request::new(WatchRequest {
        chain_id: chain_id.to_owned(),
        resume_sequence,
        client: "test".to_owned(),
        ..WatchRequest::default()
    });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    // The first look at the book takes a moment.
    for _ in 0..40 {
        let again = Request::from_parts(
            request.metadata().clone(),
            tonic::Extensions::default(),
            request.get_ref().clone(),
        );
        match client.watch(again).await {
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answer => return answer.map(tonic::Response::into_inner),
        }
    }
    Err(Status::unavailable("never"))
}

impl Running {
    async fn watch(
        &self,
        chain_id: &str,
        resume_sequence: u64,
        token: Option<&str>,
    ) -> Result<Streaming<Frame>, Status> {
        let channel = secure(self.address, &self.held.authorities()).await.expect("connected");
        watch_over(channel, chain_id, resume_sequence, token).await
    }

    fn handshakes(&self, result: &str) -> u64 {
        self.metrics.signal_handshakes_total.with_label_values(&[result]).get()
    }
}

async fn next(stream: &mut Streaming<Frame>) -> Frame {
    timeout(Duration::from_secs(8), stream.message())
        .await
        .expect("in time")
        .expect("no error")
        .expect("a frame")
}

#[tokio::test]
async fn the_first_frame_comes_at_once_then_changes_then_heartbeats() {
    let mut running = running().await;
    let mut stream = running.watch(CHAIN, 0, Some(&token())).await.expect("accepted");
    let first = next(&mut stream).await;
    assert_eq!(
        (first.height, first.heartbeat, first.source.as_str()),
        (100, false, "operator-0")
    );
    assert_eq!(first.window(), v1::Window::Amber);
    running.facts.send_replace(Arc::new(facts(101)));
    let second = next(&mut stream).await;
    assert_eq!((second.height, second.sequence), (101, first.sequence + 1));
    let third = next(&mut stream).await;
    assert_eq!(
        (third.height, third.heartbeat, third.sequence),
        (101, true, first.sequence + 2)
    );
    running.stop.cancel();
    running
        .tasks
        .join_next()
        .await
        .expect("a task")
        .expect("no panic")
        .expect("served");
}

#[tokio::test]
async fn a_frame_that_was_seen_is_not_repeated() {
    let running = running().await;
    let mut stream = running.watch(CHAIN, 0, Some(&token())).await.expect("accepted");
    let seen = next(&mut stream).await.sequence;
    let mut resumed = running.watch(CHAIN, seen, Some(&token())).await.expect("accepted");
    running.facts.send_replace(Arc::new(facts(101)));
    assert_eq!(next(&mut resumed).await.height, 101);
}

#[tokio::test]
async fn another_chain_is_refused_by_name() {
    let running = running().await;
    let status = running
        .watch("gonka-mainnet", 0, Some(&token()))
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains(CHAIN));
}

#[tokio::test]
async fn without_a_token_nobody_listens() {
    let running = running().await;
    for token in [None, Some("forged.token.x")] {
        let status = running.watch(CHAIN, 0, token).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_dropped() {
    let metrics = Arc::new(Metrics::new(&Registry::new()).expect("metrics"));
    let hub = Hub::new("operator-0".into(), Arc::clone(&metrics));
    hub.publish(frame(&facts(1)), 1);
    let mut slow = hub.subscribe(CHAIN, 0).expect("subscribed");
    for height in 2..200 {
        hub.publish(frame(&facts(height)), height);
    }
    assert_eq!(metrics.signal_subscribers.get(), 0);
    let mut received = 0;
    while slow.recv().await.is_some() {
        received += 1;
    }
    assert_eq!(received, 32);
}

#[test]
fn sequences_of_a_restarted_replica_go_on_upwards() {
    let metrics = Arc::new(Metrics::new(&Registry::new()).expect("metrics"));
    let sequence = |now_ms: i64| {
        let hub = Hub::new("operator-0".into(), Arc::clone(&metrics));
        hub.publish(frame(&facts(1)), now_ms);
        let mut frames = hub.subscribe(CHAIN, 0).expect("subscribed");
        frames.try_recv().expect("a frame").expect("no error").sequence
    };
    assert!(sequence(1_000_000) > sequence(900_000));
}

#[test]
fn a_fleet_of_the_largest_size_hears_every_frame_and_one_more_is_sent_elsewhere() {
    let metrics = Arc::new(Metrics::new(&Registry::new()).expect("metrics register"));
    let hub = Hub::new("a".into(), metrics);
    hub.publish(frame(&facts(100)), 1_000);
    let mut all: Vec<_> = (0..MAX_SUBSCRIBERS)
        .map(|_| hub.subscribe(CHAIN, 0).expect("there is room"))
        .collect();
    let full = hub.subscribe(CHAIN, 0).expect_err("there is no room");
    assert_eq!(full.code(), Code::ResourceExhausted);
    for height in 101..=104 {
        hub.publish(frame(&facts(height)), height * 1_000);
    }
    for frames in &mut all {
        let heights: Vec<i64> = std::iter::from_fn(|| frames.try_recv().ok())
            .map(|frame| frame.expect("a frame").height)
            .collect();
        assert_eq!(heights, [100, 101, 102, 103, 104]);
    }
    all.truncate(10);
    hub.subscribe(CHAIN, 0).expect("those who went made room");
}
