//! `kubectl gonka`: the fleet's Sprint and its records, for people. Observe here, decide nothing, print.

mod args;
mod clock;
mod fetch;
mod maintain;
mod plan;
mod run;
mod runs;
mod sprint;
mod table;
mod window;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    // Ignored when another part of the process was first; there is none.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match run::run(args, &mut std::io::stdout().lock()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _shown = writeln!(std::io::stderr().lock(), "kubectl gonka: {error:#}");
            ExitCode::FAILURE
        }
    }
}
