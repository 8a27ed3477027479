//! What the machine could compute: an engine of the same kind with the same cap that nothing of the product touches, on the
//! same cores at the same time. It tells a starved core, which is nobody's fault, from a nonce that was lost.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use proto::v1::engine_client::EngineClient;
use proto::v1::{ArtifactBatch, EngineStart, PrepareRequest, StartRequest};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::until;
use crate::harness::process::Cmd;

/// An engine that computes from its start until it is dropped.
#[derive(Debug)]
pub struct Yardstick {
    computed: Arc<Mutex<Vec<Instant>>>,
    _reader: JoinSet<()>,
    _engine: Child,
}

impl Yardstick {
    /// Starts `slot engine` of `program` with the model and round shape of the tests; its socket goes into `folder`.
    pub async fn start(program: &Path, folder: &Path, nonces_per_second: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let socket = folder.join("engine.sock");
        let engine = Cmd::new(program)
            .args(["engine".as_ref(), "--socket".as_ref(), socket.as_os_str()])
            .spawn_logged(&folder.join("engine.log"))?;
        let channel = until("the yardstick's engine", Duration::from_secs(10), async || {
            Ok(connect(&socket).await.map_err(|error| format!("{error:#}")))
        })
        .await?;
        let batches = begin(channel, nonces_per_second).await?;
        let computed = Arc::new(Mutex::new(Vec::new()));
        let mut reader = JoinSet::new();
        reader.spawn(read(batches, Arc::clone(&computed)));
        Ok(Self {
            computed,
            _reader: reader,
            _engine: engine,
        })
    }

    /// Nonces computed between two instants.
    pub fn computed(&self, from: Instant, to: Instant) -> u64 {
        let computed = self.computed.lock().unwrap_or_else(PoisonError::into_inner);
        computed.iter().filter(|at| (from..=to).contains(at)).count() as u64
    }
}

async fn connect(socket: &Path) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("unix://{}", socket.display()))?
        .connect()
        .await?)
}

async fn begin(channel: Channel, nonces_per_second: u64) -> Result<Streaming<ArtifactBatch>> {
    const MODEL: &str = "gonka-fleet/tiny_qwen3_dense";
    let mut engine = EngineClient::new(channel);
    engine
        .prepare(PrepareRequest {
            scheme: "prefill_v2".into(),
            model: MODEL.into(),
            weights_path: "recipe:tiny_qwen3_dense:public-tiny-v1".into(),
            dtype: "BF16".into(),
            device: "CPU".into(),
            max_nonces_per_second: nonces_per_second,
        })
        .await
        .context("the yardstick's engine does not load its model")?;
    let round = StartRequest {
        height: 1,
        seed: "C0DE".repeat(16),
        public_key: "02feed".into(),
        node_num: 0,
        node_count: 1,
        model: MODEL.into(),
        seq_len: 16,
        k_dim: 12,
        // One at a time, so that each is counted when it is there.
        batch_size: 1,
        scheme: "prefill_v2".into(),
        ..StartRequest::default()
    };
    let start = EngineStart {
        request: Some(round),
        group: 0,
        groups: 1,
        first_index: 0,
    };
    let stream = engine.start(start).await;
    Ok(stream.context("the yardstick's engine does not start")?.into_inner())
}

async fn read(mut batches: Streaming<ArtifactBatch>, computed: Arc<Mutex<Vec<Instant>>>) {
    while let Ok(Some(batch)) = batches.message().await {
        let now = Instant::now();
        let mut computed = computed.lock().unwrap_or_else(PoisonError::into_inner);
        computed.extend(batch.artifacts.iter().map(|_| now));
    }
}
