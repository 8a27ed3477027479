//! DAPI's callback port: takes what the slot posts, answers what the test says.

use axum::{Router, body::to_bytes, extract::Request, extract::State};
use http::StatusCode;
use serde_json::Value;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// One callback.
#[derive(Debug, Clone)]
pub struct Callback {
    /// Path as sent, nothing decoded.
    pub path: String,
    pub body: Value,
    /// What was answered.
    pub status: u16,
    pub at: Instant,
}

impl Callback {
    pub fn nonces(&self) -> Vec<i64> {
        self.body["artifacts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|artifact| artifact["nonce"].as_i64())
            .collect()
    }
}

#[derive(Debug, Default)]
struct Shared {
    callbacks: Mutex<Vec<Callback>>,
    status: AtomicU16,
}

#[derive(Debug)]
pub struct Dapi {
    shared: Arc<Shared>,
    address: String,
    _server: JoinSet<()>,
}

impl Dapi {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        shared.status.store(200, Ordering::SeqCst);
        let router = Router::new().fallback(take).with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            shared,
            address,
            _server: server,
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The callback URL as DAPI writes it: model id percent-encoded twice.
    pub fn callback_url(&self) -> String {
        format!("{}/v2/poc-batches/gonka-fleet%252Ftiny_qwen3_dense", self.address)
    }

    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    pub fn callbacks(&self) -> Vec<Callback> {
        self.shared.callbacks.lock().unwrap().clone()
    }

    /// Nonces of mining callbacks that were taken, in order of arrival.
    pub fn taken_nonces(&self) -> Vec<i64> {
        self.callbacks()
            .iter()
            .filter(|callback| callback.status == 200 && callback.path.ends_with("/generated"))
            .flat_map(Callback::nonces)
            .collect()
    }

    /// Waits until a number of nonces was taken.
    pub async fn wait_for_nonces(&self, count: usize) -> Vec<i64> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let nonces = self.taken_nonces();
            if nonces.len() >= count {
                return nonces;
            }
            assert!(Instant::now() < deadline, "{} of {count} nonces came", nonces.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a callback whose path ends so.
    pub async fn wait_for(&self, ending: &str) -> Callback {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(found) = self
                .callbacks()
                .into_iter()
                .find(|callback| callback.path.ends_with(ending))
            {
                return found;
            }
            assert!(Instant::now() < deadline, "no callback to {ending} came");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> (StatusCode, String) {
    let path = request.uri().path().to_owned();
    let body = to_bytes(request.into_body(), 64 << 20).await.unwrap();
    let status = shared.status.load(Ordering::SeqCst);
    shared.callbacks.lock().unwrap().push(Callback {
        path,
        body: serde_json::from_slice(&body).unwrap(),
        status,
        at: Instant::now(),
    });
    let text = if status == 503 {
        "{\"error\":\"not in PoC generate phase\"}\n"
    } else {
        ""
    };
    (StatusCode::from_u16(status).unwrap(), text.to_owned())
}
