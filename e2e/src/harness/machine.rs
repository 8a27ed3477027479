//! One machine of a cluster: what runs on it, how to switch its power, how to ask for a component's state.
//!
//! The caller and the machine's process 1 ([`super::init`]) speak through two folders of small files: `desired/NAME`
//! is written here, `actual/NAME.json` there. Each file has one writer.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    cgroup::Layout,
    network,
    paths::RunDir,
    plan::{ClusterId, Machine},
    process::{Cmd, ProcessRecord, read_json, tail, until, write_json, write_whole},
};

const POWER_LIMIT: Duration = Duration::from_secs(20);
const COMPONENT_LIMIT: Duration = Duration::from_secs(30);

/// One long-running program of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Not started before all of these hold.
    pub after: Vec<Condition>,
    /// Reported as ready once this holds.
    pub ready: Option<Condition>,
}

impl Component {
    pub fn new(name: &str, program: PathBuf, args: Vec<String>) -> Self {
        Self {
            name: name.into(),
            program,
            args,
            after: Vec::new(),
            ready: None,
        }
    }
}

/// Something observable from inside a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Somebody listens at this address.
    Tcp(String),
    /// Somebody listens at this socket.
    Unix(PathBuf),
    File(PathBuf),
}

/// What process 1 of a machine reads when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub cluster: ClusterId,
    pub machine: Machine,
    pub directory: PathBuf,
    pub logs: PathBuf,
    /// First in the PATH of every component.
    pub programs: PathBuf,
    /// Nodes have disks, control groups and a host name of their own; the other machines share the host's.
    pub cgroups: Option<Layout>,
    pub components: Vec<Component>,
}

/// What is wanted of a component.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    #[default]
    Running,
    /// Killed, and not started again.
    Killed,
    /// Stopped where it stands: connections stay open and nothing answers.
    Frozen,
}

/// What a component does now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actual {
    pub state: State,
    pub ready: bool,
    pub starts: u32,
    /// In the machine's own numbering.
    pub pid: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Waiting,
    Running,
    Killed,
    Frozen,
}

/// How to stop something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// SIGKILL, and not started again until resumed: connections break, new ones are refused.
    Kill,
    /// SIGSTOP: connections stay open and nothing answers.
    Freeze,
}

impl Spec {
    pub fn file(&self) -> PathBuf {
        self.directory.join("spec.json")
    }

    pub fn var(&self) -> PathBuf {
        self.directory.join("var")
    }

    pub fn desired(&self, component: &str) -> PathBuf {
        self.directory.join("desired").join(component)
    }

    pub fn actual(&self, component: &str) -> PathBuf {
        self.directory.join("actual").join(format!("{component}.json"))
    }

    pub fn netns(&self) -> String {
        self.cluster.netns(self.machine)
    }

    fn power(&self) -> PathBuf {
        self.directory.join("power.json")
    }

    pub fn load(run: &RunDir, machine: Machine) -> Result<Self> {
        read_json(&run.machine(machine).join("spec.json"))
            .with_context(|| format!("this cluster has no machine {machine}"))
    }

    /// Makes the folders and writes the file.
    pub fn save(&self) -> Result<()> {
        for folder in ["var", "desired", "actual"] {
            let path = self.directory.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        write_json(&self.file(), self)
    }

    pub fn process(&self) -> Option<ProcessRecord> {
        ProcessRecord::load(&self.power()).ok().filter(ProcessRecord::is_alive)
    }

    /// Switches the power on. Components come up by themselves, as their conditions come to hold.
    pub async fn start(&self, harness: &std::path::Path) -> Result<()> {
        ensure!(self.process().is_none(), "machine {} already runs", self.machine);
        let (prefix, name) = (self.cluster.prefix(), self.machine.to_string());
        if let Some(layout) = &self.cgroups {
            layout.remove(&prefix, Some(&name), POWER_LIMIT).await?;
            layout.make(&prefix, &name)?;
            network::reset_as_after_boot(self.cluster, self.machine).await?;
        }
        for component in &self.components {
            fs::remove_file(self.actual(&component.name)).ok();
        }
        let log = self.logs.join(format!("{name}.log"));
        let enter = Cmd::new(harness).args(["machine-enter".as_ref(), self.file().as_os_str()]);
        enter.detach(&log)?.save(&self.power())
    }

    /// Cuts the power: the kernel ends every process of the machine.
    pub async fn cut(&self) -> Result<()> {
        let Ok(process) = ProcessRecord::load(&self.power()) else {
            return Ok(());
        };
        let inner = process.children();
        process.signal(nix::sys::signal::Signal::SIGKILL);
        // The outer process goes first; the machine is off when its process 1 has taken everything along.
        let gone = until(POWER_LIMIT, async || {
            !process.is_alive() && inner.iter().all(|pid| super::process::start_ticks(*pid).is_none())
        });
        ensure!(
            gone.await,
            "machine {} did not go down within {POWER_LIMIT:?} (pid {})",
            self.machine,
            process.pid
        );
        Ok(())
    }

    /// Host's number of the machine's process 1.
    pub fn init_pid(&self) -> Result<i32> {
        let process = self
            .process()
            .with_context(|| format!("machine {} is not running", self.machine))?;
        let init = process.children().first().copied();
        init.with_context(|| format!("machine {} has no process 1 yet", self.machine))
    }

    pub fn look(&self, component: &str) -> Actual {
        read_json(&self.actual(component)).unwrap_or_default()
    }

    pub fn component(&self, name: &str) -> Result<&Component> {
        self.components.iter().find(|c| c.name == name).with_context(|| {
            let names: Vec<&str> = self.components.iter().map(|c| c.name.as_str()).collect();
            format!("machine {} runs no {name}; it runs {}", self.machine, names.join(", "))
        })
    }

    /// Asks for a state and waits until the machine reports it.
    pub async fn set(&self, component: &str, desired: Desired) -> Result<()> {
        self.component(component)?;
        write_whole(&self.desired(component), serde_json::to_string(&desired)?.as_bytes())?;
        let wanted = match desired {
            Desired::Running => State::Running,
            Desired::Killed => State::Killed,
            Desired::Frozen => State::Frozen,
        };
        let reached = until(COMPONENT_LIMIT, async || self.look(component).state == wanted).await;
        ensure!(
            reached,
            "{component} on {} is {:?}, not {wanted:?}",
            self.machine,
            self.look(component).state
        );
        Ok(())
    }

    /// Waits until a component reports ready.
    pub async fn wait_ready(&self, component: &str, limit: Duration) -> Result<()> {
        self.component(component)?;
        let ended = until(limit, async || self.process().is_none() || self.look(component).ready).await;
        if ended && self.process().is_some() {
            return Ok(());
        }
        let log = self.logs.join(format!("{}-{component}.log", self.machine));
        let said = fs::read_to_string(&log).unwrap_or_default();
        let what = if ended {
            "the machine ended"
        } else {
            "it is not ready in time"
        };
        bail!(
            "{component} on {}: {what} ({limit:?}); the end of {}:\n{}",
            self.machine,
            log.display(),
            tail(said.trim(), 1500)
        )
    }
}
