//! Composition root of `node-agent run`: sources, the step per sample, publisher, doors, in one JoinSet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use crds::GpuNodeStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admin::{self, Probes};
use super::args::RunArgs;
use super::evaluate::Inputs;
use super::history::History;
use super::metrics::{self, View};
use super::observe::gpu::Library;
use super::observe::nvml::NvmlSource;
use super::observe::replay::Replay;
use super::observe::source::{self, Readings};
use super::observe::{self, Sample};
use super::policy::Policy;
use super::publish::{self, Known, client::Client};
use super::state_file::StateFile;
use super::step::step;

/// The memory is written at most this often: clocks that come and go change it each second.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Runs until told to stop or until a door or the publisher fails.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let (senders, readings) = source::channels();
    let missing = Arc::new(AtomicBool::new(false));

    let page = watch::Sender::new(Bytes::new());
    let metrics_door = bind(args.metrics_addr).await?;
    let probe_door = bind(args.probe_addr).await?;
    tracing::info!(
        metrics = %metrics_door.local_addr()?,
        probes = %probe_door.local_addr()?,
        node = args.node_name,
        "listening"
    );
    let probes = Probes {
        gpus: readings.gpus.clone(),
        stale_seconds: args.policy().stale_seconds,
    };
    let pages = page.subscribe();
    tasks.spawn(async move { Ok(admin::serve_metrics(metrics_door, pages).await?) });
    tasks.spawn(async move { Ok(admin::serve_probes(probe_door, probes).await?) });

    let known = watch::Sender::new(Known::default());
    let desired = watch::Sender::new(None);
    if !args.no_publish {
        let client = Client::new(connect(&args).await?, args.node_name.clone());
        let (desired, known) = (desired.subscribe(), known.clone());
        tasks.spawn(async move {
            publish::run(client, desired, known).await;
            Ok(())
        });
    }
    if let Some(path) = &args.replay {
        source::start_replay(Replay::open(path)?, args.sample_interval, senders)?;
    } else {
        let nvml = NvmlSource::new(args.open_policy(), Arc::clone(&missing), Some(senders.xids.clone()));
        source::start_gpus(nvml, args.sample_interval, args.slow_interval, &senders)?;
        source::start_host(args.places.host_paths(Some(&args.state_dir)), &senders)?;
        let socket = args.places.pod_resources.clone();
        tasks.spawn(async move {
            source::run_pods(socket, senders).await;
            Ok(())
        });
    }
    let agent = Agent::new(&args, readings, missing, known.subscribe());
    let stopped = stop.clone();
    tasks.spawn(async move {
        agent.run(stopped, page, desired).await;
        Ok(())
    });
    let ended = tokio::select! {
        () = terminated() => Ok(()),
        Some(ended) = tasks.join_next() => ended.context("a task of the agent panicked")?.and_then(|()| {
            Err(anyhow::anyhow!("a task of the agent ended by itself"))
        }),
    };
    stop.cancel();
    tasks.shutdown().await;
    ended
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen on {address}; is another agent running here?"))
}

async fn connect(args: &RunArgs) -> anyhow::Result<kube::Client> {
    let config = match &args.kubeconfig {
        None => kube::Config::incluster()
            .context("not in a cluster: give --kubeconfig FILE, or --no-publish to write nothing")?,
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)
                .with_context(|| format!("could not read the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} names no usable cluster", path.display()))?
        }
    };
    kube::Client::try_from(config).context("could not make a client for the API server")
}

/// Ends with SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The loop: newest readings in, status and page out.
struct Agent {
    node_name: String,
    policy: Policy,
    interval: Duration,
    started_at: Time,
    readings: Readings,
    known: watch::Receiver<Known>,
    missing: Arc<AtomicBool>,
    file: StateFile,
    history: History,
    saved: Option<History>,
    saved_at: Option<Instant>,
}

impl Agent {
    fn new(args: &RunArgs, readings: Readings, missing: Arc<AtomicBool>, known: watch::Receiver<Known>) -> Self {
        let file = StateFile::new(&args.state_dir);
        let history = file.load().unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "starting without memory");
            History::default()
        });
        Self {
            node_name: args.node_name.clone(),
            policy: args.policy(),
            interval: args.sample_interval,
            started_at: observe::now(),
            readings,
            known,
            missing,
            file,
            history,
            saved: None,
            saved_at: None,
        }
    }

    async fn run(
        mut self,
        stop: CancellationToken,
        page: watch::Sender<Bytes>,
        desired: watch::Sender<Option<GpuNodeStatus>>,
    ) {
        loop {
            // Without a new reading the loop still turns: age and staleness are decisions too.
            let late = self.interval.mul_f32(1.5).max(Duration::from_millis(100));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = tokio::time::timeout(late, self.readings.gpus.changed()) => {
                    if matches!(changed, Ok(Err(_))) {
                        tracing::error!("the GPU source ended");
                        tokio::time::sleep(late).await;
                    }
                }
            }
            self.turn(&page, &desired);
            self.save().await;
        }
    }

    fn turn(&mut self, page: &watch::Sender<Bytes>, desired: &watch::Sender<Option<GpuNodeStatus>>) {
        let known = self.known.borrow_and_update().clone();
        let sample = self.sample(&known);
        let inputs = Inputs {
            policy: self.policy.clone(),
            overrides: known.overrides,
            generation: known.generation,
        };
        let step = step(&self.history, &sample, &inputs);
        self.history = step.history;
        self.hint(&sample);
        let text = metrics::render(
            &View {
                node_name: &self.node_name,
                sample: &sample,
                stale_seconds: self.policy.stale_seconds,
                history: &self.history,
                evaluation: &step.evaluation,
                outcomes: known.outcomes,
                state_saved: self.saved.is_some(),
            },
            page.borrow().len() + 512,
        );
        page.send_replace(text.into());
        if let Some(status) = step.status {
            desired.send_if_modified(|held| {
                let changed = held.as_ref() != Some(&status);
                *held = Some(status);
                changed
            });
        }
    }

    fn sample(&mut self, known: &Known) -> Sample {
        let mut xids = Vec::new();
        while let Ok(event) = self.readings.xids.try_recv() {
            xids.push(event);
        }
        Sample {
            now: observe::now(),
            started_at: Some(self.started_at.clone()),
            gpus: self.readings.gpus.borrow_and_update().clone(),
            xids,
            host: self.readings.host.borrow().clone(),
            pods: self.readings.pods.borrow().clone(),
            clock: known.clock.clone(),
        }
    }

    /// Tells the source that NVML lists fewer GPUs than there should be.
    fn hint(&self, sample: &Sample) {
        let Some(reading) = sample.gpus.as_deref() else { return };
        if let Library::Present { .. } = reading.library {
            let wanted = self
                .history
                .gpus
                .len()
                .max(self.policy.expected_gpus.unwrap_or(0) as usize);
            self.missing.store(reading.gpus.len() < wanted, Ordering::Relaxed);
        }
    }

    /// Keeps the memory on disk. One that cannot be kept is tried again; the agent goes on.
    async fn save(&mut self) {
        let due = self.saved_at.is_none_or(|at| at.elapsed() >= SAVE_EVERY);
        if !due || self.saved.as_ref() == Some(&self.history) {
            return;
        }
        self.saved_at = Some(Instant::now());
        match self.file.save(&self.history).await {
            Ok(()) => self.saved = Some(self.history.clone()),
            Err(error) => {
                self.saved = None;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the agent's memory was not saved"
                );
            }
        }
    }
}
