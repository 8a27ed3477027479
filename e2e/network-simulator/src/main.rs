//! `network-simulator`: reads a scenario, serves the network it describes, judges its expectations at the end.

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use network_simulator::{
    args::{Args, LogFormat},
    driver::{
        ports::Choice,
        run::{self, Options},
    },
    ledger::Ledger,
    scenario::{self, Scenario},
};
use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const INVALID: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = start_logging(&args) {
        eprintln!("--log-level: {error:#}");
        return ExitCode::from(INVALID);
    }
    let scenario = match read_scenario(&args) {
        Ok(scenario) => scenario,
        Err(lines) => {
            for line in lines {
                eprintln!("{}: {line}", args.scenario.display());
            }
            return ExitCode::from(INVALID);
        }
    };
    match serve(&args, scenario).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log_level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| anyhow!(error))
}

fn read_scenario(args: &Args) -> Result<Scenario, Vec<String>> {
    let mut text = String::new();
    let file = std::fs::File::open(&args.scenario).map_err(|error| vec![format!("cannot be opened: {error}")])?;
    file.take(scenario::MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| vec![format!("cannot be read: {error}")])?;
    scenario::parse(&text).map_err(|invalid| invalid.0)
}

async fn serve(args: &Args, scenario: Scenario) -> anyhow::Result<bool> {
    let ports = if args.ephemeral_ports {
        Choice::Ephemeral
    } else {
        Choice::Offset(args.port_offset)
    };
    let options = Options {
        listen: args.listen,
        ports,
        ledger: args.ledger.clone(),
        keep_running: args.keep_running,
    };
    let expect = scenario.expect.clone();
    let threshold = scenario.parameters.validation_vote_threshold_bps;
    let addresses: Vec<(String, String)> = scenario
        .hosts
        .iter()
        .flat_map(scenario::HostSection::members)
        .map(|(name, address, _)| (name, address))
        .collect();
    let running = run::start(scenario, options)
        .await
        .context("the network could not be started")?;
    say(&serde_json::to_string(running.numbers())?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ledger: Ledger = running.run(stop).await.context("the run ended early")?;
    let mut all_hold = true;
    for expectation in &expect {
        for (holds, line) in expectation.judge(&ledger, &addresses, threshold) {
            all_hold &= holds;
            say(&format!("{} {line}", if holds { "ok  " } else { "FAIL" }))?;
        }
    }
    Ok(all_hold)
}

/// Standard output carries the ports and the expectations, and nothing else.
fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
