//! The command line.

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};
use std::{ffi::OsString, net::IpAddr, path::PathBuf};

/// A Gonka network in one process: chain RPC and REST, the DAPI's three ports, competitors, faults, ledger; or the same
/// network in virtual time, months in seconds.
///
/// Exit status: 0 when every expectation of the scenario holds (replay: when the histories are the same), 1 when one
/// does not or the run failed, 2 when the scenario or the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "network-simulator", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// What to log: error, warn, info, debug, trace, or directives per module.
    #[arg(long, global = true)]
    pub log_level: Option<String>,
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// In real time over sockets. The first line on stdout names the ports as JSON. This is what happens without a
    /// subcommand, too.
    Serve(Serve),
    /// In virtual time: prints a table and writes the history.
    Run(Run),
    /// The same again: says whether the history is the same to the byte and where it first differs.
    Replay(Replay),
}

#[derive(Debug, Arguments)]
pub struct Serve {
    /// Scenario file (YAML).
    #[arg(long)]
    pub scenario: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Directory for ledger.json and the artifacts.
    #[arg(long)]
    pub ledger: PathBuf,
    /// Added to every well-known port.
    #[arg(long, default_value_t = 0, conflicts_with = "ephemeral_ports")]
    pub port_offset: u16,
    /// Take whatever ports are free.
    #[arg(long)]
    pub ephemeral_ports: bool,
    /// Go on making blocks when the scenario is over, until SIGTERM.
    #[arg(long)]
    pub keep_running: bool,
}

#[derive(Debug, Arguments)]
pub struct Run {
    /// Scenario file (YAML).
    pub scenario: PathBuf,
    /// Directory for the history.
    #[arg(long, default_value = "history")]
    pub ledger: PathBuf,
    /// In place of the scenario's.
    #[arg(long)]
    pub seed: Option<u64>,
    /// In place of the scenario's: it is over when this epoch is.
    #[arg(long)]
    pub epochs: Option<u64>,
}

#[derive(Debug, Arguments)]
pub struct Replay {
    /// Directory of a history, or a scenario file that is then run twice.
    pub history: PathBuf,
    /// In place of the history's or the scenario's.
    #[arg(long)]
    pub seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The command line with `serve` put in where it begins with an option of it, as it was before there were others.
pub fn with_command(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    let first = all.get(1).and_then(|first| first.to_str()).unwrap_or_default();
    let is_help = ["-h", "--help", "-V", "--version"].contains(&first);
    if first.starts_with('-') && !is_help {
        all.insert(1, "serve".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(with_command(line.split(' ').map(OsString::from)))
    }

    #[test]
    fn options_alone_serve_as_they_always_did() {
        for line in [
            "network-simulator --scenario a.yaml --ledger b --keep-running --listen 10.0.0.1 --log-level debug",
            "network-simulator serve --scenario a.yaml --ledger b --keep-running --listen 10.0.0.1 --log-level debug",
            "network-simulator --log-level debug --scenario a.yaml --ledger b --keep-running --listen 10.0.0.1",
        ] {
            let args = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(args.log_level.as_deref(), Some("debug"));
            let Command::Serve(serve) = args.command else {
                panic!("{line} does not serve")
            };
            assert!(serve.keep_running && serve.ledger.ends_with("b"));
        }
    }

    #[test]
    fn runs_and_replays_name_what_they_run_first() {
        let run = parse("network-simulator run a.yaml --seed 7 --ledger b")
            .expect("valid")
            .command;
        assert!(matches!(run, Command::Run(Run { seed: Some(7), .. })));
        assert!(parse("network-simulator replay b").is_ok());
        assert!(parse("network-simulator replay b --keep-running").is_err());
        assert!(parse("network-simulator").is_err());
    }
}
