//! The Engine service of one replica group: one piece of work at a time. A round goes before a validation: starting
//! one aborts the other.

use super::{
    compute::{self, Job},
    model::{self, Loaded, Loader},
    pace::Pace,
};
use crate::slot::{clock::now_ms, rate::RateMeter};
use kernels::{
    nonces::Enumeration,
    scheme::{Artifact as Computed, StatTest, compare},
};
use proto::v1::{
    Artifact, ArtifactBatch, Empty, EngineStart, EngineState, EngineStatus, PrepareReply, PrepareRequest,
    ValidateReply, ValidateRequest, engine_server::Engine,
};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

/// Batches in flight between the computing thread and the socket.
const BACKLOG: usize = 8;
/// Artifacts per message when the request names no batch size, and at most.
const BATCH: usize = 32;
const MAX_BATCH: usize = 4_096;
/// Nonces one `Validate` may carry.
const MAX_NONCES: usize = 4_096;

/// The service.
pub struct Service {
    loaded: Mutex<Option<Loaded>>,
    /// One `Prepare` at a time.
    preparing: tokio::sync::Mutex<()>,
    state: Mutex<EngineState>,
    work: Work,
    generated_total: Arc<AtomicU64>,
    meter: Mutex<(RateMeter, u64)>,
    /// Loads onto GPUs, in a binary that drives them.
    cuda: Option<Loader>,
    /// Told when the device failed: the process has to end.
    broken: Arc<Notify>,
}

/// The one piece of work.
#[derive(Debug)]
struct Work {
    slot: Arc<Semaphore>,
    current: Mutex<Arc<AtomicBool>>,
}

impl Work {
    /// Aborts what runs and waits until it is gone.
    async fn replace(&self) -> Result<(OwnedSemaphorePermit, Arc<AtomicBool>), Status> {
        lock(&self.current).store(true, Ordering::Relaxed);
        let permit = Arc::clone(&self.slot)
            .acquire_owned()
            .await
            .map_err(|_| Status::internal("the engine is ending"))?;
        Ok((permit, self.install()))
    }

    /// Begins only when nothing runs.
    fn begin(&self) -> Result<(OwnedSemaphorePermit, Arc<AtomicBool>), Status> {
        let permit = Arc::clone(&self.slot)
            .try_acquire_owned()
            .map_err(|_| Status::failed_precondition("the engine is busy: stop it first"))?;
        Ok((permit, self.install()))
    }

    fn install(&self) -> Arc<AtomicBool> {
        let stop = Arc::new(AtomicBool::new(false));
        *lock(&self.current) = Arc::clone(&stop);
        stop
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// A service without a model. `broken` is told when the device fails under a round: what follows on it would fail too.
    pub fn new(cuda: Option<Loader>, broken: Arc<Notify>) -> Self {
        Self {
            loaded: Mutex::new(None),
            preparing: tokio::sync::Mutex::new(()),
            state: Mutex::new(EngineState::Empty),
            work: Work {
                slot: Arc::new(Semaphore::new(1)),
                current: Mutex::new(Arc::new(AtomicBool::new(false))),
            },
            generated_total: Arc::new(AtomicU64::new(0)),
            meter: Mutex::new((RateMeter::default(), 0)),
            cuda,
            broken,
        }
    }

    fn loaded(&self) -> Result<Loaded, Status> {
        lock(&self.loaded)
            .clone()
            .ok_or_else(|| Status::failed_precondition("no model is loaded: prepare first"))
    }

    /// Says why a round is not computed; a device that failed takes the process with it.
    fn refusal(&self, error: &kernels::scheme::Error) -> Status {
        let text = model::chain(error);
        if is_of_device(error) {
            self.broken.notify_one();
            return Status::internal(text);
        }
        Status::invalid_argument(text)
    }

    fn status_now(&self) -> EngineStatus {
        let loaded = lock(&self.loaded).clone();
        let total = self.generated_total.load(Ordering::Relaxed);
        let busy = self.work.slot.available_permits() == 0;
        let state = match *lock(&self.state) {
            // What runs is known by who holds the permit, what it is by the last `Start` or `Validate`.
            EngineState::Generating | EngineState::Validating if !busy => EngineState::Idle,
            state => state,
        };
        let now = now_ms();
        let mut meter = lock(&self.meter);
        let fresh = total - meter.1;
        meter.1 = total;
        meter.0.record(now, fresh);
        EngineStatus {
            state: state.into(),
            model: loaded.as_ref().map_or_else(String::new, |l| l.request.model.clone()),
            weights_digest: loaded.map_or_else(String::new, |l| l.weights_digest),
            nonces_per_second_milli: meter.0.per_second_milli(now),
            generated_total: total,
            pid: std::process::id() as i32,
        }
    }
}

#[tonic::async_trait]
impl Engine for Service {
    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareReply>, Status> {
        let wanted = request.into_inner();
        let _one_at_a_time = self.preparing.lock().await;
        let present = lock(&self.loaded).clone();
        let loaded = match present {
            Some(loaded) if model::is_same(&loaded.request, &wanted) => Loaded {
                request: wanted,
                ..loaded
            },
            Some(loaded) => {
                return Err(Status::failed_precondition(format!(
                    "{} is loaded with other parameters: restart the engine to change them",
                    loaded.request.model
                )));
            }
            None => {
                *lock(&self.state) = EngineState::Loading;
                let cuda = self.cuda.clone();
                let result = tokio::task::spawn_blocking(move || model::load(wanted, cuda.as_ref())).await;
                let loaded = result
                    .map_err(|error| Status::internal(error.to_string()))
                    .and_then(|r| Ok(r?));
                *lock(&self.state) = if loaded.is_ok() {
                    EngineState::Idle
                } else {
                    EngineState::Failed
                };
                loaded?
            }
        };
        let reply = PrepareReply {
            weights_digest: loaded.weights_digest.clone(),
            hidden_size: loaded.hidden_size,
            max_seq_len: loaded.max_seq_len,
        };
        *lock(&self.loaded) = Some(loaded);
        Ok(Response::new(reply))
    }

