//! `node-agent check` and `observe`: one look, judged or just shown; `check` then burns in what the look found fit (`docs/burn-in.md`).
//! A driver that hangs ends in a verdict, not in a hang.
//!
//! ```text
//! look (NVML, the daemon's rules) ─► granted (clients, links) ─► watch ─┬─► child: one process a GPU, then one for copies between them
//!                                                                       └─► NVML every quarter of a second meanwhile
//!                                             rows ◄─ verdict (pure) ◄─ what they said, limits.yaml
//! ```

mod child;
mod limits;
mod verdict;
mod watch;
mod wire;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crds::conditions::{ConditionStatus, ConditionType};
use crds::gpu_node::{Gpu, GpuHealth};
use serde::Serialize;

use super::args::{CheckArgs, ObserveArgs};
use super::evaluate::Inputs;
use super::observe::gpu::{Depth, GpuReading, GpuSource as _};
use super::observe::nvml::{NvmlSource, OpenPolicy};
use super::observe::{self, HostReading, Sample, pod_resources};
use super::policy::Policy;
use super::step::step;

pub use child::burn;
pub use verdict::{Outcome, Row};
pub use watch::{Burn, BurnState};

/// What `check` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Fitness {
    /// Fit for an exam.
    Passed,
    /// Not fit.
    Failed,
    /// Cannot tell.
    Unknown,
}

impl Fitness {
    /// Exit code of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Unknown => 2,
        }
    }
}

/// The verdict over the GPUs of a container.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// All in all.
    pub verdict: Fitness,
    /// Why, for people.
    pub message: String,
    /// GPUs there must be, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_gpus: Option<u32>,
    /// Driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// The GPUs and what the rules found.
    pub gpus: Vec<Gpu>,
    /// The burn-in, measurement by measurement.
    pub burn: Burn,
}

/// GPUs a container was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Given {
    /// Whatever NVML lists: also what a runtime that injects devices itself leaves in the variable.
    Listed,
    /// None at all.
    Nothing,
    /// These, by UUID or index.
    Named(Vec<String>),
}

impl Given {
    /// From the value of `NVIDIA_VISIBLE_DEVICES`.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "" | "all" | "void" => Self::Listed,
            "none" => Self::Nothing,
            list => Self::Named(list.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }
}

/// Runs `check` and prints its verdict.
pub async fn check(args: &CheckArgs) -> anyhow::Result<Fitness> {
    let ends = Instant::now() + args.deadline;
    // Read before anything runs: a table that is wrong is the caller's mistake.
    let limits = limits::Table::load(args.limits.as_deref())?;
    let reading = read_gpus(args.timeout.min(args.deadline))?;
    let mut report = judge(reading, &Given::parse(&args.devices), args);
    report.put(watch::burn_in(&report, &limits, args, ends).await);
    print(&report, args)?;
    Ok(report.verdict)
}

impl Report {
    /// Adds the burn-in: what it found unfit is, and what it cannot tell nobody can.
    fn put(&mut self, burn: Burn) {
        let worst = |outcome| burn.rows.iter().find(|row| row.outcome == outcome);
        let of = |row: &Row| format!("{} {}: {}", row.gpu, row.check, row.message);
        if self.verdict == Fitness::Passed {
            if let Some(row) = worst(Outcome::Failed) {
                (self.verdict, self.message) = (Fitness::Failed, of(row));
            } else if burn.state == BurnState::Refused {
                (self.verdict, self.message) = (Fitness::Unknown, burn.reason.clone());
            } else if let Some(row) = worst(Outcome::Unknown) {
                (self.verdict, self.message) = (Fitness::Unknown, of(row));
            } else if burn.state == BurnState::NotRun {
                self.message = format!("{}; not burned in: {}", self.message, burn.reason);
            }
        }
        self.burn = burn;
    }
}

fn print(report: &Report, args: &CheckArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, report).context("could not print the verdict")?;
        writeln!(out)?;
    } else {
        writeln!(out, "{:?}: {}", report.verdict, report.message)?;
        for gpu in &report.gpus {
            writeln!(out, "GPU {} {} {}: {}", gpu.index, gpu.uuid, gpu.product, gpu.health)?;
            for finding in &gpu.findings {
                let weight = if finding.blocking { "blocking" } else { "to look at" };
                writeln!(out, "  {} ({weight}): {}", finding.rule, finding.message)?;
            }
        }
        for row in &report.burn.rows {
            writeln!(out, "{} {} {:?}: {}", row.gpu, row.check, row.outcome, row.message)?;
        }
    }
    Ok(())
}

