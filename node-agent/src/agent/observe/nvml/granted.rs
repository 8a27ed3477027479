//! Box 2, NVML: what the burn-in wants to know of the GPUs it was granted before it begins.

use std::sync::mpsc;
use std::time::Duration;

use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::errors::error_name;

/// Links a GPU has at most.
const MAX_LINKS: u32 = 18;

/// One GPU.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Granted {
    /// Its name.
    pub uuid: String,
    /// Product, as NVML names it.
    pub product: Option<String>,
    /// Processes that compute or draw on it; none: NVML does not say.
    pub clients: Option<Vec<u32>>,
    /// NVLinks it has.
    pub links: u32,
    /// Of these, those that are down.
    pub links_down: Vec<u32>,
    /// Highest clock of the multiprocessors.
    pub max_megahertz: Option<u32>,
    /// Power limit in force.
    pub power_limit_watts: Option<u32>,
    /// Memory in all.
    pub memory_mebibytes: Option<u64>,
}

/// Looks at these GPUs. A driver that does not answer in time is an error; its thread is left behind.
pub fn granted(uuids: Vec<String>, timeout: Duration) -> Result<Vec<Granted>, String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("granted".to_owned())
        .spawn(move || drop(sender.send(look(&uuids))))
        .map_err(|error| format!("no thread for NVML: {error}"))?;
    receiver
        .recv_timeout(timeout)
        .map_err(|_| "NVML did not answer in time".to_owned())?
        .map_err(|error| format!("NVML says {}", error_name(&error)))
}

fn look(uuids: &[String]) -> Result<Vec<Granted>, NvmlError> {
    let nvml = Nvml::init()?;
    uuids
        .iter()
        .map(|uuid| nvml.device_by_uuid(uuid.as_str()).map(|device| one(uuid, &device)))
        .collect()
}

fn one(uuid: &str, device: &Device<'_>) -> Granted {
    let states: Vec<(u32, bool)> = (0..MAX_LINKS)
        .filter_map(|link| Some((link, device.link_wrapper_for(link).is_active().ok()?)))
        .collect();
    Granted {
        uuid: uuid.to_owned(),
        product: device.name().ok(),
        clients: clients(device),
        links: states.len() as u32,
        links_down: states.iter().filter(|(_, up)| !up).map(|(link, _)| *link).collect(),
        max_megahertz: device.max_clock_info(Clock::SM).ok(),
        power_limit_watts: device.enforced_power_limit().ok().map(|limit| limit / 1000),
        memory_mebibytes: device.memory_info().ok().map(|memory| memory.total >> 20),
    }
}

fn clients(device: &Device<'_>) -> Option<Vec<u32>> {
    let computing = device.running_compute_processes().ok()?;
    // Boards without a display do not draw.
    let drawing = device.running_graphics_processes().unwrap_or_default();
    let mut pids: Vec<u32> = computing.iter().chain(&drawing).map(|process| process.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    Some(pids)
}
