//! New blocks over CometBFT's WebSocket: the quick notice. Polling stays the truth, so every failure here only costs time.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::answers::{Block, new_block};
use crate::backoff;

const SUBSCRIBE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"query":"tm.event='NewBlock'"}}"#;
/// Largest message: a block with its transactions.
const MAX_BYTES: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(5);
/// Silence after which the connection is made anew.
const IDLE: Duration = Duration::from_secs(60);

/// Sends new blocks of `rpc_url` until the receiver is gone. Does nothing for `https`: those endpoints are polled.
pub(super) async fn listen(name: String, rpc_url: String, blocks: mpsc::Sender<Block>) {
    let Some(rest) = rpc_url.strip_prefix("http://") else {
        return blocks.closed().await;
    };
    let url = format!("ws://{}/websocket", rest.trim_end_matches('/'));
    let mut failures = 0;
    loop {
        let heard = tokio::select! {
            heard = session(&url, &blocks) => heard,
            () = blocks.closed() => return,
        };
        failures = if heard { 1 } else { failures + 1 };
        let wait = backoff::delay(failures.min(6), backoff::jitter(&name, failures));
        tracing::debug!(
            endpoint = name,
            ?wait,
            "the block notices of this endpoint ended, it is polled meanwhile"
        );
        tokio::select! {
            () = sleep(wait) => {}
            () = blocks.closed() => return,
        }
    }
}

/// One connection; true when it brought a block.
async fn session(url: &str, blocks: &mpsc::Sender<Block>) -> bool {
    let Ok(request) = url.into_client_request() else {
        return false;
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_BYTES))
        .max_frame_size(Some(MAX_BYTES));
    let connected = timeout(
        CONNECT,
        tokio_tungstenite::connect_async_with_config(request, Some(config), true),
    );
    let Ok(Ok((mut socket, _))) = connected.await else {
        return false;
    };
    if socket.send(Message::text(SUBSCRIBE)).await.is_err() {
        return false;
    }
    let mut heard = false;
    while let Ok(Some(Ok(message))) = timeout(IDLE, socket.next()).await {
        let Message::Text(text) = message else { continue };
        let Ok(value) = serde_json::from_str(&text) else { break };
        if let Some(block) = new_block(&value) {
            heard = true;
            if blocks.send(block).await.is_err() {
                break;
            }
        }
    }
    heard
}
