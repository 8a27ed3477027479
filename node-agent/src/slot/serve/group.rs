//! Apply: one replica group. Has hold keep its process, loads its model, lets it compute what the state wants, and
//! begins anew when it dies: model first, then the round from where the group stood.

use super::state::{Core, Phase, Wanted};
use crate::slot::{clock::now_ms, socket};
use kernels::scheme::Artifact;
use proto::v1::{
    Empty, EngineStart, Proc, Restart, ValidateRequest, engine_client::EngineClient, hold_client::HoldClient,
};
use std::{io, sync::Arc, time::Duration};
use thiserror::Error;
use tonic::{Code, Status, transport::Channel};

/// Between two attempts to bring the group up.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a new process may take to offer its socket.
const APPEAR: Duration = Duration::from_secs(10);
/// Longest load of a model.
const LOAD: Duration = Duration::from_secs(30 * 60);
/// Longest silence of an engine that is asked something small.
const WORD: Duration = Duration::from_secs(5);
/// Longest computation of one chunk.
const CHUNK: Duration = Duration::from_secs(60);
/// Between two looks at an idle engine.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// A stream that brings nothing for so long belongs to a hung engine.
const HUNG: Duration = Duration::from_secs(60);
/// Between SIGTERM and SIGKILL of an engine.
const GRACE_MS: u32 = 2_000;

