//! The operator's process: the program as it is built, on the addresses of the simulated network's machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::harness::process::Cmd;
use e2e::harness::{Cluster, Machine};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Program {
    pub binary: PathBuf,
    pub kubeconfig: PathBuf,
    pub slot_token: PathBuf,
    pub agent_template: PathBuf,
    /// Its folders.
    pub home: PathBuf,
    /// Address of the machine it runs on.
    pub address: String,
}

/// A running operator. Dropped, it is killed.
#[derive(Debug)]
pub struct Operator(Child);

impl Program {
    /// Folder that outlives the process, as a container's restart leaves it.
    fn cache(&self) -> PathBuf {
        self.home.join("cache")
    }

    fn records(&self) -> PathBuf {
        self.home.join("records")
    }

    /// Forgets what earlier processes kept on disk.
    pub fn forget(&self) -> Result<()> {
        for folder in [self.cache(), self.records()] {
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Starts one. A container that is started again keeps its pod's name.
    pub fn start(&self, cluster: &Cluster) -> Result<Operator> {
        self.start_replica(cluster, 0, 15)
    }

    /// Starts one of several at once, with a lease of so many seconds.
    pub fn start_replica(&self, cluster: &Cluster, replica: u16, lease_seconds: u32) -> Result<Operator> {
        let at = |port: u16| format!("{}:{}", self.address, port + replica * 20);
        let path = |path: &Path| path.display().to_string();
        let command = [
            ("KUBECONFIG", path(&self.kubeconfig)),
            ("POD_NAMESPACE", "gonka-system".to_owned()),
            ("POD_NAME", format!("gonka-operator-{replica}")),
            ("CACHE_DIR", path(&self.cache().join(replica.to_string()))),
            ("RECORDS_DIR", path(&self.records())),
            ("SIGNAL_ADDRESS", at(9400)),
            ("PROBE_ADDRESS", at(8081)),
            ("METRICS_ADDRESS", at(9491)),
            ("LEASE_SECONDS", lease_seconds.to_string()),
            ("RESYNC_SECONDS", "1".to_owned()),
            ("CALLBACK_INTERVAL_SECONDS", "1".to_owned()),
            ("SLOT_TOKEN_FILE", path(&self.slot_token)),
            ("AGENT_TEMPLATE_FILE", path(&self.agent_template)),
            ("IMAGE_PULL_POLICY", "Never".to_owned()),
            ("SLOT_PRIORITY_CLASS", "gonka-slot".to_owned()),
            ("LOG_FORMAT", "text".to_owned()),
            ("LOG_FILTER", "info,operator=debug".to_owned()),
        ]
        .into_iter()
        .fold(Cmd::new(&self.binary).clear_env(), |command, (name, value)| {
            command.env(name, value)
        });
        let child = cluster
            .spawn_in(Machine::Network, "operator-crashes", command)
            .context("the operator was not started")?;
        Ok(Operator(child))
    }
}

impl Operator {
    /// SIGKILL, and no process left of it.
    pub async fn kill(mut self) -> Result<()> {
        self.0.kill().await.context("the operator cannot be killed")
    }

    /// Stops it, or lets it go on, as a machine without time for it would.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.0.id().context("the operator has ended")?;
        kill(Pid::from_raw(pid.cast_signed()), signal).context("the operator cannot be signalled")
    }

    /// Waits until it ends by itself; true when it says that it failed.
    pub async fn ends(&mut self, limit: Duration) -> Result<bool> {
        let ended = tokio::time::timeout(limit, self.0.wait()).await;
        let status = ended
            .context("the operator goes on")?
            .context("the operator cannot be waited for")?;
        Ok(!status.success())
    }

    /// An error when it ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.0.try_wait().context("the operator cannot be looked at")? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the operator ended by itself: {status}; see the log operator-crashes"),
        }
    }
}
