//! The command line.

use clap::{Parser, ValueEnum};
use std::{net::IpAddr, path::PathBuf};

/// A Gonka network in one process: chain RPC and REST, the DAPI's three ports, competitors, faults, ledger.
///
/// The first line on stdout names the ports as JSON. Exit status: 0 when every expectation of the scenario holds, 1 when
/// one does not or the run failed, 2 when the scenario or the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "network-simulator", version)]
pub struct Args {
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
    /// What to log: error, warn, info, debug, trace, or directives per module.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}