/// Why a group must begin anew.
#[derive(Debug, Error)]
enum Error {
    #[error("cannot find this binary: is /proc mounted?")]
    OwnPath(#[source] io::Error),
    #[error("hold does not keep the engine")]
    Hold(#[source] socket::Error),
    #[error("hold refuses the engine")]
    Refused(#[source] Status),
    #[error("the engine did not offer its socket")]
    Absent(#[source] socket::Error),
    #[error("the engine does not load the model")]
    Load(#[source] Status),
    #[error("the engine broke off")]
    Broken(#[source] Status),
    #[error("the engine was restarted")]
    Restarted,
    #[error("the engine brought nothing for {}s", HUNG.as_secs())]
    Hung,
}

/// Keeps the group going for ever.
pub async fn run(core: Arc<Core>, group: u32) {
    loop {
        let Err(error) = session(&core, group).await;
        let text = chain(&error);
        tracing::warn!(group, error = text, "engine is down");
        core.update(|state| {
            let entry = &mut state.groups[group as usize];
            entry.phase = Phase::Down;
            entry.round = None;
            entry.error = text;
        });
        if matches!(error, Error::Hung)
            && let Err(error) = restart(&core, group).await
        {
            tracing::warn!(group, error = chain(&error), "cannot restart the hung engine");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// From a process to its end.
async fn session(core: &Core, group: u32) -> Result<std::convert::Infallible, Error> {
    let mut hold = connect_hold(core).await?;
    let kept = hold
        .start(proc(core, group)?)
        .await
        .map_err(Error::Refused)?
        .into_inner();
    let mut engine = connect_engine(core, group).await?;
    core.update(|state| {
        let entry = &mut state.groups[group as usize];
        entry.phase = Phase::Loading;
        (entry.pid, entry.starts, entry.boot_id) = (kept.pid, kept.starts, kept.boot_id);
    });
    let mut request = tonic::Request::new(core.config.prepare.clone());
    request.set_timeout(LOAD);
    let loaded = engine.prepare(request).await.map_err(Error::Load)?.into_inner();
    let pid = engine.status(Empty {}).await.map_err(Error::Broken)?.into_inner().pid;
    core.update(|state| {
        let entry = &mut state.groups[group as usize];
        entry.phase = Phase::Ready;
        entry.weights_digest = loaded.weights_digest;
        entry.error.clear();
        // Hold's watch may be ahead of its answer to us: the engine knows best who it is.
        entry.pid = pid;
    });
    tracing::info!(group, pid, "engine is ready");
    loop {
        match core.read(|state| state.wanted(group)) {
            Wanted::Round(id, start) => compute_round(core, &mut engine, group, id, start).await?,
            Wanted::Chunk(id, request) => compute_chunk(core, &mut engine, group, id, request).await?,
            Wanted::Nothing => wait(core, &mut engine, group, pid).await?,
        }
    }
}

/// Lets the engine compute until the round is over.
async fn compute_round(
    core: &Core,
    engine: &mut EngineClient<Channel>,
    group: u32,
    id: i64,
    start: EngineStart,
) -> Result<(), Error> {
    let left = core.read(|state| state.held_back_ms(id, now_ms()));
    if left > 0 {
        // It has taken the round, and DAPI is told so now.
        core.update(|state| state.groups[group as usize].round = Some(id));
        let over = core.until(|state| !state.is_active(id));
        let waited = Duration::from_millis(left.unsigned_abs());
        if tokio::time::timeout(waited, over).await.is_ok() {
            core.update(|state| state.groups[group as usize].round = None);
            return Ok(());
        }
    }
    let mut changed = core.subscribe();
    let mut batches = tokio::time::timeout(WORD, engine.start(start))
        .await
        .map_err(|_| Error::Hung)?
        .map_err(Error::Broken)?
        .into_inner();
    core.update(|state| state.groups[group as usize].round = Some(id));
    loop {
        tokio::select! {
            batch = tokio::time::timeout(HUNG, batches.message()) => {
                let batch = batch.map_err(|_| Error::Hung)?.map_err(Error::Broken)?;
                let Some(batch) = batch else { break };
                core.update(|state| state.take_batch(id, group, batch, now_ms()));
            }
            _ = changed.changed() => {
                if !core.read(|state| state.is_active(id)) { break }
            }
        }
    }
    drop(batches);
    core.update(|state| state.groups[group as usize].round = None);
    engine.stop(Empty {}).await.map_err(Error::Broken)?;
    Ok(())
}

/// Lets the engine compute a few nonces of a job.
async fn compute_chunk(
    core: &Core,
    engine: &mut EngineClient<Channel>,
    group: u32,
    id: String,
    request: ValidateRequest,
) -> Result<(), Error> {
    core.update(|state| state.jobs.begin(&id, now_ms()));
    let count = request.nonces.len();
    let mut request = tonic::Request::new(request);
    request.set_timeout(CHUNK);
    let computed = tokio::select! {
        computed = engine.validate(request) => computed,
        // A round goes first; the chunk is computed again afterwards.
        () = core.until(|state| state.active().is_some()) => return Ok(()),
    };
    match computed {
        Ok(reply) => {
            let artifacts = reply.into_inner().computed.into_iter().map(|artifact| Artifact {
                nonce: i64::from(artifact.nonce),
                vector: artifact.vector,
            });
            core.update(|state| {
                let artifacts = artifacts.collect();
                state.jobs.finish_chunk(group as usize, &id, count, artifacts, now_ms());
            });
            Ok(())
        }
        Err(status) if matches!(status.code(), Code::InvalidArgument | Code::DeadlineExceeded) => {
            core.update(|state| state.jobs.fail(group as usize, &id, status.message(), now_ms()));
            Ok(())
        }
        // A rehearsal or a round is at it: wait for it.
        Err(status) if matches!(status.code(), Code::Aborted | Code::FailedPrecondition) => {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        }
        Err(status) => Err(Error::Broken(status)),
    }
}

/// Waits for something to do, with an eye on the engine.
async fn wait(core: &Core, engine: &mut EngineClient<Channel>, group: u32, pid: i32) -> Result<(), Error> {
    let changed = core.until(|state| state.wanted(group) != Wanted::Nothing || state.groups[group as usize].pid != pid);
    if tokio::time::timeout(IDLE_LOOK, changed).await.is_err() {
        tokio::time::timeout(WORD, engine.status(Empty {}))
            .await
            .map_err(|_| Error::Hung)?
            .map_err(Error::Broken)?;
    }
    if core.read(|state| state.groups[group as usize].pid) == pid {
        Ok(())
    } else {
        Err(Error::Restarted)
    }
}

async fn connect_hold(core: &Core) -> Result<HoldClient<Channel>, Error> {
    let channel = socket::connect(&socket::hold_path(&core.config.run_dir))
        .await
        .map_err(Error::Hold)?;
    Ok(HoldClient::new(channel))
}

async fn connect_engine(core: &Core, group: u32) -> Result<EngineClient<Channel>, Error> {
    let path = socket::engine_path(&core.config.run_dir, group);
    let deadline = tokio::time::Instant::now() + APPEAR;
    loop {
        match socket::connect(&path).await {
            Ok(channel) => return Ok(EngineClient::new(channel).max_decoding_message_size(16 << 20)),
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(Error::Absent(error)),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Ends a hung engine's process; beginning anew asks for another.
async fn restart(core: &Core, group: u32) -> Result<(), Error> {
    let mut hold = connect_hold(core).await?;
    let name = process_name(group);
    hold.stop(proto::v1::StopProc { name }).await.map_err(Error::Refused)?;
    Ok(())
}

/// Name of a group's process.
pub fn process_name(group: u32) -> String {
    format!("engine-{group}")
}

fn proc(core: &Core, group: u32) -> Result<Proc, Error> {
    let binary = match &core.config.engine_binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe().map_err(Error::OwnPath)?,
    };
    let socket = socket::engine_path(&core.config.run_dir, group);
    Ok(Proc {
        name: process_name(group),
        argv: vec![
            binary.display().to_string(),
            "engine".to_owned(),
            "--socket".to_owned(),
            socket.display().to_string(),
            "--gpu".to_owned(),
            group.to_string(),
        ],
        env: [core.config.log_format.variable()].into(),
        restart: Restart::Always.into(),
        stop_grace_millis: GRACE_MS,
        ..Proc::default()
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
