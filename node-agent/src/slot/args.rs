//! Every flag and variable of the `slot` binary; the only reader of the environment.

use super::telemetry::LogFormat;
use clap::{Parser, Subcommand};
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Command line of `slot`.
#[derive(Debug, Parser)]
#[command(name = "slot", version, about = "A slot pod: PID 1, ML-node doors, CPU engine")]
pub struct Args {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "json", env = "LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// PID 1: keep serve and the engines alive. What follows `--` goes to serve.
    Hold(HoldArgs),
    /// The doors of the slot.
    Serve(Box<ServeArgs>),
    /// One replica group's engine on the CPU.
    Engine(EngineArgs),
    /// Copy this binary to DIR/slot (temporary name, then rename; mode 0755).
    Install {
        /// Folder, a volume shared with the main container.
        folder: PathBuf,
    },
    /// Print what this pod's processes and engines say, as JSON.
    Status(StatusArgs),
}

/// Flags of `slot hold`.
#[derive(Debug, clap::Args)]
pub struct HoldArgs {
    /// Memory-backed folder for sockets, state and journal.
    #[arg(long, default_value = "/run/gonka")]
    pub run_dir: PathBuf,
    /// Arguments of `slot serve`; `--run-dir` is added.
    #[arg(last = true)]
    pub serve: Vec<String>,
}

/// Flags of `slot engine`.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// Socket to offer.
    #[arg(long)]
    pub socket: PathBuf,
    /// Which of the GPUs that the container sees, from 0.
    #[arg(long, default_value_t = 0)]
    pub gpu: usize,
}

/// Flags of `slot status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The run folder of the pod.
    #[arg(long, default_value = "/run/gonka")]
    pub run_dir: PathBuf,
}

