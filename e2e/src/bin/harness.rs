//! `harness`: the cluster's command line. Parses, calls the library, prints. See `e2e/README.md`.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use e2e::{
    args::Environment,
    harness::{
        Cluster, ClusterId, How, Machine, Options, build,
        cluster::Target,
        config::control_plane::Timing,
        doctor,
        image::{self, Files, Image},
        init,
        paths::{self, Binaries},
        process::{Cmd, write_whole},
        registry::Registry,
    },
};
use tokio::time::Instant;

/// A real Kubernetes cluster on this machine: build its programs, bring it up, disturb it, take it down.
#[derive(Debug, Parser)]
struct Harness {
    #[command(flatten)]
    environment: Environment,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build what is missing of the cluster's programs.
    Build {
        /// Also kwok, for fake nodes.
        #[arg(long)]
        with_kwok: bool,
    },
    /// Bring a cluster up.
    Up(Up),
    /// Take a cluster down and leave nothing behind; also after a crash.
    Down(Which),
    /// List the clusters of this machine.
    Status,
    /// Prove the cluster's network: services, names, slot-style switches.
    Doctor(Which),
    /// Switch the power of nodes.
    Node {
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Stop apiserver, controller-manager, scheduler, etcd, kube-proxy, kubelet, containerd, coredns or service-routing.
    Stop {
        target: Target,
        #[command(flatten)]
        whence: Whence,
        /// How; coredns can only be frozen.
        #[arg(long, value_enum)]
        how: Option<How>,
    },
    /// Undo `stop` and wait until it answers.
    Resume {
        target: Target,
        #[command(flatten)]
        whence: Whence,
    },
    /// Write an OCI archive of programs of this machine.
    Image(ImageArgs),
    /// Import archives on every node.
    Load {
        #[command(flatten)]
        which: Which,
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Print exports for a shell.
    Env(Which),
    /// Run a command in a machine: cp, net or a node.
    Exec {
        #[command(flatten)]
        which: Which,
        #[arg(long = "ns", value_name = "MACHINE")]
        machine: Machine,
        /// Leave it running under this name, with a log; `end` or `down` ends it.
        #[arg(long, value_name = "NAME")]
        background: Option<String>,
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// End a command that `exec --background` left running.
    End {
        #[command(flatten)]
        which: Which,
        name: String,
    },
    #[command(hide = true)]
    MachineEnter { spec: PathBuf },
    #[command(hide = true)]
    MachineInit { spec: PathBuf },
}

#[derive(Debug, Clone, Copy, Args)]
struct Which {
    /// Cluster id, 1 to 9; clusters run side by side.
    #[arg(long, default_value = "1")]
    cluster: ClusterId,
}

#[derive(Debug, Clone, Copy, Args)]
struct Whence {
    #[command(flatten)]
    which: Which,
    /// Only on this machine (cp, net, n1, …); else wherever it runs.
    #[arg(long = "node", visible_alias = "ns", value_name = "MACHINE")]
    machine: Option<Machine>,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    which: Which,
    #[arg(long, default_value = "3")]
    nodes: u8,
    /// Seconds until pods leave a node that does not answer.
    #[arg(long, default_value = "300", value_name = "SECONDS")]
    evict: u32,
    /// Seconds of silence after which a node counts as not ready.
    #[arg(long, default_value = "20", value_name = "SECONDS")]
    grace: u32,
    /// Without cluster DNS.
    #[arg(long)]
    no_dns: bool,
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// Power cut: everything on the node ends at once; its disk stays.
    Cut(NodeArgs),
    /// Power back.
    Start(NodeArgs),
    /// Both, one after the other.
    Reboot(NodeArgs),
    /// Pulls the network cable: everything runs on, nothing comes or goes.
    Isolate(NodeArgs),
    /// Plugs it in again.
    Rejoin(NodeArgs),
}

#[derive(Debug, Args)]
struct NodeArgs {
    /// n1, n2, …
    #[arg(value_parser = node_number)]
    node: u8,
    #[command(flatten)]
    which: Which,
    /// Return when the API server has noticed.
    #[arg(long)]
    wait: bool,
}

fn node_number(text: &str) -> Result<u8> {
    match text.parse()? {
        Machine::Node(number) => Ok(number),
        Machine::ControlPlane | Machine::Network => anyhow::bail!("{text} is no node; name n1, n2, …"),
    }
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// NAME becomes gonka.local/NAME:dev; a name with a slash stays.
    name: String,
    /// Program on this machine, and its path in the image (default /FILENAME). Repeatable.
    #[arg(long = "bin", value_name = "FILE[=/PATH]", required = true)]
    programs: Vec<String>,
    /// Any other file. Repeatable.
    #[arg(long = "file", value_name = "FILE=/PATH")]
    files: Vec<String>,
    /// First word of what a container runs. Repeatable for arguments.
    #[arg(long, required = true)]
    entrypoint: Vec<String>,
    /// Environment of containers. Repeatable.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[arg(long, default_value = "65532:65532")]
    user: String,
    /// Also the libraries the programs are linked with, name lookup, and certificate authorities.
    #[arg(long)]
    with_libs: bool,
    /// Take debug information out of the programs first.
    #[arg(long)]
    strip: bool,
    /// Default: TARGET/images/NAME.tar.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // kube reports each refused poll of a starting API server as an error; what matters comes back as one.
    let filter = tracing_subscriber::EnvFilter::new("info,kube_client=off");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match run(Harness::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this cannot be written.
            writeln!(std::io::stderr(), "harness: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

async fn run(Harness { environment, verb }: Harness) -> Result<()> {
    match verb {
        Verb::Build { with_kwok } => run_build(&environment, with_kwok).await,
        Verb::Up(up) => run_up(&environment, &up).await,
        Verb::Down(which) => Cluster::down(&environment, which.cluster).await,
        Verb::Status => status(),
        Verb::Doctor(which) => run_doctor(&environment, which).await,
        Verb::Node { verb } => node(&environment, verb).await,
        Verb::Stop { target, whence, how } => {
            let how = how.unwrap_or(if target == Target::CoreDns {
                How::Freeze
            } else {
                How::Kill
            });
            Cluster::attach(&environment, whence.which.cluster)?
                .stop_component(&target, whence.machine, how)
                .await
        }
        Verb::Resume { target, whence } => {
            Cluster::attach(&environment, whence.which.cluster)?
                .resume_component(&target, whence.machine)
                .await
        }
        Verb::Image(args) => run_image(&environment, args).await,
        Verb::Load { which, archives } => {
            Cluster::attach(&environment, which.cluster)?
                .load_images(&archives)
                .await
        }
        Verb::Env(which) => say(Cluster::attach(&environment, which.cluster)?.shell_exports().trim_end()),
        Verb::Exec {
            which,
            machine,
            background,
            command,
        } => {
            let cluster = Cluster::attach(&environment, which.cluster)?;
            exec(&cluster, machine, background.as_deref(), &command).await
        }
        Verb::End { which, name } => Cluster::attach(&environment, which.cluster)?.end(&name).await,
        Verb::MachineEnter { spec } => init::enter(&spec),
        Verb::MachineInit { spec } => init::run(&spec).await,
    }
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}

fn seconds(took: Duration) -> String {
    format!("{:6.1} s", took.as_secs_f64())
}

async fn run_build(environment: &Environment, with_kwok: bool) -> Result<()> {
    let bin = Binaries::of(environment);
    build::build(&bin, with_kwok, |built| {
        let took = built.took.map_or_else(|| "   there".into(), seconds);
        say(&format!("{took}  {}", built.program)).ok();
    })
    .await?;
    say(&format!("programs are in {}", bin.current().display()))
}

async fn run_up(environment: &Environment, up: &Up) -> Result<()> {
    let timing = Timing {
        evict_seconds: up.evict,
        grace_seconds: up.grace,
    };
    let options = Options {
        nodes: up.nodes,
        timing,
        dns: !up.no_dns,
        ..Options::new(up.which.cluster)
    };
    let started = Instant::now();
    let step = |what: &str| {
        say(&format!("{}  {what}", seconds(started.elapsed()))).ok();
    };
    let cluster = Cluster::up(environment, options, step).await?;
    say(cluster.shell_exports().trim_end())
}

fn status() -> Result<()> {
    let registry = Registry::open()?;
    let mut none = true;
    for (id, run) in registry.clusters() {
        let state = if run.join("cluster.json").exists() {
            "up"
        } else {
            "half up"
        };
        say(&format!("cluster {id}  {state}  {}", run.display()))?;
        none = false;
    }
    if none { say("no cluster") } else { Ok(()) }
}

async fn run_doctor(environment: &Environment, which: Which) -> Result<()> {
    let checks = doctor::examine(&Cluster::attach(environment, which.cluster)?).await?;
    say(doctor::table(&checks).trim_end())?;
    ensure!(
        checks.iter().all(|c| c.outcome.is_ok()),
        "the cluster's network does not do what tests need"
    );
    Ok(())
}

async fn node(environment: &Environment, verb: NodeVerb) -> Result<()> {
    let (args, comes_back) = match &verb {
        NodeVerb::Cut(args) | NodeVerb::Isolate(args) => (args, false),
        NodeVerb::Start(args) | NodeVerb::Reboot(args) | NodeVerb::Rejoin(args) => (args, true),
    };
    let cluster = Cluster::attach(environment, args.which.cluster)?;
    match &verb {
        NodeVerb::Cut(_) => cluster.cut_node(args.node).await?,
        NodeVerb::Start(_) => cluster.start_node(args.node).await?,
        NodeVerb::Reboot(_) => {
            cluster.cut_node(args.node).await?;
            cluster.start_node(args.node).await?;
        }
        NodeVerb::Isolate(_) => cluster.isolate_node(args.node).await?,
        NodeVerb::Rejoin(_) => cluster.rejoin_node(args.node).await?,
    }
    if args.wait {
        cluster.wait_node(args.node, comes_back).await
    } else {
        Ok(())
    }
}

async fn exec(cluster: &Cluster, machine: Machine, name: Option<&str>, command: &[std::ffi::OsString]) -> Result<()> {
    let (program, args) = command.split_first().context("nothing to run")?;
    let command = Cmd::new(program).args(args);
    if let Some(name) = name {
        let record = cluster.start_in(machine, name, command)?;
        return say(&format!("{name}: pid {}, log {}", record.pid, record.log.display()));
    }
    let status = cluster.inside(machine, command)?.foreground().await?;
    std::process::exit(status.code().unwrap_or(1));
}

/// `FILE=/PATH`, or `FILE` alone where a path can be guessed.
fn file_and_path(text: &str) -> Result<(PathBuf, String)> {
    if let Some((file, path)) = text.rsplit_once('=') {
        return Ok((file.into(), path.into()));
    }
    let file = PathBuf::from(text);
    let name = file.file_name().with_context(|| format!("{text} names no file"))?;
    let path = format!("/{}", name.to_string_lossy());
    Ok((file, path))
}

async fn run_image(environment: &Environment, args: ImageArgs) -> Result<()> {
    let (mut base, mut files, mut programs) = (image::base_files(), Files::new(), Vec::new());
    for text in &args.programs {
        let (file, path) = file_and_path(text)?;
        image::add(&mut files, &file, &path, 0o755)?;
        if args.strip {
            image::strip(&mut files, &file, &path).await?;
        }
        programs.push(file);
    }
    for text in &args.files {
        let (file, path) = file_and_path(text)?;
        image::add(&mut files, &file, &path, 0o644)?;
    }
    if args.with_libs {
        image::libs::add_libraries(&mut base, &programs).await?;
    }
    let name = image::full_name(&args.name);
    let image = Image {
        name: name.clone(),
        entrypoint: args.entrypoint,
        env: args.env,
        user: args.user,
        base,
        files,
    };
    let (bytes, digest) = image.archive()?;
    let output = args.output.unwrap_or_else(|| {
        let short = name
            .rsplit('/')
            .next()
            .and_then(|last| last.split(':').next())
            .unwrap_or("image");
        paths::images(environment).join(format!("{short}.tar"))
    });
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    write_whole(&output, &bytes)?;
    say(&format!("{name} {digest} {}", output.display()))
}
