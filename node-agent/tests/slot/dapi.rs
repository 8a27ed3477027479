//! DAPI's callback port: takes what the slot posts, answers what the test says.

use axum::{Router, body::to_bytes, extract::Request, extract::State};
use http::StatusCode;
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

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
    /// How long an answer takes after the callback was taken.
    delay_ms: AtomicU64,
}

#[derive(Debug)]
pub struct Dapi {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// A process of its own, as it were: with it go its port and every connection.
    server: Option<Runtime>,
}

impl Dapi {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        shared.status.store(200, Ordering::SeqCst);
        let mut dapi = Self {
            shared,
            address: ([127, 0, 0, 1], 0).into(),
            server: None,
        };
        dapi.live().await;
        dapi
    }

    /// Its process is gone: the port refuses connections, and those it had are reset.
    pub fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    /// Comes back at the address it had.
    pub async fn live(&mut self) {
        let server = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = self.address;
        let listener = server.spawn(TcpListener::bind(address)).await.unwrap().unwrap();
        self.address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(Arc::clone(&self.shared));
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        self.server = Some(server);
    }

    /// `http://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The callback URL as DAPI writes it: model id percent-encoded twice.
    pub fn callback_url(&self) -> String {
        format!("{}/v2/poc-batches/gonka-fleet%252Ftiny_qwen3_dense", self.address())
    }

    /// Takes so long to answer from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
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

impl Drop for Dapi {
    fn drop(&mut self) {
        self.die();
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
    let delay_ms = shared.delay_ms.load(Ordering::SeqCst);
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let text = if status == 503 {
        "{\"error\":\"not in PoC generate phase\"}\n"
    } else {
        ""
    };
    (StatusCode::from_u16(status).unwrap(), text.to_owned())
}
