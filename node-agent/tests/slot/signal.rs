//! FleetSignal: a round learns the end of its stage from it, and does without when it is gone. Nobody is shown a token before it has
//! proven its name.

use super::{
    chain_door::{START, STATUS, start_body},
    dapi::Dapi,
    pod::{Pod, wait},
};
use proto::v1::{
    Frame, RoundState, StageHeights, WatchRequest,
    fleet_signal_server::{FleetSignal, FleetSignalServer},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream, wrappers::WatchStream};
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

/// A source of frames that the test writes.
#[derive(Debug, Clone)]
struct Source {
    frames: watch::Receiver<Frame>,
    tokens: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl FleetSignal for Source {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        self.tokens.lock().unwrap().extend(token);
        Ok(Response::new(Box::pin(WatchStream::new(self.frames.clone()).map(Ok))))
    }
}

fn frame(height: i64) -> Frame {
    Frame {
        source: "operator-0".into(),
        sequence: height as u64,
        chain_id: "gonka-test".into(),
        height,
        block_hash: format!("hash-{height}"),
        heights: Some(StageHeights {
            poc_start: 145,
            wind_down: 150,
            generation_end: 152,
            validation_start: 154,
            ..StageHeights::default()
        }),
        ..Frame::default()
    }
}

const NAME: &str = "gonka-fleet-signal.gonka-system.svc";

/// Vouches for servers.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        let issuer = Issuer::new(parameters, key);
        Self { certificate, issuer }
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

/// A server of frames that the test writes.
struct Replica {
    port: u16,
    frames: watch::Sender<Frame>,
    tokens: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl Replica {
    /// Without an identity it speaks without TLS.
    async fn start(identity: Option<Identity>) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (sender, frames) = watch::channel(frame(144));
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let source = Source {
            frames,
            tokens: Arc::clone(&tokens),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut builder = Server::builder();
        if let Some(identity) = identity {
            builder = builder.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        }
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let incoming = TcpListenerStream::new(listener).map(move |accepted| {
            counted.fetch_add(1, Ordering::Relaxed);
            accepted
        });
        let mut server = JoinSet::new();
        server.spawn(async move {
            builder
                .add_service(FleetSignalServer::new(source))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            port,
            frames: sender,
            tokens,
            connections,
            _server: server,
        }
    }

    fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    async fn was_tried(&self, times: usize) {
        let tried = async || self.connections.load(Ordering::Relaxed) >= times;
        wait("attempts", tried).await;
    }
}

/// Files of a pod: a token, and whom to believe.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "secret-1\n").unwrap();
        let files = Self { folder };
        files.believe(authority);
        files
    }

    /// As a projected volume changes: another file under the same name.
    fn believe(&self, authority: &Authority) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, authority.certificate.pem()).unwrap();
        std::fs::rename(new, self.folder.path().join("signal-ca.pem")).unwrap();
    }

    fn flags(&self, signal: &str) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("--signal", signal.to_owned()),
            ("--signal-server-name", NAME.to_owned()),
            ("--signal-ca", file("signal-ca.pem")),
            ("--signal-token", file("token")),
            ("--chain-id", "gonka-test".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }
}

fn borrowed(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_an_unknown_authority_is_shown_no_token_until_the_bundle_knows_it() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let replica = Replica::start(Some(theirs.identity(NAME))).await;
    let files = Files::new(&ours);
    let flags = files.flags(&format!("https://127.0.0.1:{}", replica.port));
    let _pod = Pod::start_with(&borrowed(&flags)).await;
    replica.was_tried(3).await;
    assert_eq!(replica.tokens(), Vec::<String>::new());
    files.believe(&theirs);
    wait("the watch", async || !replica.tokens().is_empty()).await;
    assert_eq!(replica.tokens(), ["Bearer secret-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_under_another_name_or_without_tls_is_shown_no_token() {
    let authority = Authority::new();
    let elsewhere = Replica::start(Some(authority.identity("gonka-fleet.gonka-system.svc"))).await;
    let open = Replica::start(None).await;
    let asked_openly = Replica::start(None).await;
    let right = Replica::start(Some(authority.identity(NAME))).await;
    let files = Files::new(&authority);
    let signal = format!(
        "https://127.0.0.1:{},https://127.0.0.1:{},http://127.0.0.1:{},https://127.0.0.1:{}",
        elsewhere.port, open.port, asked_openly.port, right.port
    );
    let flags = files.flags(&signal);
    let _pod = Pod::start_with(&borrowed(&flags)).await;
    wait("the watch", async || !right.tokens().is_empty()).await;
    elsewhere.was_tried(3).await;
    open.was_tried(3).await;
    for wrong in [&elsewhere, &open, &asked_openly] {
        assert_eq!(wrong.tokens(), Vec::<String>::new());
    }
    assert_eq!(asked_openly.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_ends_two_blocks_after_validation_start_and_hurries_before_the_end() {
    let authority = Authority::new();
    let replica = Replica::start(Some(authority.identity(NAME))).await;
    let sender = &replica.frames;
    // The second address is nobody's: it must not matter.
    let files = Files::new(&authority);
    let mut flags = files.flags(&format!("https://127.0.0.1:{},https://127.0.0.1:9", replica.port));
    flags.extend(["--callback-interval".to_owned(), "60s".to_owned()]);
    let pod = Pod::promoted_with(&borrowed(&flags)).await;
    let dapi = Dapi::start().await;
    wait("the watch", async || !replica.tokens().is_empty()).await;
    assert_eq!(replica.tokens()[0], "Bearer secret-1");
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    // The first callback leaves within a second; the next would be due in a minute.
    wait("the first callback", async || dapi.callbacks().len() == 1).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(dapi.callbacks().len(), 1);
    // A height that no chain can have reached must not end the round.
    sender.send(frame(1_000_000)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pod.get(STATUS).await.body["status"], "GENERATING");
    sender.send(frame(150)).unwrap();
    wait("the hurry", async || dapi.callbacks().len() >= 3).await;
    sender.send(frame(155)).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        pod.get(STATUS).await.body["status"],
        "GENERATING",
        "stop may still come"
    );
    sender.send(frame(156)).unwrap();
    wait("the end", async || pod.get(STATUS).await.body["status"] == "IDLE").await;
    let round = pod.report().await.round.unwrap();
    assert_eq!(round.state(), RoundState::StoppedBySelf);
    assert!(
        0 < round.generated_in_time && round.generated_in_time < round.generated,
        "what came after block 152 is told apart: {round:?}"
    );
}
