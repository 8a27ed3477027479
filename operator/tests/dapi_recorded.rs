//! The client against a server that answers as a real DAPI did, from recordings; and against hostile ones.

#![expect(clippy::panic, reason = "a helper of tests ends the test with what it saw")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use operator::dapi::{CheckStatus, Client, Endpoint, Error, NodeSpec};
use operator::metrics::Metrics;
use prometheus::Registry;
use serde_json::Value;
use tokio::sync::Mutex;

type Log = Arc<Mutex<Vec<(String, String, Value)>>>;

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../e2e/network-simulator/tests/recorded")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("a recording is JSON")
}

/// A server that answers each path with the recording named for it, without a Content-Type.
async fn server(answers: &'static [(&'static str, &'static str)]) -> (SocketAddr, Log) {
    let log = Log::default();
    let seen = log.clone();
    let app = Router::new().fallback(move |request: Request| {
        let seen = seen.clone();
        async move {
            let method = request.method().to_string();
            let path = request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20)
                .await
                .unwrap_or_default();
            seen.lock().await.push((
                method,
                path.clone(),
                serde_json::from_slice(&body).unwrap_or(Value::Null),
            ));
            let name = answers
                .iter()
                .find(|(start, _)| path.starts_with(start))
                .map(|(_, name)| *name);
            let (status, body) = match name {
                None => (404, br#"{"error":"not found"}"#.to_vec()),
                Some(name) => {
                    let answer = recorded(name);
                    let status = answer["status"].as_u64().expect("a status") as u16;
                    (status, answer["body"].to_string().into_bytes())
                }
            };
            Response::builder()
                .status(StatusCode::from_u16(status).expect("a status"))
                .body(Body::from(body))
                .expect("a response")
        }
    });
    (serve(app).await, log)
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&Registry::new()).expect("metrics register"))
}

fn client(address: SocketAddr, metrics: Arc<Metrics>) -> Client {
    // Other tests of this process may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = Endpoint {
        admin_url: format!("http://{address}/"),
        public_url: format!("http://{address}"),
        token: Some("hush".to_owned()),
        ca_bundle: None,
    };
    Client::new(endpoint, metrics).expect("a client")
}

#[tokio::test]
async fn recorded_nodes_are_read_whatever_their_order() {
    let (address, _) = server(&[("/admin/v1/nodes", "admin-nodes__145.json")]).await;
    let nodes = client(address, metrics()).nodes().await.expect("nodes");
    let summary: Vec<(&str, i32, &str)> = nodes
        .iter()
        .map(|node| {
            (
                node.node.id.as_str(),
                node.node_num,
                node.state.as_ref().expect("state").poc_current_status.as_str(),
            )
        })
        .collect();
    assert_eq!(summary, [("ml-a", 1, "GENERATING"), ("ml-b", 2, "GENERATING")]);
    assert_eq!(nodes[0].node.hardware[0].kind, "NVIDIA H200 | 140GB");
    assert_eq!(
        nodes[0].node.models["Qwen/Qwen2.5-7B-Instruct"].args,
        ["--max-model-len", "32768"]
    );
}

#[tokio::test]
async fn a_preserved_node_is_known_by_its_models() {
    let (address, _) = server(&[("/admin/v1/nodes", "admin-nodes__182.json")]).await;
    let nodes = client(address, metrics()).nodes().await.expect("nodes");
    let preserved: Vec<bool> = nodes
        .iter()
        .map(|node| !node.state.as_ref().expect("state").preserved_models.is_empty())
        .collect();
    assert_eq!(preserved, [false, true]);
}

#[tokio::test]
async fn a_fresh_registration_is_read_too() {
    let (address, _) = server(&[("/admin/v1/nodes", "admin-nodes__32.json")]).await;
    let nodes = client(address, metrics()).nodes().await.expect("nodes");
    assert!(
        nodes
            .iter()
            .all(|node| node.state.as_ref().is_some_and(|state| state.enabled))
    );
}

#[tokio::test]
async fn setup_reports_tell_a_missing_feegrant_and_the_account() {
    let (address, _) = server(&[("/admin/v1/setup/report", "admin-setup_report__32.json")]).await;
    let report = client(address, metrics()).setup_report().await.expect("report");
    assert_eq!(
        report.check("feegrant_allowance").expect("checked").status,
        CheckStatus::Fail
    );
    assert_eq!(
        report.check("active_in_epoch").expect("checked").status,
        CheckStatus::Unavailable
    );
    assert_eq!(report.account, "gonka1x6arfy9mz5j6ymn3vhhg86zz9y4fqkqvrkkpyv");
    let (address, _) = server(&[("/admin/v1/setup/report", "admin-setup_report__162.json")]).await;
    let report = client(address, metrics()).setup_report().await.expect("report");
    assert_eq!(
        report.check("feegrant_allowance").expect("checked").status,
        CheckStatus::Pass
    );
}