/// Flags of `slot serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Memory-backed folder for sockets, state and journal.
    #[arg(long, default_value = "/run/gonka")]
    pub run_dir: PathBuf,
    /// Folder on disk that the journal is copied to; empty = no copy.
    #[arg(long, default_value = "/var/lib/gonka/journal")]
    pub journal_dir: String,
    /// Below this many free bytes in either journal folder the slot is not ready.
    #[arg(long, default_value_t = 4 << 20)]
    pub journal_min_free_bytes: u64,

    /// Address of every door.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind: IpAddr,
    /// Chain door, management and PoC. 0 = any; see ports.json in the run folder.
    #[arg(long, default_value_t = 8080)]
    pub management_port: u16,
    /// Chain door, inference.
    #[arg(long, default_value_t = 5000)]
    pub inference_port: u16,
    /// Operator door.
    #[arg(long, default_value_t = 9410)]
    pub operator_port: u16,
    /// Metrics.
    #[arg(long, default_value_t = 9490)]
    pub metrics_port: u16,

    /// UID of this pod.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: String,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Namespace of this pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    pub pod_namespace: String,
    /// UID of the ModelDeployment this pod belongs to; empty = any.
    #[arg(long, env = "DEPLOYMENT_UID", default_value = "")]
    pub deployment_uid: String,

    /// Replica groups, one engine process each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub replicas: u32,
    /// Kind of engine; so far the reference behind the native interface.
    #[arg(long, default_value = "native", value_parser = ["native"])]
    pub engine_kind: String,
    /// Binary of the engine; this binary when absent.
    #[arg(long)]
    pub engine_binary: Option<PathBuf>,
    /// CPU, or CUDA with an engine binary that drives it.
    #[arg(long, default_value = "CPU")]
    pub device: String,
    /// Proof scheme.
    #[arg(long, default_value = "prefill_v2")]
    pub scheme: String,
    /// F32 or BF16.
    #[arg(long, default_value = "BF16")]
    pub dtype: String,
    /// Model id the network asks for.
    #[arg(long)]
    pub model: String,
    /// recipe:NAME:TAG, or a recipe file.
    #[arg(long)]
    pub weights: String,
    /// Digest the weights must have ("sha256:<hex>"); empty = any.
    #[arg(long, default_value = "")]
    pub weights_digest: String,
    /// Rate cap of each replica; 0 = none.
    #[arg(long, default_value_t = 0)]
    pub max_nonces_per_second: u64,

    /// Time between two callbacks ("5s", "800ms").
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub callback_interval: Duration,
    /// Starts of exams are spread over so much, at most 2 s: each slot waits a part of it that its number says.
    #[arg(long, default_value = "0s", value_parser = parse_spread)]
    pub start_stagger: Duration,
    /// Length of the generation stage; a round that nobody stops ends after twice of it.
    #[arg(long, default_value = "186s", value_parser = parse_duration)]
    pub stage_time: Duration,

    /// Longest time a pod that is told to end keeps a slot that nobody takes over.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub farewell: Duration,

    /// FleetSignal addresses ("https://gonka-fleet-signal.gonka-system.svc:9400"), repeated or comma-separated.
    #[arg(long, value_delimiter = ',')]
    pub signal: Vec<String>,
    /// Name that every replica of FleetSignal must prove, where it is not the host of its address.
    #[arg(long)]
    pub signal_server_name: Option<String>,
    /// Certificates of the authorities that vouch for that name, PEM, read at every connect.
    #[arg(long)]
    pub signal_ca: Option<PathBuf>,
    /// File of the FleetSignal token, read at every connect.
    #[arg(long)]
    pub signal_token: Option<PathBuf>,
    /// Chain the signal must be about; empty = any.
    #[arg(long, default_value = "")]
    pub chain_id: String,
    /// UID of the GonkaHost whose window is asked for.
    #[arg(long, default_value = "")]
    pub host_uid: String,

    /// JWKS file the operator's tokens are verified with; without one the operator door refuses everybody.
    #[arg(long)]
    pub trust_jwks: Option<PathBuf>,
    /// Audience of those tokens.
    #[arg(long, default_value = "fleet-slot")]
    pub trust_audience: String,
    /// Subject of those tokens.
    #[arg(long, default_value = "system:serviceaccount:gonka-system:gonka-operator")]
    pub trust_subject: String,
}

/// Reads "5s", "1.5s", "800ms", "3m".
/// Longest spread of starts: what is spread is missing from a Sprint of three minutes.
const LONGEST_SPREAD: Duration = Duration::from_secs(2);

fn parse_spread(text: &str) -> Result<Duration, String> {
    if text == "0s" {
        return Ok(Duration::ZERO);
    }
    let spread = parse_duration(text)?;
    if spread > LONGEST_SPREAD {
        return Err(format!("starts are spread over {} s at most", LONGEST_SPREAD.as_secs()));
    }
    Ok(spread)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 800ms, 5s or 3m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits.parse().map_err(|_| wrong())?;
    let scale = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(wrong()),
    };
    let seconds = value * scale;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("800ms"), Ok(Duration::from_millis(800)));
        assert_eq!(parse_duration("3m"), Ok(Duration::from_secs(180)));
        for wrong in ["5", "s", "-1s", "1h", "0s", "nans", ""] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_of_a_pod_parses() {
        let args = Args::parse_from([
            "slot",
            "hold",
            "--run-dir",
            "/run/gonka",
            "--",
            "--model",
            "gonka-fleet/tiny_qwen3_dense",
            "--weights",
            "recipe:tiny_qwen3_dense:public-tiny-v1",
        ]);
        let Command::Hold(hold) = args.command else {
            panic!("hold was asked for");
        };
        assert_eq!(hold.serve.len(), 4);
        let serve = Args::try_parse_from(
            ["slot", "serve", "--pod-uid", "uid"]
                .into_iter()
                .map(str::to_owned)
                .chain(hold.serve),
        );
        assert!(serve.is_ok(), "{serve:?}");
    }
}
