//! The charts by Helm, and the simulated network in its own namespace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{control::Control, repository};
use crate::harness::process::Cmd;
use crate::harness::{Cluster, Machine};

/// Name of the simulator's process in the cluster's records.
pub const SIMULATOR: &str = "network-simulator";

/// Installs both charts with the values of `e2e/demo/values.yaml` and waits for the operator.
pub async fn charts(cluster: &Cluster) -> Result<()> {
    let path = |relative: &str| repository().join(relative).display().to_string();
    cluster
        .helm(&["install", "gonka-fleet-crds", &path("charts/gonka-fleet-crds")])
        .await
        .context("the CRD chart was not installed")?;
    operator_chart(cluster).await
}

/// Installs the operator's chart and waits for it.
pub async fn operator_chart(cluster: &Cluster) -> Result<()> {
    let path = |relative: &str| repository().join(relative).display().to_string();
    let pod_network = cluster.options()?.id.network();
    cluster
        .helm(&[
            "install",
            "gonka-fleet",
            &path("charts/gonka-fleet"),
            "--namespace=gonka-system",
            "--create-namespace",
            &format!("--values={}", path("e2e/demo/values.yaml")),
            &format!("--set=admissionPolicies.podCIDRs={{{pod_network}}}"),
            "--wait",
            "--timeout=3m",
        ])
        .await
        .context("the chart was not installed; see `kubectl -n gonka-system describe pods`")?;
    Ok(())
}

/// A simulated network that runs.
#[derive(Debug)]
pub struct Network {
    /// Its control door.
    pub control: Control,
    /// Where it writes its ledger.
    pub ledger: PathBuf,
}

/// Starts the simulator with `scenario` in the cluster's network namespace.
pub async fn network(cluster: &Cluster, program: &Path, scenario: &Path, ledger: &Path) -> Result<Network> {
    std::fs::create_dir_all(ledger).with_context(|| format!("cannot make {}", ledger.display()))?;
    let address = cluster.options()?.id.address(Machine::Network);
    let command = Cmd::new(program)
        .args([
            "--scenario".as_ref(),
            scenario.as_os_str(),
            "--ledger".as_ref(),
            ledger.as_os_str(),
        ])
        .args(["--keep-running", "--listen", &address.to_string()]);
    cluster.start_in(Machine::Network, SIMULATOR, command)?;
    let control = Control::new(&format!("http://{address}:9999"))?;
    control
        .wait_up(Duration::from_secs(20))
        .await
        .context("see the log network-simulator of this cluster")?;
    Ok(Network {
        control,
        ledger: ledger.to_owned(),
    })
}
