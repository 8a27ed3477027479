//! Leader and replicas against one Secret behind an API server's address.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{NAME, failures, made, now};
use crate::certificate::decide::SERVER_SECONDS;
use crate::certificate::held::{Held, Pems};
use crate::certificate::{Error, Keeper, Settings, pass};
use crate::context::{Book, Context};
use crate::metrics::Metrics;
use crate::trust::Trust;

const DAY: i64 = 86_400;
const SECRET: &str = "gonka-fleet-signal-tls";

/// One Secret, and how often it was written.
#[derive(Default)]
struct Kept {
    secret: Option<Value>,
    version: u64,
    writes: usize,
}

type Api = Arc<Mutex<Kept>>;

fn refusal(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}

fn write(api: &Api, mut secret: Value) -> Response {
    let mut kept = api.lock().unwrap_or_else(PoisonError::into_inner);
    kept.version += 1;
    kept.writes += 1;
    secret["metadata"]["uid"] = json!("uid-1");
    secret["metadata"]["resourceVersion"] = json!(kept.version.to_string());
    kept.secret = Some(secret.clone());
    Json(secret).into_response()
}

async fn read(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let secret = api.lock().unwrap_or_else(PoisonError::into_inner).secret.clone();
    match secret.filter(|_| name == SECRET) {
        Some(secret) => Json(secret).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn create(State(api): State<Api>, Json(secret): Json<Value>) -> Response {
    if api.lock().unwrap_or_else(PoisonError::into_inner).secret.is_some() {
        return refusal(StatusCode::CONFLICT, "AlreadyExists");
    }
    write(&api, secret)
}

async fn apply(State(api): State<Api>, body: String) -> Response {
    let secret: Value = serde_json::from_str(&body).expect("an object");
    let there = api.lock().unwrap_or_else(PoisonError::into_inner).secret.clone();
    let version = |of: &Value| of["metadata"]["resourceVersion"].clone();
    if there.is_none_or(|there| version(&there) != version(&secret)) {
        return refusal(StatusCode::CONFLICT, "Conflict");
    }
    write(&api, secret)
}

struct World {
    api: Api,
    client: Client,
    folder: tempfile::TempDir,
    _server: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let api = Api::default();
        let router = axum::Router::new()
            .route("/api/v1/namespaces/gonka-system/secrets", post(create))
            .route("/api/v1/namespaces/gonka-system/secrets/{name}", get(read).patch(apply))
            .with_state(Arc::clone(&api));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("served") });
        let config = kube::Config::new(address.parse().expect("an address"));
        Self {
            api,
            client: Client::try_from(config).expect("a client"),
            folder: tempfile::tempdir().expect("a folder"),
            _server: server,
        }
    }

    /// A replica, started anew each time.
    async fn replica(&self, provided: bool) -> Context {
        let metrics = Arc::new(Metrics::new(&Registry::new()).expect("metrics"));
        let settings = Settings {
            namespace: "gonka-system".to_owned(),
            service: "gonka-fleet-signal".to_owned(),
            secret: SECRET.to_owned(),
            provided,
            cache_dir: self.folder.path().to_owned(),
        };
        let keeper = Keeper::load(settings, Some(self.client.clone()), Arc::clone(&metrics)).await;
        Context {
            client: self.client.clone(),
            reporter: "gonka-fleet".into(),
            book: Arc::new(Book::default()),
            live: Arc::default(),
            gate: Arc::default(),
            metrics,
            settings: Arc::default(),
            trust: Arc::new(Trust::load(self.folder.path(), "fleetsignal", None).await),
            certificate: Arc::new(keeper),
        }
    }

    fn put(&self, held: &Held) {
        let secret = held.secret("gonka-system", SECRET, None);
        write(&self.api, serde_json::to_value(secret).expect("JSON"));
    }

    fn held(&self) -> Held {
        Held::of(&self.secret()).expect("ours").expect("there is one")
    }

    fn secret(&self) -> Secret {
        let kept = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::from_value(kept.secret.clone().expect("there is one")).expect("a Secret")
    }

    fn writes(&self) -> usize {
        self.api.lock().unwrap_or_else(PoisonError::into_inner).writes
    }
}

