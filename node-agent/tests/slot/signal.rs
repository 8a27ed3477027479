//! FleetSignal: a round learns the end of its stage from it, and does without when it is gone.

use super::{
    chain_door::{START, STATUS, start_body},
    dapi::Dapi,
    pod::{Pod, wait},
};
use proto::v1::{
    Frame, RoundState, StageHeights, WatchRequest,
    fleet_signal_server::{FleetSignal, FleetSignalServer},
};
use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream, wrappers::WatchStream};
use tonic::{Request, Response, Status, transport::Server};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_round_ends_two_blocks_after_validation_start_and_hurries_before_the_end() {
    let (sender, frames) = watch::channel(frame(144));
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let source = Source {
        frames,
        tokens: Arc::clone(&tokens),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        Server::builder()
            .add_service(FleetSignalServer::new(source))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret-1\n").unwrap();
    // The second address is nobody's: it must not matter.
    let addresses = format!("{address},http://127.0.0.1:9");
    let pod = Pod::promoted_with(&[
        "--signal",
        &addresses,
        "--signal-token",
        &token.display().to_string(),
        "--chain-id",
        "gonka-test",
        "--callback-interval",
        "60s",
    ])
    .await;
    let dapi = Dapi::start().await;
    wait("the watch", async || !tokens.lock().unwrap().is_empty()).await;
    assert_eq!(tokens.lock().unwrap()[0], "Bearer secret-1");
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
