//! Every flag and environment variable of `node-agent`; the only reader of the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::observe::host::HostPaths;
use super::observe::nvml::OpenPolicy;
use super::policy::Policy;
use crate::slot::args::EngineArgs;

/// The agent of a GPU node: what its GPUs are, how they are, told to Kubernetes and Prometheus.
#[derive(Clone, Debug, Parser)]
#[command(name = "node-agent", version)]
pub struct Arguments {
    /// Format of the log on standard error.
    #[arg(long, value_enum, default_value = "json", global = true)]
    pub log_format: LogFormat,
    /// What is logged, for example `info` or `node_agent=debug`.
    #[arg(long, env = "LOG_FILTER", default_value = "info", global = true)]
    pub log_filter: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For machines.
    Json,
    /// For people.
    Text,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Watch the GPUs of this machine and keep its GpuNode's status and metrics (the DaemonSet).
    Run(Box<RunArgs>),
    /// Judge the GPUs this container was given, and burn them in where CUDA is. Exit code 0: fit for an exam; 1: not; 2: cannot tell.
    Check(CheckArgs),
    /// The process that `check` burns GPUs in with.
    #[command(hide = true)]
    Burn(BurnArgs),
    /// Print what the agent sees as YAML; the same shape that --replay takes.
    Observe(ObserveArgs),
    /// One replica group's engine on a GPU, for `slot serve --engine-binary`.
    Engine(EngineArgs),
}

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Name of the Node, and of its GpuNode.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Folder of the agent's memory; on the host, so that a restart heals nothing.
    #[arg(long, default_value = "/var/lib/gonka-agent")]
    pub state_dir: PathBuf,
    /// How often the GPUs are read.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub sample_interval: Duration,
    /// How often ECC, row remapping, PCIe and the like are read.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub slow_interval: Duration,
    /// How often a library that lists too few GPUs is opened again.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub reopen_interval: Duration,
    /// Age from which a reading says nothing about now.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub stale_after: Duration,
    /// GPUs the machine has, when it should be held to it.
    #[arg(long, env = "EXPECTED_GPUS")]
    pub expected_gpus: Option<u32>,
    /// Where /metrics is served.
    #[arg(long, default_value = "0.0.0.0:9490")]
    pub metrics_addr: SocketAddr,
    /// Where /healthz and /readyz are served.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub probe_addr: SocketAddr,
    /// API server to talk to; without it, the one of the cluster the agent runs in.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Write nothing to any API server.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub no_publish: bool,
    /// Show the samples of this file instead of hardware.
    #[arg(long)]
    pub replay: Option<PathBuf>,
    #[command(flatten)]
    pub places: Places,
}

/// Flags of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Print the verdict as JSON instead of lines.
    #[arg(long)]
    pub json: bool,
    /// GPUs this container was given: UUIDs or indices with commas, `all`, `none` or `void`.
    #[arg(long, env = "NVIDIA_VISIBLE_DEVICES", default_value = "all")]
    pub devices: String,
    /// How many GPUs there must be; without it, as many as `devices` names.
    #[arg(long, env = "EXPECTED_GPUS")]
    pub expected_gpus: Option<u32>,
    /// How long NVML may take.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Look through NVML and compute nothing.
    #[arg(long, conflicts_with = "require_burn")]
    pub look_only: bool,
    /// Cannot tell where there is no CUDA to compute with; without it a look has to do there.
    #[arg(long)]
    pub require_burn: bool,
    /// When all of it is over, come what may.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub deadline: Duration,
    /// How long weights are multiplied, and then nonces computed, if the deadline allows.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub sustain: Duration,
    /// Thresholds that win over the published ones, number by number (docs/burn-in.md).
    #[arg(long)]
    pub limits: Option<PathBuf>,
    /// Folder of the locks that keep a GPU from two programs of ours; that of the engine's socket.
    #[arg(long, default_value = "/run/gonka")]
    pub lock_dir: PathBuf,
}

/// Flags of `burn`.
#[derive(Args, Clone, Debug)]
pub struct BurnArgs {
    /// GPUs by UUID: one is burned in, copies between several are tried.
    #[arg(long = "gpu", required = true)]
    pub gpus: Vec<String>,
    /// How long all of it should take.
    #[arg(long, value_parser = parse_duration)]
    pub time: Duration,
    /// How long a load is kept up.
    #[arg(long, value_parser = parse_duration)]
    pub sustain: Duration,
    /// Folder of the locks.
    #[arg(long)]
    pub lock_dir: PathBuf,
}

/// Flags of `observe`.
#[derive(Args, Clone, Debug)]
pub struct ObserveArgs {
    /// Look once and end.
    #[arg(long, required = true)]
    pub once: bool,
    /// How long NVML may take.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
    #[command(flatten)]
    pub places: Places,
}

/// Where the machine shows itself.
#[derive(Args, Clone, Debug)]
pub struct Places {
    /// Socket of the kubelet's PodResources API.
    #[arg(long, default_value = "/var/lib/kubelet/pod-resources/kubelet.sock")]
    pub pod_resources: PathBuf,
    /// Path on a disk to watch; may be given several times. Without it, the state folder.
    #[arg(long = "disk")]
    pub disks: Vec<PathBuf>,
    /// Where procfs is mounted.
    #[arg(long, default_value = "/proc")]
    pub proc: PathBuf,
    /// Where sysfs is mounted.
    #[arg(long, default_value = "/sys")]
    pub sys: PathBuf,
}

impl Places {
    /// As the host source wants it; `otherwise` is watched when no disk was named.
    pub fn host_paths(&self, otherwise: Option<&PathBuf>) -> HostPaths {
        let disks = if self.disks.is_empty() {
            otherwise.into_iter().cloned().collect()
        } else {
            self.disks.clone()
        };
        HostPaths {
            proc: self.proc.clone(),
            sys: self.sys.clone(),
            disks,
        }
    }
}

impl RunArgs {
    /// Thresholds that flags may set.
    pub fn policy(&self) -> Policy {
        Policy {
            stale_seconds: u32::try_from(self.stale_after.as_secs()).unwrap_or(u32::MAX).max(1),
            expected_gpus: self.expected_gpus,
            ..Policy::default()
        }
    }

    /// When the library is opened, and again.
    pub fn open_policy(&self) -> OpenPolicy {
        OpenPolicy {
            retry_every: self.reopen_interval.min(Duration::from_secs(10)),
            reopen_every: self.reopen_interval,
        }
    }
}

/// `250ms`, `5s`, `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("{text:?} is not a duration such as 250ms, 5s or 2m")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 250ms, 5s or 2m"))?;
    match number.checked_mul(unit_millis) {
        Some(millis) if (1..=86_400_000).contains(&millis) => Ok(Duration::from_millis(millis)),
        _ => Err(format!("{text:?} is not between 1ms and a day")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("250ms", Some(250))]
    #[case("1s", Some(1_000))]
    #[case("2m", Some(120_000))]
    #[case("0s", None)]
    #[case("5", None)]
    #[case("s", None)]
    #[case("1h", None)]
    #[case("99999999999999999999s", None)]
    #[case("-1s", None)]
    fn durations_are_numbers_with_a_unit(#[case] text: &str, #[case] millis: Option<u64>) {
        assert_eq!(parse_duration(text).ok(), millis.map(Duration::from_millis));
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
