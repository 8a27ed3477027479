//! A cluster as tests and the command line hold it: bring one up, use it, disturb it, take it down.

mod disturb;
mod dns;
mod down;
mod images;
mod namespace;
mod up;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Deserialize, Serialize};
use tokio::process::Child;

pub use self::disturb::Target;
use super::{
    config::control_plane::Timing,
    machine::Spec,
    network::in_netns,
    paths::{Binaries, RunDir},
    plan::{ClusterId, MAX_NODES, Machine},
    process::{Cmd, ProcessRecord, read_json},
    registry::Registry,
};
use crate::args::Environment;

/// How long a helm or kubectl command may take; both have time limits of their own below it.
const TOOL_LIMIT: Duration = Duration::from_secs(600);

/// What a caller chooses about a new cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub id: ClusterId,
    pub nodes: u8,
    pub timing: Timing,
    /// Cluster DNS; a cluster without it starts a second or two sooner.
    pub dns: bool,
}

impl Options {
    pub fn new(id: ClusterId) -> Self {
        Self {
            id,
            nodes: 3,
            timing: Timing {
                evict_seconds: 300,
                grace_seconds: 20,
            },
            dns: true,
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    kind: Kind,
    kubeconfig: PathBuf,
    bin: Binaries,
    images: PathBuf,
}

#[derive(Debug)]
enum Kind {
    /// Made by this harness.
    Own { options: Options, run: RunDir },
    /// Made by somebody else; only its API is known.
    Existing,
}

impl Cluster {
    /// The cluster the environment names, or a new one.
    pub async fn from_environment() -> Result<Self> {
        let environment = Environment::read();
        if environment.existing_cluster {
            return Self::existing(&environment);
        }
        let options = Options::new(ClusterId::try_from(environment.test_cluster)?);
        Self::up(&environment, options, |_| {}).await
    }

    /// A cluster of somebody else, by its kubeconfig.
    pub fn existing(environment: &Environment) -> Result<Self> {
        let kubeconfig = environment.kubeconfig.clone();
        let kubeconfig = kubeconfig.context("GONKA_E2E_EXISTING_CLUSTER is set but KUBECONFIG is not; set it too")?;
        Ok(Self::with(environment, Kind::Existing, kubeconfig))
    }

    /// A cluster that `up` has brought up before, in this process or another.
    pub fn attach(environment: &Environment, id: ClusterId) -> Result<Self> {
        let run = Self::run_dir(environment, id)?;
        ensure!(
            run.root().exists(),
            "cluster {id} is not up; run `harness up --cluster {id}`"
        );
        let options = read_json(&run.cluster_file())
            .with_context(|| format!("cluster {id} did not come up completely; run `harness down --cluster {id}`"))?;
        let kubeconfig = run.kubeconfig("admin");
        Ok(Self::with(environment, Kind::Own { options, run }, kubeconfig))
    }

    fn with(environment: &Environment, kind: Kind, kubeconfig: PathBuf) -> Self {
        Self {
            kind,
            kubeconfig,
            bin: Binaries::of(environment),
            images: super::paths::images(environment),
        }
    }

    /// Where a cluster lives: where the registry says, else where the environment says it would.
    fn run_dir(environment: &Environment, id: ClusterId) -> Result<RunDir> {
        let known = Registry::open()?
            .run_dir_of(id)
            .and_then(Path::parent)
            .map(Path::to_path_buf);
        RunDir::new(&known.unwrap_or_else(|| environment.state()), id)
    }

    /// Brings a cluster up; `step` hears what has been reached.
    pub async fn up(environment: &Environment, options: Options, step: impl Fn(&str) + Sync) -> Result<Self> {
        ensure!(
            (1..=MAX_NODES).contains(&options.nodes),
            "{} nodes are not in 1..={MAX_NODES}",
            options.nodes
        );
        up::up(environment, options, &step).await?;
        Self::attach(environment, options.id)
    }

    /// Takes a cluster down, whole or half, and everything it left on the machine.
    pub async fn down(environment: &Environment, id: ClusterId) -> Result<()> {
        down::down(id, &Self::run_dir(environment, id)?).await
    }

    /// Brings a cluster up, hands it to `body`, and takes it down again however `body` ends.
    pub async fn with_cluster<F, T>(environment: &Environment, options: Options, body: F) -> Result<T>
    where
        F: AsyncFnOnce(&Self) -> Result<T>,
    {
        let cluster = Self::up(environment, options, |_| {}).await?;
        let ended = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(body(&cluster))).await;
        if !environment.keep {
            Self::down(environment, options.id).await?;
        }
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder of kubectl, helm and the rest.
    pub fn programs(&self) -> PathBuf {
        self.bin.current()
    }

    /// Options and run directory; an error on a cluster of somebody else.
    fn own(&self) -> Result<(&Options, &RunDir)> {
        match &self.kind {
            Kind::Own { options, run } => Ok((options, run)),
            Kind::Existing => bail!("this needs a cluster of the harness, not an existing one"),
        }
    }

    pub fn options(&self) -> Result<&Options> {
        self.own().map(|(options, _)| options)
    }

    pub fn log_dir(&self) -> Result<PathBuf> {
        Ok(self.own()?.1.logs())
    }

    /// A client with an administrator's rights.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// Runs kubectl to its end and returns what it printed.
    pub async fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<String> {
        self.kubectl_command().args(args).text().await
    }

    /// kubectl with this cluster's credentials; further arguments and input are the caller's.
    pub fn kubectl_command(&self) -> Cmd {
        Cmd::new(self.bin.program("kubectl"))
            .env("KUBECONFIG", &self.kubeconfig)
            .timeout(TOOL_LIMIT)
    }

    /// Runs helm to its end and returns what it printed.
    pub async fn helm<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<String> {
        let helm = Cmd::new(self.bin.program("helm"))
            .env("KUBECONFIG", &self.kubeconfig)
            .timeout(TOOL_LIMIT);
        helm.args(args).text().await
    }

    /// Lines for a shell.
    pub fn shell_exports(&self) -> String {
        let (config, programs) = (self.kubeconfig.display(), self.bin.current());
        format!("export KUBECONFIG={config}\nexport PATH={}:$PATH\n", programs.display())
    }

    /// The command line, inside a machine: for a node with its files and processes, else only its network.
    pub fn inside(&self, machine: Machine, command: Cmd) -> Result<Cmd> {
        let (options, run) = self.own()?;
        let Machine::Node(_) = machine else {
            return Ok(in_netns(&options.id.netns(machine), command));
        };
        let pid = Spec::load(run, machine)?.init_pid()?.to_string();
        Ok(command.inside(["nsenter", "--target", &pid, "--all"]))
    }

    /// Starts a child of the caller inside a machine, with a log; it dies when the handle is dropped.
    pub fn spawn_in(&self, machine: Machine, name: &str, command: Cmd) -> Result<Child> {
        let log = self.own()?.1.log(name);
        self.inside(machine, command)?.spawn_logged(&log)
    }

    /// Starts a process inside a machine that lives until it is ended by name or the cluster goes down.
    pub fn start_in(&self, machine: Machine, name: &str, command: Cmd) -> Result<ProcessRecord> {
        let (_, run) = self.own()?;
        ensure!(
            !name.is_empty() && !name.contains(['/', '.']),
            "{name:?} is no name for a process: it becomes a file"
        );
        let file = run.processes().join(format!("{name}.json"));
        if let Ok(old) = ProcessRecord::load(&file) {
            ensure!(
                !old.is_alive(),
                "a process named {name} already runs (pid {}); end it first",
                old.pid
            );
        }
        fs::create_dir_all(run.processes()).context("cannot make the folder of process records")?;
        let record = self.inside(machine, command)?.detach(&run.log(name))?;
        record.save(&file)?;
        Ok(record)
    }

    /// Ends a process that [`Cluster::start_in`] started: politely, then by force.
    pub async fn end(&self, name: &str) -> Result<()> {
        let file = self.own()?.1.processes().join(format!("{name}.json"));
        let record = ProcessRecord::load(&file).with_context(|| format!("no process named {name} was started here"))?;
        down::end_process(&record).await?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }
}

/// A client from a kubeconfig file; nothing of the environment takes part.
pub(super) async fn client(kubeconfig: &Path) -> Result<Client> {
    // A second installation is refused, and the first one is the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let config = config.with_context(|| format!("{} names no usable cluster", kubeconfig.display()))?;
    Client::try_from(config).context("cannot make a client")
}

/// Whether the API server holds itself for ready; one that only listens may still refuse everything.
async fn api_answers(client: &Client) -> bool {
    match http::Request::get("/readyz").body(Vec::new()) {
        Ok(request) => client.request_text(request).await.is_ok_and(|body| body.trim() == "ok"),
        Err(_) => false,
    }
}
