//! The operator's process: flags, logs, run; the last error ends in the termination log.

use std::process::ExitCode;

use clap::Parser as _;
use operator::args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    operator::telemetry::init(args.log_format, &args.log_filter);
    match operator::run::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "operator ends");
            // Shown by `kubectl describe pod`; nothing depends on it.
            let _written = std::fs::write("/dev/termination-log", format!("{error:#}\n"));
            ExitCode::FAILURE
        }
    }
}