#[tokio::test]
async fn the_public_api_tells_identity_height_and_artifacts() {
    let (address, log) = server(&[
        ("/v1/identity", "dapi-identity__162.json"),
        ("/v1/epochs/latest", "dapi-epochs-latest__182.json"),
        (
            "/v1/poc/artifacts/state?height=145",
            "dapi-poc-artifacts-state__162.json",
        ),
    ])
    .await;
    let client = client(address, metrics());
    assert_eq!(
        client.identity().await.expect("identity"),
        "gonka1r4zmwd8gvw7kguhfzk82eua7myrfx5glqtg86r"
    );
    let latest = client.latest().await.expect("latest");
    assert_eq!(
        (latest.block_height, latest.epoch, latest.poc_start_height),
        (182, 2, 145)
    );
    let state = client
        .artifact_state(145, "Qwen/Qwen2.5-7B-Instruct")
        .await
        .expect("state")
        .expect("known");
    assert_eq!(state.count, 182);
    assert_eq!(client.artifact_state(1, "x").await.expect("an answer"), None);
    let asked = log.lock().await[2].1.clone();
    assert_eq!(
        asked,
        "/v1/poc/artifacts/state?height=145&model_id=Qwen%2FQwen2.5-7B-Instruct"
    );
}

#[tokio::test]
async fn writes_carry_the_id_in_path_and_body_and_are_counted() {
    let (address, log) = server(&[("/admin/v1/nodes", "admin-post-node__31.json")]).await;
    let metrics = metrics();
    let client = client(address, metrics.clone());
    let request = recorded("admin-post-node__31.json")["request_body"].clone();
    let node: NodeSpec = serde_json::from_value(request).expect("our shape is DAPI's");
    client.post_node(&node).await.expect("posted");
    client.put_node(&node).await.expect("put");
    let log = log.lock().await;
    let asked: Vec<(&str, &str)> = log
        .iter()
        .map(|(method, path, _)| (method.as_str(), path.as_str()))
        .collect();
    assert_eq!(asked, [("POST", "/admin/v1/nodes"), ("PUT", "/admin/v1/nodes/ml-a")]);
    assert_eq!(log[1].2["id"], "ml-a");
    assert_eq!(log[1].2["hardware"][0]["type"], "NVIDIA H200 | 140GB");
    assert_eq!(metrics.external_writes_total.with_label_values(&["dapi"]).get(), 2);
    assert_eq!(metrics.dapi_requests_total.with_label_values(&["PUT", "200"]).get(), 1);
}

#[tokio::test]
async fn a_refusal_says_what_dapi_said() {
    let (address, _) = server(&[("/v1/poc/artifacts/state", "dapi-poc-artifacts-state2__162.json")]).await;
    let error = client(address, metrics())
        .artifact_state(1, "m")
        .await
        .expect_err("refused");
    assert!(matches!(&error, Error::Refused { status: 400, said, .. } if said == "height query parameter required"));
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_where_and_what_next() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("bound");
    let metrics = metrics();
    let error = client(closed, metrics.clone())
        .nodes()
        .await
        .expect_err("nobody listens");
    let text = error.to_string();
    assert!(
        text.contains(&format!("http://{closed}/admin/v1/nodes")) && text.contains("check that DAPI runs"),
        "{text}"
    );
    assert_eq!(metrics.dapi_requests_total.with_label_values(&["GET", "0"]).get(), 1);
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let endless = Router::new().fallback(|| async {
        let chunk: Result<bytes::Bytes, std::convert::Infallible> = Ok(bytes::Bytes::from(vec![b' '; 1 << 20]));
        Body::from_stream(futures::stream::repeat(chunk))
    });
    let error = client(serve(endless).await, metrics())
        .nodes()
        .await
        .expect_err("too large");
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_stays_on_the_admin_api() {
    let (target, log) = server(&[("/", "dapi-identity__162.json")]).await;
    let redirecting = Router::new()
        .fallback(move || async move { axum::response::Redirect::temporary(&format!("http://{target}/stolen")) });
    let error = client(serve(redirecting).await, metrics())
        .nodes()
        .await
        .expect_err("refused");
    assert!(matches!(error, Error::Refused { status: 307, .. }), "{error}");
    assert!(log.lock().await.is_empty());
}

#[test]
fn neither_settings_nor_client_print_the_token() {
    let endpoint = Endpoint {
        token: Some("hush".to_owned()),
        ..Endpoint::default()
    };
    assert!(!format!("{endpoint:?}").contains("hush"));
}
