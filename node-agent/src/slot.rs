//! A slot pod: one replica group's model, the doors through which the network examines it, and PID 1 above both.
//!
//! ```text
//! hold (PID 1) ─┬─ serve    chain door 8080/5000 · operator door 9410 · metrics 9490
//!               ├─ engine 0 unix socket, one process per replica
//!               └─ engine 1
//! ```
//!
//! `hold` only keeps processes; `serve` knows the network; an engine only computes. Killing any of them leaves the
//! others alone: engines outlive `serve`, `serve` outlives engines, and both find their way back by the journal.

pub mod args;
pub mod clock;
pub mod engine;
pub mod hold;
pub mod install;
pub mod rate;
pub mod serve;
pub mod socket;
pub mod status;
pub mod telemetry;

use anyhow::Context as _;
use args::{Args, Command};
use std::future::Future;

/// Runs one subcommand to its end.
pub fn main(args: Args) -> anyhow::Result<()> {
    telemetry::init(args.log_format);
    match args.command {
        Command::Hold(hold) => block_on(1, hold::run(hold, args.log_format))?.context("hold"),
        Command::Serve(serve) => block_on(2, serve::run(serve, args.log_format))?.context("serve"),
        Command::Engine(engine) => block_on(1, engine::run(engine, None))?.context("engine"),
        Command::Install { folder } => install::run(&folder).context("install"),
        Command::Status(status) => block_on(1, status::run(status))?.context("status"),
    }
}

/// Runs to the end; work that is still under way elsewhere is left where it is.
pub(crate) fn block_on<T>(threads: usize, task: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let result = runtime.block_on(task);
    runtime.shutdown_background();
    Ok(result)
}
