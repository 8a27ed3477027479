//! The process that watches the burn-in: starts one child a GPU, reads what it says, looks at the clocks meanwhile and ends it at the deadline.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::limits::Table;
use super::verdict::{Row, peer_rows, rows};
use super::wire::{Part, Said};
use super::{Fitness, Report};
use crate::agent::args::CheckArgs;
use crate::agent::observe::gpu::{Depth, GpuReading, GpuSource as _};
use crate::agent::observe::nvml::granted::{Granted, granted};
use crate::agent::observe::nvml::{NvmlSource, OpenPolicy};

/// Left of the deadline for ending children and for saying what was found.
const LAST: Duration = Duration::from_millis(1500);
/// How often clocks are read.
const EVERY: Duration = Duration::from_millis(250);
/// Of the time, where copies between GPUs come after.
const BEFORE_PEERS: f64 = 0.7;
/// A child should be done this part of its time before it is ended.
const PLANNED: f64 = 0.8;

/// What the burn-in gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Burn {
    /// Whether it ran.
    pub state: BurnState,
    /// Why not, or how.
    pub reason: String,
    /// How long it took.
    pub seconds: f64,
    /// Every measurement.
    pub rows: Vec<Row>,
}

/// Whether it ran.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum BurnState {
    /// It did.
    Run,
    /// Nobody wanted it, or there is nothing to compute with: the look has to do.
    NotRun,
    /// It may not: cannot tell.
    Refused,
}

impl Burn {
    fn new(state: BurnState, reason: impl Into<String>) -> Self {
        Self {
            state,
            reason: reason.into(),
            seconds: 0.0,
            rows: Vec::new(),
        }
    }

    /// None was wanted.
    pub(super) fn not_run(reason: &str) -> Self {
        Self::new(BurnState::NotRun, reason)
    }
}

/// What one child said, and how it ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) said: Vec<(Instant, Said)>,
    pub(super) ended: Ended,
}

/// How a child ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Ended {
    /// By itself, having said all.
    #[default]
    Done,
    /// By itself, before that.
    Early(String),
    /// At the deadline.
    Killed(Duration),
}

impl Story {
    /// The part it was at.
    pub(super) fn last_part(&self) -> Part {
        let begun = |(_, said): &(Instant, Said)| match said {
            Said::Begun { part } => Some(*part),
            _ => None,
        };
        self.said.iter().rev().find_map(begun).unwrap_or(Part::Open)
    }

    /// When a part was at work.
    pub(super) fn during(&self, wanted: Part) -> Option<(Instant, Instant)> {
        let begun = self
            .said
            .iter()
            .position(|(_, said)| matches!(said, Said::Begun { part } if *part == wanted))?;
        Some((self.said[begun].0, self.said.get(begun + 1)?.0))
    }

    fn absent(&self) -> Option<&str> {
        self.said.iter().find_map(|(_, said)| match said {
            Said::Absent { why } => Some(why.as_str()),
            _ => None,
        })
    }

    fn refused(&self) -> Option<&str> {
        self.said.iter().find_map(|(_, said)| match said {
            Said::Refused { why } => Some(why.as_str()),
            _ => None,
        })
    }
}

/// Clocks, power and heat while children computed.
pub(super) type Samples = Vec<(Instant, GpuReading)>;

/// Burns in the GPUs of a look that found them fit.
pub(super) async fn burn_in(look: &Report, limits: &Table, args: &CheckArgs, ends: Instant) -> Burn {
    if args.look_only {
        return Burn::not_run("--look-only");
    }
    if look.verdict != Fitness::Passed {
        return Burn::not_run("the look was not fit");
    }
    let begun = Instant::now();
    let uuids: Vec<String> = look.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    if uuids.is_empty() {
        return Burn::not_run("there is no GPU");
    }
    let left = ends.saturating_duration_since(begun);
    let found = tokio::task::spawn_blocking(move || granted(uuids, left / 2)).await;
    let gpus = match found {
        Ok(Ok(gpus)) => gpus,
        Ok(Err(why)) => return Burn::new(BurnState::Refused, why),
        Err(error) => return Burn::new(BurnState::Refused, error.to_string()),
    };
    if let Some(refused) = gpus.iter().find_map(clients) {
        return Burn::new(BurnState::Refused, refused);
    }
    let mut burn = compute(&gpus, limits, args, ends).await;
    burn.seconds = begun.elapsed().as_secs_f64();
    burn
}

/// Why a GPU that somebody works on is left alone.
fn clients(gpu: &Granted) -> Option<String> {
    let Some(pids) = &gpu.clients else {
        return Some(format!(
            "NVML does not say who uses GPU {}: nothing is burned in beside others",
            gpu.uuid
        ));
    };
    if pids.is_empty() {
        return None;
    }
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    Some(format!(
        "GPU {} has another client (process {}): end it, or check the GPU when it is free",
        gpu.uuid,
        pids.join(", ")
    ))
}

