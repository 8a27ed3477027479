//! Box 2, how sources run: each on a thread or task of its own, handing over its newest reading (latest wins). A source
//! that hangs keeps nobody waiting; its reading only grows old.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::gpu::{Depth, GpuReading, GpuSource};
use super::host::HostPaths;
use super::pod_resources;
use super::replay::Replay;
use super::{HostReading, PodReading, XidEvent};

/// How often the machine is looked at.
const HOST_EVERY: Duration = Duration::from_secs(10);
/// How often the kubelet is asked.
const PODS_EVERY: Duration = Duration::from_secs(10);
/// XID errors that wait to be picked up. One GPU in trouble reports a few per second.
pub const XID_QUEUE: usize = 256;

/// Newest readings.
#[derive(Debug)]
pub struct Readings {
    /// Of the GPUs.
    pub gpus: watch::Receiver<Option<Arc<GpuReading>>>,
    /// Of the machine.
    pub host: watch::Receiver<Option<Arc<HostReading>>>,
    /// Of the kubelet.
    pub pods: watch::Receiver<Option<Arc<PodReading>>>,
    /// XID errors not yet picked up.
    pub xids: mpsc::Receiver<XidEvent>,
}

/// Where a source puts its readings.
#[derive(Debug)]
pub struct Senders {
    gpus: watch::Sender<Option<Arc<GpuReading>>>,
    host: watch::Sender<Option<Arc<HostReading>>>,
    pods: watch::Sender<Option<Arc<PodReading>>>,
    /// For whoever hears of XID errors.
    pub xids: mpsc::Sender<XidEvent>,
}

/// Both ends.
pub fn channels() -> (Senders, Readings) {
    let (gpus, gpus_seen) = watch::channel(None);
    let (host, host_seen) = watch::channel(None);
    let (pods, pods_seen) = watch::channel(None);
    let (xids, xids_seen) = mpsc::channel(XID_QUEUE);
    let senders = Senders { gpus, host, pods, xids };
    let readings = Readings {
        gpus: gpus_seen,
        host: host_seen,
        pods: pods_seen,
        xids: xids_seen,
    };
    (senders, readings)
}

/// Runs the GPU source until nobody listens: a reading each `interval`, a full one each `full_every`.
pub fn start_gpus(
    mut source: impl GpuSource + 'static,
    interval: Duration,
    full_every: Duration,
    senders: &Senders,
) -> std::io::Result<()> {
    let sender = senders.gpus.clone();
    let mut full_at: Option<Instant> = None;
    spawn("gpu-source", interval, move || {
        let full = full_at.is_none_or(|at| at.elapsed() >= full_every);
        if full {
            full_at = Some(Instant::now());
        }
        let reading = source.read(if full { Depth::Full } else { Depth::Fast });
        sender.send(Some(Arc::new(reading))).is_ok()
    })
}

/// Runs the look at the machine until nobody listens.
pub fn start_host(paths: HostPaths, senders: &Senders) -> std::io::Result<()> {
    let sender = senders.host.clone();
    spawn("host-source", HOST_EVERY, move || {
        sender.send(Some(Arc::new(paths.read()))).is_ok()
    })
}

/// Shows a file's samples in place of all sources until nobody listens.
pub fn start_replay(mut replay: Replay, interval: Duration, senders: Senders) -> std::io::Result<()> {
    spawn("replay-source", interval, move || {
        let sample = replay.next_sample();
        for event in sample.xids {
            if let Err(error) = senders.xids.try_send(event) {
                tracing::warn!(%error, "an XID error was dropped");
            }
        }
        senders.host.send_replace(sample.host);
        senders.pods.send_replace(sample.pods);
        senders.gpus.send(sample.gpus).is_ok()
    })
}

/// Asks the kubelet until nobody listens.
pub async fn run_pods(socket: PathBuf, senders: Senders) {
    let mut ticker = tokio::time::interval(PODS_EVERY);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        let reading = pod_resources::read(&socket).await;
        if senders.pods.send(Some(Arc::new(reading))).is_err() {
            return;
        }
    }
}

/// A thread that repeats `turn` each `interval` until it returns false. It is never joined: it may hang in a driver.
fn spawn(
    name: &'static str,
    interval: Duration,
    mut turn: impl FnMut() -> bool + Send + 'static,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            loop {
                let begun = Instant::now();
                if !turn() {
                    return;
                }
                std::thread::sleep(interval.saturating_sub(begun.elapsed()));
            }
        })
        .map(drop)
}
