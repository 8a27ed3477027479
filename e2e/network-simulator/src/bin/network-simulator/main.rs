//! `network-simulator`: reads a scenario and serves the network it describes in real time, runs it in virtual time, or
//! runs it again and compares.

mod run;
mod serve;

use anyhow::anyhow;
use clap::Parser as _;
use network_simulator::{
    args::{Args, Command, LogFormat, with_command},
    scenario::{
        self, HostSection, Scenario,
        expect::{Expectation, Findings},
    },
};
use std::{
    fmt,
    io::{Read as _, Write as _},
    path::Path,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

const INVALID: u8 = 2;

/// Why there was no run: what is wrong with what was given, one line each.
#[derive(Debug)]
struct Wrong(Vec<String>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Wrong {}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse_from(with_command(std::env::args_os()));
    if let Err(error) = start_logging(&args) {
        eprintln!("--log-level: {error:#}");
        return ExitCode::from(INVALID);
    }
    let done = match &args.command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Run(args) => run::run(args),
        Command::Replay(args) => run::replay(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(if error.is::<Wrong>() { INVALID } else { 1 })
        }
    }
}

fn start_logging(args: &Args) -> anyhow::Result<()> {
    // What a month in virtual time has to say about every exam is in its history.
    let usual = match args.command {
        Command::Serve(_) => "info",
        Command::Run(_) | Command::Replay(_) => "warn",
    };
    let filter = EnvFilter::try_new(args.log_level.as_deref().unwrap_or(usual))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| anyhow!(error))
}

fn read_scenario(path: &Path) -> Result<(Scenario, String), Wrong> {
    let named = |line: String| Wrong(vec![format!("{}: {line}", path.display())]);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| named(format!("cannot be opened: {error}")))?;
    file.take(scenario::MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| named(format!("cannot be read: {error}")))?;
    let scenario = parse(&text, path)?;
    Ok((scenario, text))
}

fn parse(text: &str, path: &Path) -> Result<Scenario, Wrong> {
    let named = |line: String| format!("{}: {line}", path.display());
    scenario::parse(text).map_err(|invalid| Wrong(invalid.0.into_iter().map(named).collect()))
}

/// Ends it here when a driver cannot do what a scenario asks for.
fn refuse(problems: Vec<String>, path: &Path) -> Result<(), Wrong> {
    if problems.is_empty() {
        return Ok(());
    }
    let named = problems.into_iter().map(|line| format!("{}: {line}", path.display()));
    Err(Wrong(named.collect()))
}

/// Says which expectations hold, and whether all do.
fn judge(scenario: &Scenario, findings: &Findings) -> anyhow::Result<bool> {
    let addresses: Vec<(String, String)> = scenario
        .hosts
        .iter()
        .flat_map(HostSection::members)
        .map(|(name, address, _)| (name, address))
        .collect();
    let threshold = scenario.parameters.validation_vote_threshold_bps;
    let judge = |expectation: &Expectation| expectation.judge(findings, &addresses, threshold);
    let mut all_hold = true;
    for (holds, line) in scenario.expect.iter().flat_map(judge) {
        all_hold &= holds;
        say(&format!("{} {line}", if holds { "ok  " } else { "FAIL" }))?;
    }
    Ok(all_hold)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
