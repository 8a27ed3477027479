//! `slot status`: what the processes and engines of this pod say, for people inside it (`kubectl exec POD -- …`).

use super::{args::StatusArgs, socket};
use proto::v1::{Empty, engine_client::EngineClient, hold_client::HoldClient};
use serde_json::{Value, json};
use std::{
    io::{self, Write as _},
    path::Path,
};
use thiserror::Error;

/// Why nothing can be told.
#[derive(Debug, Error)]
pub enum Error {
    /// Hold does not answer.
    #[error("hold does not answer")]
    Hold(#[source] socket::Error),
    /// Hold refuses.
    #[error("hold refuses")]
    List(#[source] tonic::Status),
    /// Nobody reads.
    #[error("cannot print")]
    Print(#[source] io::Error),
}

/// Prints one JSON object.
pub async fn run(args: StatusArgs) -> Result<(), Error> {
    let channel = socket::connect(&socket::hold_path(&args.run_dir))
        .await
        .map_err(Error::Hold)?;
    let list = HoldClient::new(channel)
        .list(Empty {})
        .await
        .map_err(Error::List)?
        .into_inner();
    let mut processes = Vec::new();
    for process in list.processes {
        let engine = match process
            .name
            .strip_prefix("engine-")
            .and_then(|group| group.parse().ok())
        {
            Some(group) => engine_status(&args.run_dir, group).await,
            None => Value::Null,
        };
        processes.push(json!({
            "name": process.name, "pid": process.pid, "starts": process.starts, "exit_code": process.exit_code,
            "signal": process.signal, "started_ms": process.started_ms, "ended_ms": process.ended_ms, "engine": engine,
        }));
    }
    let state = read_json(&args.run_dir.join("state.json"));
    let ports = read_json(&args.run_dir.join("ports.json"));
    let text = json!({ "processes": processes, "state": state, "ports": ports });
    writeln!(io::stdout(), "{text:#}").map_err(Error::Print)
}

async fn engine_status(run_dir: &Path, group: u32) -> Value {
    let Ok(channel) = socket::connect(&socket::engine_path(run_dir, group)).await else {
        return json!({ "error": "does not answer" });
    };
    match EngineClient::new(channel).status(Empty {}).await {
        Ok(status) => {
            let status = status.into_inner();
            json!({
                "state": status.state().as_str_name(), "model": status.model, "weights_digest": status.weights_digest,
                "nonces_per_second_milli": status.nonces_per_second_milli, "generated_total": status.generated_total,
            })
        }
        Err(status) => json!({ "error": status.message() }),
    }
}

fn read_json(path: &Path) -> Value {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or(Value::Null)
}
