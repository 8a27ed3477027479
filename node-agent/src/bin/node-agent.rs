//! `node-agent`: the DaemonSet (`run`), what GPUs must show before an exam (`check`), the look for people (`observe`), the proof on a GPU (`engine`).

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use node_agent::agent::args::{Arguments, Command};
use node_agent::agent::{check, engine, run, telemetry};

/// Exit code of a command that could not do its work.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::init(arguments.log_format, &arguments.log_filter);
    match execute(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "node-agent failed");
            ExitCode::from(FAILED)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    // One thread serves everything: the sources that may block have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let outcome = match command {
        Command::Run(args) => {
            rustls::crypto::ring::default_provider()
                .install_default()
                .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
            runtime.block_on(run::run(*args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Check(args) => runtime
            .block_on(check::check(&args))
            .map(|fitness| ExitCode::from(fitness.exit_code())),
        Command::Burn(args) => check::burn(&args).map(|()| ExitCode::SUCCESS),
        Command::Engine(args) => runtime.block_on(engine::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Observe(args) => runtime.block_on(check::observe_once(&args)).map(|()| ExitCode::SUCCESS),
    };
    runtime.shutdown_background();
    outcome
}
