//! The command line of `gpu-device-plugin`; the only reader of its environment.

use std::{path::PathBuf, str::FromStr};

use clap::{Parser, Subcommand, ValueEnum};

/// Registers simulated GPUs with the kubelet of this node.
#[derive(Debug, Parser)]
#[command(name = "gpu-device-plugin")]
pub struct Args {
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json, global = true)]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Put libnvidia-ml.so.1 into the folder that containers and the node agent mount, and end.
    Install {
        /// The library in this image.
        #[arg(long, default_value = "/opt/simulated-nvml/libnvidia-ml.so.1")]
        library: PathBuf,
        #[arg(long, env = "SIMULATED_NVML_FOLDER", default_value = "/var/lib/simulated-nvml")]
        folder: PathBuf,
    },
    /// Serve the kubelet until stopped.
    Run(Run),
}

#[derive(Debug, Clone, clap::Args)]
pub struct Run {
    /// Name of this node: key in the ConfigMap, and part of every GPU's UUID.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Holds gpus.yaml and the library; the same path on the node and in this container.
    #[arg(long, env = "SIMULATED_NVML_FOLDER", default_value = "/var/lib/simulated-nvml")]
    pub folder: PathBuf,
    /// Where that folder appears in containers that get GPUs.
    #[arg(long, default_value = "/usr/lib/gonka-simulated")]
    pub container_folder: PathBuf,
    /// Where the kubelet's and the plugins' sockets are.
    #[arg(long, default_value = "/var/lib/kubelet/device-plugins")]
    pub plugins_folder: PathBuf,
    #[arg(long, default_value = "nvidia.com/gpu")]
    pub resource: String,
    /// NAMESPACE/NAME with one GPU file per node name. Without it, gpus.yaml is only read.
    #[arg(long, env = "GPUS_CONFIG_MAP")]
    pub config_map: Option<ConfigMapName>,
    /// How often files and sockets are looked at.
    #[arg(long, default_value_t = 250)]
    pub poll_millis: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapName {
    pub namespace: String,
    pub name: String,
}

impl FromStr for ConfigMapName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => Err(format!("\"{text}\" is not NAMESPACE/NAME")),
        }
    }
}
