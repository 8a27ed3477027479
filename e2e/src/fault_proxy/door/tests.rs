//! The sockets, in front of a small server on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::{get, post};

use super::*;
use crate::fault_proxy::plan::{How, Lag, Of, Plan, Trouble};

const PODS: &str = "/api/v1/pods";

/// A server with a watch of three events that stays open, and a count of what was made.
async fn behind_a_proxy() -> (Door, Arc<Gate>, Arc<AtomicUsize>, JoinSet<()>, reqwest::Client) {
    // Refused when another test was first, and the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let events = || async {
        let lines =
            ["ADDED", "MODIFIED", "DELETED"].map(|kind| Ok::<_, Infallible>(format!("{{\"type\":\"{kind}\"}}\n")));
        Body::from_stream(stream::iter(lines).chain(stream::pending()))
    };
    let create = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::CREATED }
    };
    let router = Router::new().route(PODS, get(events)).route(PODS, post(create));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let gate = Arc::new(Gate::default());
    let client = reqwest::Client::builder().build().unwrap();
    let upstream = Upstream::Http {
        client: client.clone(),
        base,
    };
    let door = Door::open("127.0.0.1:0".parse().unwrap(), upstream, Arc::clone(&gate))
        .await
        .unwrap();
    (door, gate, made, server, client)
}

#[tokio::test]
async fn a_watch_loses_what_it_is_to_lose_and_ends_when_it_is_to_end() {
    let (door, gate, _, _server, client) = behind_a_proxy().await;
    gate.set(Plan::troubles([Trouble::watch("pods", Lag::EveryKthLost(2))]));
    let url = format!("http://{}{PODS}?watch=true", door.address);
    let mut answer = client.get(url).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("DELETED") {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("ADDED") && !text.contains("MODIFIED"), "{text}");
    // Open watches end, even if nobody looked while the plan was in force.
    gate.set(Plan::troubles([Trouble::watch("pods", Lag::Gone)]));
    gate.set(Plan::default());
    let rest = answer.text().await.unwrap();
    assert!(rest.contains("\"ERROR\"") && rest.contains("410"), "{rest}");
}

#[tokio::test]
async fn a_write_is_carried_out_or_not_and_nobody_hears_of_it() {
    for (how, carried_out) in [(How::AnswerLost, 1), (How::NeverArrived, 0)] {
        let (door, gate, made, _server, client) = behind_a_proxy().await;
        gate.set(Plan::strike(Of::All, 1, how));
        let request = client.post(format!("http://{}{PODS}", door.address));
        let answer = tokio::select! {
            answer = request.send() => Some(answer),
            struck = gate.strike() => {
                assert_eq!(struck.resource, "pods");
                None
            }
        };
        assert!(answer.is_none(), "{how:?} was answered");
        assert_eq!(made.load(Ordering::SeqCst), carried_out, "{how:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_not_carried_out_and_a_denial_is() {
    for (how, carried_out) in [(How::Refused(409), 0), (How::Denied(500), 1)] {
        let (door, gate, made, _server, client) = behind_a_proxy().await;
        gate.set(Plan::strike(Of::All, 1, how));
        let url = format!("http://{}{PODS}", door.address);
        let first = tokio::time::timeout(Duration::from_secs(5), client.post(&url).send());
        let first = first.await.unwrap().unwrap().status().as_u16();
        assert_eq!(first, if carried_out == 1 { 500 } else { 409 });
        assert_eq!(made.load(Ordering::SeqCst), carried_out, "{how:?}");
        assert_eq!(client.post(&url).send().await.unwrap().status(), 201);
    }
}
