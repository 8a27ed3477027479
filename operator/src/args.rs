//! Every flag and environment variable; the only reader of the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// The gonka-fleet operator: reads the chain, serves FleetSignal, and on the leader keeps slots as their owners want them.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator", version)]
pub struct Args {
    /// Namespace the operator runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "gonka-system")]
    pub namespace: String,
    /// Name of this replica, in leases, logs and frames.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub name: String,
    /// Folder that keeps endpoints, parameters and keys across restarts of this pod.
    #[arg(long, env = "CACHE_DIR", default_value = "/var/cache/gonka")]
    pub cache_dir: PathBuf,
    /// Where FleetSignal is served.
    #[arg(long, env = "SIGNAL_ADDRESS", default_value = "0.0.0.0:9400")]
    pub signal_address: SocketAddr,
    /// Audience tokens of FleetSignal clients must have.
    #[arg(long, env = "SIGNAL_AUDIENCE", default_value = "fleetsignal")]
    pub signal_audience: String,
    /// Service of FleetSignal.
    #[arg(long, env = "SIGNAL_SERVICE", default_value = "gonka-fleet-signal")]
    pub signal_service: String,
    /// Secret with FleetSignal's certificate, in the operator's namespace.
    #[arg(long, env = "SIGNAL_SECRET", default_value = "gonka-fleet-signal-tls")]
    pub signal_secret: String,
    /// Somebody else writes that Secret (tls.crt, tls.key, ca.crt); otherwise the operator is its own authority.
    #[arg(long, env = "SIGNAL_SECRET_PROVIDED")]
    pub signal_secret_provided: bool,
    /// Let FleetSignal's clients in without TLS too: while slot pods from before there was TLS are rolled.
    #[arg(long, env = "SIGNAL_PLAINTEXT")]
    pub signal_plaintext: bool,
    /// Where /healthz and /readyz are served.
    #[arg(long, env = "PROBE_ADDRESS", default_value = "0.0.0.0:8081")]
    pub probe_address: SocketAddr,
    /// Where /metrics and /fleet/v1 are served.
    #[arg(long, env = "METRICS_ADDRESS", default_value = "0.0.0.0:9490")]
    pub metrics_address: SocketAddr,
    /// Name of the Lease of the leader.
    #[arg(long, env = "LEASE_NAME", default_value = "gonka-fleet-operator")]
    pub lease_name: String,
    /// Seconds without renewal after which another replica may lead.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 15)]
    pub lease_seconds: u32,
    /// Image of slot pods whose engine names none.
    #[arg(long, env = "SLOT_IMAGE", default_value = "gonka.local/node-agent:dev")]
    pub slot_image: String,
    /// Pull policy of slot pods.
    #[arg(long, env = "IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// PriorityClass of slot pods.
    #[arg(long, env = "SLOT_PRIORITY_CLASS", default_value = "")]
    pub slot_priority_class: String,
    /// Token for slots' operator doors.
    #[arg(
        long,
        env = "SLOT_TOKEN_FILE",
        default_value = "/var/run/secrets/fleet.gonka.ai/slot/token"
    )]
    pub slot_token_file: PathBuf,
    /// Agent DaemonSet to keep applied; absent when Helm owns it.
    #[arg(long, env = "AGENT_TEMPLATE_FILE")]
    pub agent_template_file: Option<PathBuf>,
    /// Label of nodes with GPUs, `key` or `key=value`.
    #[arg(long, env = "GPU_NODE_SELECTOR", default_value = "nvidia.com/gpu.present=true")]
    pub gpu_node_selector: String,
    /// Names of the ValidatingAdmissionPolicies (and bindings of the same name) that must be there, separated by commas; empty
    /// where the chart installs none.
    #[arg(long, env = "ADMISSION_POLICIES", value_delimiter = ',')]
    pub admission_policies: Vec<String>,
    /// Seconds after which a broken glass is mended: the annotation that lets a protected object be deleted is taken off.
    #[arg(long, env = "BREAK_GLASS_SECONDS", default_value_t = 900)]
    pub break_glass_seconds: u32,
    /// Folder for records.
    #[arg(long, env = "RECORDS_DIR")]
    pub records_dir: Option<PathBuf>,
    /// Seconds between comparisons of external state with the spec.
    #[arg(long, env = "RESYNC_SECONDS", default_value_t = 60)]
    pub resync_seconds: u64,
    /// Seconds between callbacks of a slot to DAPI.
    #[arg(long, env = "CALLBACK_INTERVAL_SECONDS", default_value_t = 5)]
    pub callback_interval_seconds: u32,
    /// Log format: json or text.
    #[arg(long, env = "LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// Log filter, for example `info,operator=debug`.
    #[arg(long, env = "LOG_FILTER", default_value = "info")]
    pub log_filter: String,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}