    type StartStream = Pin<Box<dyn Stream<Item = Result<ArtifactBatch, Status>> + Send>>;

    async fn start(&self, request: Request<EngineStart>) -> Result<Response<Self::StartStream>, Status> {
        let start = request.into_inner();
        let loaded = self.loaded()?;
        let round = start
            .request
            .ok_or_else(|| Status::invalid_argument("a start needs a request"))?;
        let enumeration = Enumeration::new(
            i64::from(round.node_num),
            i64::from(round.node_count),
            i64::from(start.group),
            i64::from(start.groups),
        )
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let prepared = loaded
            .scheme
            .prepare(&model::round(&round)?)
            .map_err(|error| self.refusal(&error))?;
        let job = Job {
            prepared,
            enumeration,
            first_index: start.first_index,
            batch_size: match round.batch_size as usize {
                0 => BATCH,
                size => size.min(MAX_BATCH),
            },
            pace: Pace::new(loaded.request.max_nonces_per_second),
        };
        let (permit, stop) = self.work.replace().await?;
        *lock(&self.state) = EngineState::Generating;
        let (out, batches) = mpsc::channel(BACKLOG);
        let total = Arc::clone(&self.generated_total);
        let broken = Arc::clone(&self.broken);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = compute::generate(job, &stop, &total, &out)
                && is_of_device(&error)
            {
                broken.notify_one();
            }
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(batches))))
    }

    async fn stop(&self, _: Request<Empty>) -> Result<Response<EngineStatus>, Status> {
        drop(self.work.replace().await?);
        Ok(Response::new(self.status_now()))
    }

    async fn validate(&self, request: Request<ValidateRequest>) -> Result<Response<ValidateReply>, Status> {
        let request = request.into_inner();
        let loaded = self.loaded()?;
        let nonces = nonces_of(&request)?;
        let round = model::round(
            request
                .request
                .as_ref()
                .ok_or_else(|| Status::invalid_argument("a validation needs a request"))?,
        )?;
        let (permit, stop) = self.work.begin()?;
        *lock(&self.state) = EngineState::Validating;
        let computed = tokio::task::spawn_blocking(move || {
            let artifacts = loaded.scheme.prepare(&round).map_or_else(
                |error| Some(Err(error)),
                |mut prepared| compute::compute(prepared.as_mut(), &nonces, &stop),
            );
            drop(permit);
            artifacts
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .ok_or_else(|| Status::aborted("a round or a stop came in between"))?
        .map_err(|error| self.refusal(&error))?;
        Ok(Response::new(judge(&request, computed)))
    }

    async fn status(&self, _: Request<Empty>) -> Result<Response<EngineStatus>, Status> {
        Ok(Response::new(self.status_now()))
    }
}

/// Whether the device failed, and not the request.
const fn is_of_device(error: &kernels::scheme::Error) -> bool {
    matches!(error, kernels::scheme::Error::Device(cause) if !matches!(cause, kernels::cuda::Error::Round { .. } | kernels::cuda::Error::Memory { .. }))
}

/// The nonces a request is about: those listed, else those received.
fn nonces_of(request: &ValidateRequest) -> Result<Vec<i64>, Status> {
    let nonces: Vec<i64> = if request.nonces.is_empty() {
        request
            .received
            .iter()
            .map(|artifact| i64::from(artifact.nonce))
            .collect()
    } else {
        request.nonces.iter().copied().map(i64::from).collect()
    };
    if nonces.len() > MAX_NONCES {
        return Err(Status::invalid_argument(format!(
            "{} nonces at once: send at most {MAX_NONCES}",
            nonces.len()
        )));
    }
    Ok(nonces)
}

fn judge(request: &ValidateRequest, computed: Vec<Artifact>) -> ValidateReply {
    let default = StatTest::default();
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    let test = StatTest {
        dist_threshold: or(request.dist_threshold, default.dist_threshold),
        p_mismatch: or(request.p_mismatch, default.p_mismatch),
        fraud_threshold: or(request.fraud_threshold, default.fraud_threshold),
    };
    let verdict = compare(
        computed.into_iter().map(from_wire).collect(),
        &request.received.iter().cloned().map(from_wire).collect::<Vec<_>>(),
        &test,
    );
    ValidateReply {
        total: verdict.total,
        mismatch_nonces: verdict.mismatch_nonces.iter().map(|nonce| *nonce as i32).collect(),
        p_value: verdict.p_value,
        fraud: verdict.fraud,
        computed: verdict.computed.into_iter().map(compute::to_wire).collect(),
    }
}

fn from_wire(artifact: Artifact) -> Computed {
    Computed {
        nonce: i64::from(artifact.nonce),
        vector: artifact.vector,
    }
}