/// The same rules as the daemon's, over one sample of the given GPUs.
fn judge(reading: Option<GpuReading>, given: &Given, args: &CheckArgs) -> Report {
    let mut reading = reading;
    let mut expected = args.expected_gpus;
    if let Given::Named(names) = given {
        expected = expected.or_else(|| u32::try_from(names.len()).ok());
        if let Some(reading) = &mut reading {
            keep_named(reading, names);
        }
    }
    let now = observe::now();
    let sample = Sample {
        started_at: reading
            .is_none()
            .then(|| k8s_openapi::jiff::Timestamp::UNIX_EPOCH.into()),
        gpus: reading.map(Arc::new),
        host: Some(Arc::new(bare_host(now.clone()))),
        ..Sample::empty(now)
    };
    let inputs = Inputs {
        policy: Policy {
            expected_gpus: expected,
            stale_seconds: u32::try_from(args.timeout.as_secs()).unwrap_or(u32::MAX).max(1),
            ..Policy::default()
        },
        ..Inputs::default()
    };
    let decided = step(&super::history::History::default(), &sample, &inputs);
    let status = decided.status.unwrap_or_default();
    let judgement = |wanted: ConditionType| {
        let mut found = decided.evaluation.judgements.iter();
        found
            .find(|(condition, _)| *condition == wanted)
            .map(|(_, judgement)| judgement)
    };
    let parts = [
        judgement(ConditionType::GpusHealthy),
        judgement(ConditionType::DriverConsistent),
    ];
    let of = |status| parts.iter().flatten().find(|part| part.status == status);
    let (verdict, message) = if *given == Given::Nothing {
        (Fitness::Unknown, "this container was given no GPU".to_owned())
    } else if let Some(bad) = of(ConditionStatus::False) {
        (Fitness::Failed, bad.message.clone())
    } else if let Some(unknown) = of(ConditionStatus::Unknown) {
        (Fitness::Unknown, unknown.message.clone())
    } else {
        let degraded = status
            .gpus
            .iter()
            .filter(|gpu| gpu.health == GpuHealth::Degraded)
            .count();
        (
            Fitness::Passed,
            format!(
                "{} GPUs fit for an exam, {degraded} of them to look at",
                status.gpus.len()
            ),
        )
    };
    Report {
        verdict,
        message,
        expected_gpus: expected,
        driver_version: status.driver_version,
        gpus: status.gpus,
        burn: Burn::not_run("the look was not fit"),
    }
}

/// NVML in a privileged container lists every GPU of the machine. Where it lists no more than were given, indices are the
/// container's own and say nothing; a UUID always must match.
fn keep_named(reading: &mut GpuReading, names: &[String]) {
    let own_indices = reading.gpus.len() <= names.len();
    reading.gpus.retain(|gpu| {
        names.iter().any(|name| match &gpu.uuid {
            Some(uuid) if name.starts_with("GPU-") => name == uuid,
            None if name.starts_with("GPU-") => false,
            _ => own_indices || *name == gpu.index.to_string(),
        })
    });
}

fn bare_host(taken_at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> HostReading {
    HostReading {
        taken_at,
        kernel: None,
        boot_id: None,
        cpus: None,
        memory_mebibytes: None,
        nvidia_module_version: None,
        disks: Vec::new(),
    }
}

/// Runs `observe --once` and prints the sample.
pub async fn observe_once(args: &ObserveArgs) -> anyhow::Result<()> {
    let now = observe::now();
    let timeout = args.timeout;
    let gpus = tokio::task::spawn_blocking(move || read_gpus(timeout)).await??;
    let sample = Sample {
        gpus: gpus.map(Arc::new),
        host: Some(Arc::new(args.places.host_paths(None).read())),
        pods: pods(&args.places.pod_resources).await.map(Arc::new),
        ..Sample::empty(now)
    };
    let text = serde_yaml::to_string(&sample).context("could not print the sample")?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

async fn pods(socket: &Path) -> Option<observe::PodReading> {
    if socket.exists() {
        Some(pod_resources::read(socket).await)
    } else {
        None
    }
}

/// One full reading; None when NVML did not return in time. The thread is left behind then: nothing ends a hung driver call.
fn read_gpus(timeout: Duration) -> anyhow::Result<Option<GpuReading>> {
    let (sender, receiver) = mpsc::channel();
    let policy = OpenPolicy {
        retry_every: timeout,
        reopen_every: timeout,
    };
    let mut source = NvmlSource::new(policy, Arc::new(AtomicBool::new(false)), None);
    std::thread::Builder::new()
        .name("gpu-source".to_owned())
        .spawn(move || {
            let reading = source.read(Depth::Full);
            // Nobody listens any more after the timeout.
            drop(sender.send(reading));
        })
        .context("could not start a thread for NVML")?;
    Ok(receiver.recv_timeout(timeout).ok())
}
