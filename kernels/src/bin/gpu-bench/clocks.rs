//! Observe: clocks of a GPU and what holds them down, through NVML.

use kernels::cuda::bench::Clocks;
use nvml_wrapper::{Nvml, enum_wrappers::device::Clock, error::NvmlError};

pub(crate) fn read(uuid: &str) -> Clocks {
    ask(uuid).unwrap_or_else(|error| Clocks::NotRead {
        reason: format!("NVML: {error}"),
    })
}

fn ask(uuid: &str) -> Result<Clocks, NvmlError> {
    let nvml = Nvml::init()?;
    let device = nvml.device_by_uuid(uuid)?;
    Ok(Clocks::Read {
        sm: device.clock_info(Clock::SM)?,
        memory: device.clock_info(Clock::Memory)?,
        throttled: device
            .current_throttle_reasons()?
            .iter_names()
            .map(|(name, _)| name.to_lowercase().replace('_', "-"))
            .collect(),
    })
}
