//! Hold's unix socket: the gRPC service in front of the keeper.

use super::decide::{Process, Spec};
use super::keeper::{Handle, Request as Wish};
use futures::{Stream, StreamExt as _, stream};
use proto::v1::{Empty, Proc, ProcList, ProcState, Restart, StopProc, hold_server::Hold};
use std::pin::Pin;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

/// Grace when a request names none.
const DEFAULT_GRACE_MS: u32 = 5_000;

/// The service.
#[derive(Debug)]
pub struct Service {
    keeper: Handle,
}

impl Service {
    /// In front of a keeper.
    pub fn new(keeper: Handle) -> Self {
        Self { keeper }
    }
}

#[tonic::async_trait]
impl Hold for Service {
    async fn start(&self, request: Request<Proc>) -> Result<Response<ProcState>, Status> {
        let spec = parse_spec(request.into_inner())?;
        let state = self.keeper.ask(Wish::Start(spec)).await?;
        Ok(Response::new(state))
    }

    async fn stop(&self, request: Request<StopProc>) -> Result<Response<ProcState>, Status> {
        let state = self.keeper.ask(Wish::Stop(request.into_inner().name)).await?;
        Ok(Response::new(state))
    }

    async fn list(&self, _: Request<Empty>) -> Result<Response<ProcList>, Status> {
        let (processes, _) = self.keeper.snapshot().await?;
        Ok(Response::new(ProcList { processes }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<ProcState, Status>> + Send>>;

    async fn watch(&self, _: Request<Empty>) -> Result<Response<Self::WatchStream>, Status> {
        let (processes, updates) = self.keeper.snapshot().await?;
        let changes = BroadcastStream::new(updates)
            .map(|update| update.map_err(|_| Status::data_loss("the watcher was too slow: watch again")));
        Ok(Response::new(Box::pin(
            stream::iter(processes.into_iter().map(Ok)).chain(changes),
        )))
    }
}

fn parse_spec(proc: Proc) -> Result<Spec, Status> {
    if proc.name.is_empty() || proc.argv.is_empty() {
        return Err(Status::invalid_argument("a process needs a name and a command line"));
    }
    let restart = match proc.restart() {
        Restart::Always => true,
        Restart::Never => false,
        Restart::Unknown => return Err(Status::invalid_argument("restart: say NEVER or ALWAYS")),
    };
    let grace = if proc.stop_grace_millis == 0 {
        DEFAULT_GRACE_MS
    } else {
        proc.stop_grace_millis
    };
    Ok(Spec {
        name: proc.name,
        argv: proc.argv,
        env: proc.env.into_iter().collect(),
        gpu_uuids: proc.gpu_uuids,
        restart,
        stop_grace_ms: i64::from(grace),
    })
}

/// A process as the wire shows it.
pub fn render(process: &Process, boot_id: u64) -> ProcState {
    ProcState {
        name: process.spec.name.clone(),
        pid: process.pid().unwrap_or(0),
        starts: process.starts,
        exit_code: process.last_exit.map_or(0, |exit| exit.code),
        signal: process.last_exit.map_or(0, |exit| exit.signal),
        started_ms: process.started_ms,
        ended_ms: process.ended_ms,
        boot_id,
    }
}
