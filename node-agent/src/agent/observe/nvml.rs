//! Box 2, NVML: the only user of `nvml-wrapper`. An absent or failing library is a reading like any other.
//!
//! A library is opened once and read many times; it is opened again (at most once per `reopen_every`) while a GPU does not
//! answer or somebody misses one, because NVML lists what was there when it was initialised.

mod errors;
mod events;
pub mod granted;
mod read;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use tokio::sync::mpsc;

use super::XidEvent;
use super::gpu::{Depth, GpuReading, GpuSample, GpuSource, GpuState, Library, MAX_GPUS};
use errors::{Counts, error_name};
use events::EventThread;
use read::Slot;

/// How long a closing session waits for its event thread: without it the library would not really be closed.
const EVENT_THREAD_END: Duration = Duration::from_secs(2);

/// When the library is opened, and again.
#[derive(Clone, Copy, Debug)]
pub struct OpenPolicy {
    /// After an attempt that found no library.
    pub retry_every: Duration,
    /// While a GPU does not answer.
    pub reopen_every: Duration,
}

/// GPUs through NVML.
#[derive(Debug)]
pub struct NvmlSource {
    policy: OpenPolicy,
    /// Set by whoever knows of a GPU that is not in the readings.
    missing: Arc<AtomicBool>,
    events: Option<mpsc::Sender<XidEvent>>,
    session: Result<Session, Library>,
    opened: Option<Instant>,
    counts: Counts,
}

/// One initialised library.
#[derive(Debug)]
struct Session {
    nvml: Arc<Nvml>,
    library: Library,
    slots: Vec<Slot>,
    events: Option<EventThread>,
}

impl NvmlSource {
    /// A source that opens the library with its first reading. XID errors go to `events` when it is given.
    pub fn new(policy: OpenPolicy, missing: Arc<AtomicBool>, events: Option<mpsc::Sender<XidEvent>>) -> Self {
        Self {
            policy,
            missing,
            events,
            session: Err(Library::Absent {
                error: "not opened yet".to_owned(),
            }),
            opened: None,
            counts: Counts::default(),
        }
    }

    fn open_if_due(&mut self) -> bool {
        let since = self.opened.map(|at| at.elapsed());
        let due = match (&self.session, since) {
            (_, None) => true,
            (Err(_), Some(since)) => since >= self.policy.retry_every,
            (Ok(session), Some(since)) => {
                since >= self.policy.reopen_every
                    && (self.missing.load(Ordering::Relaxed) || session.slots.iter().any(Slot::is_out))
            }
        };
        if !due {
            return false;
        }
        if let Ok(session) = std::mem::replace(
            &mut self.session,
            Err(Library::Absent {
                error: "closed".to_owned(),
            }),
        ) {
            session.close();
        }
        self.session = Session::open(self.events.clone(), &mut self.counts);
        self.opened = Some(Instant::now());
        true
    }
}

impl GpuSource for NvmlSource {
    fn read(&mut self, depth: Depth) -> GpuReading {
        let begun = Instant::now();
        let fresh = self.open_if_due();
        let depth = if fresh { Depth::Full } else { depth };
        let (library, gpus) = match &mut self.session {
            Err(library) => (library.clone(), Vec::new()),
            Ok(session) => (session.library.clone(), session.read(depth, &mut self.counts)),
        };
        GpuReading {
            taken_at: super::now(),
            duration_micros: begun.elapsed().as_micros() as u64,
            library,
            gpus,
            call_errors: self.counts.list(),
        }
    }
}

impl Session {
    fn open(events: Option<mpsc::Sender<XidEvent>>, counts: &mut Counts) -> Result<Self, Library> {
        let nvml = Arc::new(Nvml::init().map_err(|error| absent(&error, counts))?);
        let count = nvml
            .device_count()
            .map_err(|error| failing("nvmlDeviceGetCount", &error, counts))?;
        let driver_version = nvml
            .sys_driver_version()
            .map_err(|error| failing("nvmlSystemGetDriverVersion", &error, counts))?;
        let library = Library::Present {
            driver_version,
            nvml_version: nvml.sys_nvml_version().ok(),
            cuda_version: nvml
                .sys_cuda_driver_version()
                .ok()
                .map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        };
        let slots = (0..count.min(MAX_GPUS as u32)).map(Slot::new).collect();
        let events = events.and_then(|sender| EventThread::start(Arc::clone(&nvml), sender));
        Ok(Self {
            nvml,
            library,
            slots,
            events,
        })
    }

    fn read(&mut self, depth: Depth, counts: &mut Counts) -> Vec<GpuSample> {
        let nvml = &self.nvml;
        self.slots
            .iter_mut()
            .map(|slot| slot.read(nvml, depth, counts))
            .collect()
    }

    fn close(self) {
        if let Some(events) = self.events {
            events.stop(EVENT_THREAD_END);
        }
    }
}

/// No library, or no driver behind it: an ordinary state of a machine without GPUs or in the middle of an upgrade.
fn absent(error: &NvmlError, counts: &mut Counts) -> Library {
    match error {
        NvmlError::LibloadingError(source) => Library::Absent {
            error: source.to_string(),
        },
        NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound => Library::Absent {
            error: error_name(error).to_owned(),
        },
        other => failing("nvmlInit", other, counts),
    }
}

fn failing(call: &'static str, error: &NvmlError, counts: &mut Counts) -> Library {
    counts.add(call, error_name(error));
    Library::Failing {
        call: call.to_owned(),
        error: error_name(error).to_owned(),
    }
}

impl Slot {
    fn is_out(&self) -> bool {
        self.state() != GpuState::Ok
    }
}