fn served(replica: &Context) -> Option<Pems> {
    replica.certificate.served().proof().map(|proof| proof.pems.clone())
}

#[tokio::test]
async fn the_leader_makes_the_secret_once_and_replicas_serve_what_is_in_it() {
    let world = World::new().await;
    let (leader, follower) = (world.replica(false).await, world.replica(false).await);
    follower.certificate.look().await;
    assert_eq!(served(&follower), None);
    assert_eq!(failures(&follower.metrics, "Refused"), 0, "the leader makes it soon");
    assert_eq!(pass(&leader).await.expect("made").writes, 1);
    assert_eq!(pass(&leader).await.expect("at rest").writes, 0);
    follower.certificate.look().await;
    assert_eq!(served(&follower), world.held().pems());
    assert_eq!(served(&leader), world.held().pems());
}

#[tokio::test]
async fn a_certificate_that_is_due_is_renewed_under_the_same_authority() {
    let world = World::new().await;
    let before = made(now() - SERVER_SECONDS + 9 * DAY);
    world.put(&before);
    let leader = world.replica(false).await;
    assert_eq!(pass(&leader).await.expect("renewed").writes, 1);
    let after = world.held();
    assert_eq!(after.signing, before.signing);
    assert_ne!(after.server, before.server);
    assert_eq!(served(&leader), after.pems());
}

#[tokio::test]
async fn of_two_leaders_that_saw_the_same_one_writes() {
    let world = World::new().await;
    let (one, other) = (world.replica(false).await, world.replica(false).await);
    let (first, second) = tokio::join!(pass(&one), pass(&other));
    let landed = [&first, &second].iter().filter(|pass| pass.is_ok()).count();
    let kept = world.held();
    // Whoever came second saw nothing to write, or was refused; never is there a second authority.
    assert_eq!(world.writes(), 1);
    assert!(landed >= 1, "{first:?} {second:?}");
    for replica in [&one, &other] {
        replica.certificate.look().await;
        assert_eq!(served(replica), kept.pems());
    }
}

#[tokio::test]
async fn a_secret_that_is_not_the_operators_is_left_as_it_is() {
    let world = World::new().await;
    world.put(&made(now()));
    let changed = {
        let mut kept = world.api.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = kept.secret.as_mut().expect("there is one");
        secret["data"].as_object_mut().expect("data").remove("authority.key");
        secret.clone()
    };
    let leader = world.replica(false).await;
    let refused = pass(&leader).await.expect_err("not understood");
    assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
    assert_eq!(serde_json::to_value(world.secret()).expect("JSON"), changed);
    assert_eq!(world.writes(), 1);
    // What is good in it is served all the same.
    leader.certificate.look().await;
    assert!(served(&leader).is_some());
}

#[tokio::test]
async fn a_provided_secret_is_read_again_when_it_changes_and_kept_while_it_is_broken_or_gone() {
    let world = World::new().await;
    let replica = world.replica(true).await;
    replica.certificate.look().await;
    assert_eq!(failures(&replica.metrics, "Refused"), 1, "nobody will make it");
    let mut last = None;
    for _ in 0..2 {
        let held = made(now());
        world.put(&held);
        replica.certificate.look().await;
        assert_eq!(served(&replica), held.pems());
        assert_eq!(replica.certificate.authorities(), Some(held.authorities()));
        last = held.pems();
    }
    let mut mixed = made(now());
    mixed.server = made(now()).server;
    world.put(&mixed);
    replica.certificate.look().await;
    world.api.lock().unwrap_or_else(PoisonError::into_inner).secret = None;
    replica.certificate.look().await;
    assert_eq!(failures(&replica.metrics, "Refused"), 3);
    assert_eq!(served(&replica), last);
    assert_eq!(replica.certificate.name(), NAME);
}
