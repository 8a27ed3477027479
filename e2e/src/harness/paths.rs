//! Where a cluster keeps its files, and where its programs lie. Pure path arithmetic.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::plan::{ClusterId, Machine};
use crate::args::Environment;

/// The run directory of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Nodes hide these behind file systems of their own, so nothing they must read may lie there.
    const HIDDEN: [&'static str; 5] = ["/var", "/run", "/proc", "/sys", "/dev"];

    pub fn new(state: &Path, id: ClusterId) -> Result<Self> {
        for hidden in Self::HIDDEN {
            ensure!(
                !state.starts_with(hidden),
                "run directory {} lies under {hidden}, which nodes hide; set GONKA_E2E_STATE_DIR to a folder elsewhere",
                state.display()
            );
        }
        Ok(Self(state.join(format!("c{id}"))))
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// What `up` decided; its presence marks a complete start.
    pub fn cluster_file(&self) -> PathBuf {
        self.0.join("cluster.json")
    }

    /// Who is starting the cluster; gone when that is over.
    pub fn starter(&self) -> PathBuf {
        self.0.join("starter.json")
    }

    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.0.join("kubeconfig").join(format!("{user}.yaml"))
    }

    pub fn logs(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    pub fn etcd(&self) -> PathBuf {
        self.0.join("etcd")
    }

    /// Exists once the API server answers and knows the rights of its components.
    pub fn api_ready(&self) -> PathBuf {
        self.0.join("api-ready")
    }

    pub fn machine(&self, machine: Machine) -> PathBuf {
        self.0.join("machines").join(machine.to_string())
    }

    /// Records of processes started beside the machines.
    pub fn processes(&self) -> PathBuf {
        self.0.join("processes")
    }
}

/// The programs of the cluster, as `harness build` leaves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries(PathBuf);

impl Binaries {
    pub fn of(environment: &Environment) -> Self {
        Self(environment.target().join("cluster-bin"))
    }

    /// Holds one folder per program and hash, and `current`.
    pub fn store(&self) -> &Path {
        &self.0
    }

    /// Links to the newest build of each program, under the names they are called by.
    pub fn current(&self) -> PathBuf {
        self.0.join("current")
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.current().join(name)
    }
}

/// Archives that `harness image` writes when no other place is named.
pub fn images(environment: &Environment) -> PathBuf {
    environment.target().join("images")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_directories_that_nodes_hide_are_refused() {
        let id = ClusterId::try_from(1).unwrap();
        assert!(RunDir::new(Path::new("/var/lib/ci/state"), id).is_err());
        assert!(RunDir::new(Path::new("/run/x"), id).is_err());
        assert!(RunDir::new(Path::new("/variety"), id).is_ok());
    }
}
