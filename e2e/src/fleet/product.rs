//! The whole product on a cluster that is up, from programs that are built: images, GPUs, charts, network.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::yardstick::Yardstick;
use super::{gpus, install};
use crate::args::Environment;
use crate::harness::Cluster;

const IMAGES: [&str; 3] = ["operator", "node-agent", "gpu-device-plugin"];

/// What must have been built before, and where this run's ledger goes.
#[derive(Debug)]
pub struct Programs {
    images: Vec<PathBuf>,
    simulator: PathBuf,
    slot: PathBuf,
    ledger: PathBuf,
}

impl Programs {
    /// Checks that everything is there, and takes the ledger of an earlier run away: it must not be taken for this one's.
    pub fn find(environment: &Environment, ledger: &str) -> Result<Self> {
        let target = environment.target();
        let programs = Self {
            images: IMAGES
                .iter()
                .map(|name| target.join("images").join(format!("{name}.tar")))
                .collect(),
            simulator: target.join("debug/network-simulator"),
            slot: target.join("debug/slot"),
            ledger: target.join(ledger),
        };
        for file in programs.images.iter().chain([&programs.simulator, &programs.slot]) {
            ensure!(
                file.is_file(),
                "{} is not there; run ci/images.sh first",
                file.display()
            );
        }
        if programs.ledger.exists() {
            std::fs::remove_dir_all(&programs.ledger).context("the last run's ledger cannot be removed")?;
        }
        Ok(programs)
    }

    /// Starts an engine with the cap of the fleet's slots.
    pub async fn yardstick(&self, nonces_per_second: u64) -> Result<Yardstick> {
        let folder = self.ledger.with_extension("yardstick");
        Yardstick::start(&self.slot, &folder, nonces_per_second).await
    }
}

/// Installs everything and starts the network of `scenario`; `say` hears of each step.
pub async fn install(
    cluster: &Cluster,
    programs: &Programs,
    scenario: &Path,
    say: impl Fn(&str),
) -> Result<install::Network> {
    cluster.load_images(&programs.images).await?;
    say("images loaded");
    gpus::install(cluster).await?;
    say("8 simulated H200 on every node");
    install::charts(cluster).await?;
    say("charts installed, operator ready");
    let network = install::network(cluster, &programs.simulator, scenario, &programs.ledger).await?;
    say("the network makes blocks");
    Ok(network)
}
