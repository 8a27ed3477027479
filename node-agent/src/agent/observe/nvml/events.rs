//! Box 2, NVML events: XID errors as they happen, from a thread that blocks in the library.
//!
//! One event set holds every GPU that lets itself be registered; one that does not is left out and does not cost the others
//! theirs. The thread ends when it is told to or when nobody listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use tokio::sync::mpsc;

use crate::agent::observe::XidEvent;

/// How long one wait blocks: the longest that a stop takes when the driver is well.
const WAIT_MILLIS: u32 = 500;
/// After an error of the wait itself: a lost GPU makes every wait fail at once.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// NVML's number for an XID error it does not know.
const UNKNOWN_XID: u32 = 999;

/// The running thread.
#[derive(Debug)]
pub(super) struct EventThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl EventThread {
    /// Starts it. None when the system has no thread to give: XID errors are then not seen, which is logged.
    pub(super) fn start(nvml: Arc<Nvml>, sender: mpsc::Sender<XidEvent>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("nvml-events".to_owned())
            .spawn(move || listen(&nvml, &stopped, &sender))
            .map(|thread| Self { stop, thread })
            .inspect_err(|error| tracing::warn!(%error, "XID errors are not seen: no thread for them"))
            .ok()
    }

    /// Tells it to end and waits; a thread that hangs in the library is left behind.
    pub(super) fn stop(self, at_most: Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while !self.thread.is_finished() && begun.elapsed() < at_most {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn listen(nvml: &Nvml, stop: &AtomicBool, sender: &mpsc::Sender<XidEvent>) {
    let mut said = false;
    while !stop.load(Ordering::Relaxed) && !sender.is_closed() {
        match register_all(nvml) {
            Some(set) => wait_on(&set, stop, sender),
            None if said => std::thread::sleep(ERROR_PAUSE),
            None => {
                tracing::warn!("XID errors are not seen: no GPU lets itself be registered for events; trying on");
                said = true;
            }
        }
    }
}

fn wait_on(set: &EventSet<'_>, stop: &AtomicBool, sender: &mpsc::Sender<XidEvent>) {
    while !stop.load(Ordering::Relaxed) && !sender.is_closed() {
        match set.wait(WAIT_MILLIS) {
            Ok(event) => {
                let Some(xid) = event.event_data else { continue };
                let event = XidEvent {
                    at: crate::agent::observe::now(),
                    uuid: event.device.uuid().ok(),
                    xid: match xid {
                        XidError::Value(value) => u32::try_from(value).unwrap_or(UNKNOWN_XID),
                        XidError::Unknown => UNKNOWN_XID,
                    },
                };
                tracing::warn!(xid = event.xid, gpu = event.uuid.as_deref(), "XID error");
                if let Err(error) = sender.try_send(event) {
                    tracing::warn!(%error, "an XID error was dropped");
                }
            }
            Err(NvmlError::Timeout) => {}
            Err(error) => {
                tracing::debug!(%error, "waiting for events failed");
                std::thread::sleep(ERROR_PAUSE);
            }
        }
    }
}

/// A failed registration takes the set with it, so the GPU that failed is left out and all others are registered again.
fn register_all(nvml: &Nvml) -> Option<EventSet<'_>> {
    let mut left: Vec<u32> = (0..nvml.device_count().ok()?).collect();
    while !left.is_empty() {
        match register(nvml, &left) {
            Ok(set) => return Some(set),
            Err(failed) => left.retain(|index| *index != failed),
        }
    }
    None
}

fn register<'nvml>(nvml: &'nvml Nvml, indexes: &[u32]) -> Result<EventSet<'nvml>, u32> {
    let first = indexes.first().copied().unwrap_or_default();
    let mut set = nvml.create_event_set().map_err(|_| first)?;
    for index in indexes {
        let device = nvml.device_by_index(*index).map_err(|_| *index)?;
        set = device
            .register_events(EventTypes::CRITICAL_XID_ERROR, set)
            .map_err(|_| *index)?;
    }
    Ok(set)
}