async fn compute(gpus: &[Granted], limits: &Table, args: &CheckArgs, ends: Instant) -> Burn {
    let clocks = Clocks::start();
    let until = ends.checked_sub(LAST).unwrap_or(ends);
    let all = until.saturating_duration_since(Instant::now());
    let several = gpus.len() > 1;
    let first = if several { all.mul_f64(BEFORE_PEERS) } else { all };
    let stories = join_all(
        gpus.iter()
            .map(|gpu| run_child(std::slice::from_ref(&gpu.uuid), first, args)),
    )
    .await;
    let peers = if several && stories.iter().all(|story| story.ended == Ended::Done) {
        let uuids: Vec<String> = gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
        let left = until.saturating_duration_since(Instant::now());
        Some(run_child(&uuids, left, args).await)
    } else {
        None
    };
    let samples = clocks.stop();
    if let Some(why) = stories.iter().find_map(Story::absent) {
        let state = if args.require_burn {
            BurnState::Refused
        } else {
            BurnState::NotRun
        };
        return Burn::new(state, why);
    }
    if let Some(why) = stories.iter().chain(&peers).find_map(Story::refused) {
        return Burn::new(BurnState::Refused, why);
    }
    let mut all = Vec::new();
    for (gpu, story) in gpus.iter().zip(&stories) {
        all.extend(rows(gpu, limits, story, &samples));
    }
    if let Some(story) = &peers {
        all.extend(peer_rows(gpus, limits, story));
    }
    Burn {
        rows: all,
        ..Burn::new(BurnState::Run, "each GPU by a process of its own")
    }
}

/// Starts a child and listens until it ends or has to.
async fn run_child(uuids: &[String], time: Duration, args: &CheckArgs) -> Story {
    let begun = Instant::now();
    let mut story = Story::default();
    let early = |story: &mut Story, why: String| story.ended = Ended::Early(why);
    let mut child = match command(uuids, time, args).spawn() {
        Ok(child) => child,
        Err(error) => {
            early(&mut story, format!("the process could not be started: {error}"));
            return story;
        }
    };
    let listened = tokio::time::timeout(time, async {
        if let Some(out) = child.stdout.take() {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(said) = serde_json::from_str(&line) {
                    story.said.push((Instant::now(), said));
                }
            }
        }
        child.wait().await
    })
    .await;
    let over = |said: &Said| {
        matches!(
            said,
            Said::Done | Said::Absent { .. } | Said::Refused { .. } | Said::Failed { .. }
        )
    };
    match listened {
        Err(_) => {
            // Not waited for longer than that: what hangs in the kernel dies when the driver lets go of it.
            drop(child.start_kill());
            drop(tokio::time::timeout(LAST / 3, child.wait()).await);
            story.ended = Ended::Killed(begun.elapsed());
        }
        Ok(Ok(_)) if story.said.last().is_some_and(|(_, said)| over(said)) => {}
        Ok(Ok(status)) => early(&mut story, format!("the process ended with {status}")),
        Ok(Err(error)) => early(&mut story, format!("the process could not be waited for: {error}")),
    }
    story
}

fn command(uuids: &[String], time: Duration, args: &CheckArgs) -> Command {
    let millis = |time: Duration| format!("{}ms", time.as_millis().max(1));
    let this = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut command = Command::new(this);
    command
        .args(["--log-format", "text", "burn", "--time", &millis(time.mul_f64(PLANNED))])
        .args(["--sustain", &millis(args.sustain)])
        .arg("--lock-dir")
        .arg(&args.lock_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    for uuid in uuids {
        command.args(["--gpu", uuid]);
    }
    command
}

/// Reads NVML in a thread that nobody waits for: a call that hangs costs its samples alone.
struct Clocks {
    samples: Arc<Mutex<Samples>>,
    over: Arc<AtomicBool>,
}

impl Clocks {
    fn start() -> Self {
        let clocks = Self {
            samples: Arc::default(),
            over: Arc::default(),
        };
        let (samples, over) = (Arc::clone(&clocks.samples), Arc::clone(&clocks.over));
        let once = Duration::from_secs(3600);
        let policy = OpenPolicy {
            retry_every: once,
            reopen_every: once,
        };
        let read = move || {
            let mut source = NvmlSource::new(policy, Arc::default(), None);
            while !over.load(Ordering::Relaxed) {
                let reading = source.read(Depth::Fast);
                let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                samples.push((Instant::now(), reading));
                drop(samples);
                std::thread::park_timeout(EVERY);
            }
        };
        // Without a thread there are no samples, and the verdict says so.
        drop(std::thread::Builder::new().name("burn-clocks".to_owned()).spawn(read));
        clocks
    }

    fn stop(self) -> Samples {
        self.over.store(true, Ordering::Relaxed);
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
