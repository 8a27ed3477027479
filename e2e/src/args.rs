//! The environment as a value. Nothing else in this crate reads it, so a test's world is what it was handed.

use std::path::{Path, PathBuf};

use clap::Parser;

/// Where things are kept, and which cluster the tests are to use.
#[derive(Debug, Clone, Parser)]
pub struct Environment {
    /// Cargo's output folder: binaries of the cluster, images, run directories.
    #[arg(long, env = "CARGO_TARGET_DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target"), global = true)]
    pub target_dir: PathBuf,
    /// Run directories of clusters; must not lie under /var, /run, /proc or /sys, which nodes hide. Default: TARGET/clusters.
    #[arg(long, env = "GONKA_E2E_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Use the cluster of KUBECONFIG instead of making one.
    #[arg(long, env = "GONKA_E2E_EXISTING_CLUSTER", action = clap::ArgAction::Set, default_value = "0",
          value_parser = clap::builder::BoolishValueParser::new(), hide = true, global = true)]
    pub existing_cluster: bool,
    /// Credentials of the existing cluster.
    #[arg(long, env = "KUBECONFIG", hide = true, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Cluster id for tests that bring up their own.
    #[arg(long, env = "GONKA_E2E_CLUSTER", default_value = "7", hide = true, global = true)]
    pub test_cluster: u8,
    /// Leave clusters and namespaces of tests standing, to look around.
    #[arg(long, env = "GONKA_E2E_KEEP", action = clap::ArgAction::Set, default_value = "0",
          value_parser = clap::builder::BoolishValueParser::new(), hide = true, global = true)]
    pub keep: bool,
}

impl Environment {
    /// The environment of this process, without any command line.
    pub fn read() -> Self {
        Self::parse_from(["e2e"])
    }

    /// Absolute, so that it means the same inside a node.
    pub fn target(&self) -> PathBuf {
        absolute(&self.target_dir)
    }

    pub fn state(&self) -> PathBuf {
        self.state_dir
            .as_deref()
            .map_or_else(|| self.target().join("clusters"), absolute)
    }
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize()
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_path_buf())
}
