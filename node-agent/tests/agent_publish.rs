//! The one write of the agent, against an API server of the test's own: path, parameters, body, and when it is not made.

#![expect(clippy::panic, reason = "a helper of tests ends the test with what it saw")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use crds::GpuNodeStatus;
use crds::gpu_node::{Gpu, GpuHealth};
use node_agent::agent::publish::client::{Answer, Client, Error};
use node_agent::agent::publish::{self, Known};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    uri: String,
    content_type: String,
    body: Value,
}

#[derive(Clone, Default)]
struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<Vec<(u16, Value)>>>,
}

impl Server {
    /// Answers in this order; the last one for ever.
    fn answering(answers: &[(u16, Value)]) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.iter().rev().cloned().collect())),
            ..Self::default()
        }
    }

    async fn start(&self, tasks: &mut JoinSet<()>) -> kube::Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let router = Router::new().fallback(answer).with_state(self.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the server runs") });
        let uri = format!("http://{address}").parse().expect("an address is a URI");
        kube::Client::try_from(kube::Config::new(uri)).expect("a client")
    }

    fn requests(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panicked").clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<Seen> {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.requests().len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{count} requests did not come: {:?}", self.requests()));
        self.requests()
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
    server.seen.lock().expect("no test panicked").push(Seen {
        method,
        uri: uri.to_string(),
        content_type: content_type.unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    });
    let mut answers = server.answers.lock().expect("no test panicked");
    let (status, text) = if answers.len() > 1 {
        answers.pop()
    } else {
        answers.last().cloned()
    }
    .expect("the test gave an answer");
    (StatusCode::from_u16(status).expect("a status"), text.to_string())
}

fn status(health: GpuHealth) -> GpuNodeStatus {
    GpuNodeStatus {
        gpu_count: 1,
        gpus: vec![Gpu {
            uuid: "GPU-a".to_owned(),
            health,
            ..Gpu::default()
        }],
        ..GpuNodeStatus::default()
    }
}

fn stored() -> Value {
    json!({
        "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "GpuNode",
        "metadata": {"name": "node-1", "generation": 7, "managedFields": []},
        "spec": {"enrollment": "Enrolled", "unknownField": 1,
                 "healthOverrides": [{"gpuUUID": "GPU-a", "rule": "Xid48", "reason": "known"}]},
    })
}

fn not_found() -> Value {
    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})
}

#[tokio::test]
async fn the_status_alone_is_applied_with_our_field_manager() {
    let mut tasks = JoinSet::new();
    let server = Server::answering(&[(200, stored())]);
    let client = Client::new(server.start(&mut tasks).await, "node-1".to_owned());
    let answer = client
        .apply(&status(GpuHealth::Healthy), false)
        .await
        .expect("it is accepted");
    let Answer::Accepted(seen) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(seen.generation, Some(7));
    assert_eq!(seen.overrides[0].rule, "Xid48");
    let clock = seen.clock.expect("the answer has a date");
    assert!(clock.offset_millis.abs() <= clock.error_millis, "{clock:?}");

    let request = &server.requests()[0];
    assert_eq!(request.method, Method::PATCH);
    let (path, query) = request.uri.split_once('?').expect("there are parameters");
    assert_eq!(path, "/apis/fleet.gonka.ai/v1alpha1/gpunodes/node-1/status");
    let mut query: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    query.sort_unstable();
    assert_eq!(query, ["fieldManager=gonka-fleet%2Fagent", "force=true"]);
    assert_eq!(request.content_type, "application/apply-patch+yaml");
    let keys: Vec<&String> = request.body.as_object().expect("a document").keys().collect();
    assert_eq!(keys, ["apiVersion", "kind", "metadata", "status"]);
    assert_eq!(request.body["metadata"], json!({"name": "node-1"}));
    assert_eq!(request.body["status"]["gpus"][0]["health"], "Healthy");
}

#[tokio::test]
async fn a_dry_run_says_so() {
    let mut tasks = JoinSet::new();
    let server = Server::answering(&[(200, stored())]);
    let client = Client::new(server.start(&mut tasks).await, "node-1".to_owned());
    client
        .apply(&status(GpuHealth::Healthy), true)
        .await
        .expect("it is accepted");
    assert!(server.requests()[0].uri.contains("dryRun=All"));
}

#[tokio::test]
async fn refusals_say_what_was_refused_and_an_absent_object_is_a_value() {
    let mut tasks = JoinSet::new();
    let server = Server::answering(&[
        (404, not_found()),
        (403, json!({"message": "the agent of node n2 may not"})),
        (200, json!("not an object")),
    ]);
    let client = Client::new(server.start(&mut tasks).await, "node-1".to_owned());
    let wanted = status(GpuHealth::Healthy);
    assert_eq!(
        client.apply(&wanted, false).await.expect("404 is an answer"),
        Answer::Absent
    );
    let refused = client.apply(&wanted, false).await.expect_err("403 is an error");
    assert!(matches!(refused, Error::Refused { status: 403, .. }));
    assert!(
        refused.to_string().contains("the agent of node n2 may not"),
        "{refused}"
    );
    assert!(matches!(client.apply(&wanted, false).await, Err(Error::Parse(_))));
}

#[tokio::test]
async fn the_publisher_waits_for_the_object_writes_once_and_again_only_for_a_verdict() {
    let mut tasks = JoinSet::new();
    let server = Server::answering(&[(404, not_found()), (200, stored())]);
    let client = Client::new(server.start(&mut tasks).await, "node-1".to_owned());
    let desired = watch::Sender::new(None);
    let known = watch::Sender::new(Known::default());
    let mut told = known.subscribe();
    let wanted = desired.subscribe();
    tasks.spawn(async move { publish::run(client, wanted, known).await });

    desired.send_replace(Some(status(GpuHealth::Healthy)));
    server.wait_for(2).await;
    let told = tokio::time::timeout(PATIENCE, told.wait_for(|known| known.outcomes.written == 1));
    let told = told.await.expect("in time").expect("the publisher runs").clone();
    assert_eq!(told.outcomes.absent, 1);
    assert_eq!(told.generation, Some(7));
    assert_eq!(told.overrides.len(), 1);

    desired.send_replace(Some(status(GpuHealth::Healthy)));
    desired.send_replace(Some(status(GpuHealth::Unhealthy)));
    let requests = server.wait_for(3).await;
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2].body["status"]["gpus"][0]["health"], "Unhealthy");
    drop(desired);
}
