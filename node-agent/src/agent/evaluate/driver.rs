//! Condition DriverConsistent: library, driver and loaded kernel module are of one version.

use crds::conditions::{ConditionStatus, Reason};

use super::Judgement;
use crate::agent::observe::Sample;
use crate::agent::observe::gpu::{GpuReading, Library};

/// The error with which NVML refuses to work over a kernel module of another version.
pub const MISMATCH: &str = "LIB_RM_VERSION_MISMATCH";

/// Compares the versions that show themselves.
pub fn check(reading: &GpuReading, sample: &Sample) -> Judgement {
    let Library::Present {
        driver_version,
        nvml_version,
        ..
    } = &reading.library
    else {
        return Judgement::new(
            ConditionStatus::Unknown,
            Reason::NvmlFailing,
            "no driver version was read",
        );
    };
    // NVML's own version is the driver's behind the major version of CUDA.
    let library = nvml_version
        .as_deref()
        .and_then(|version| version.split_once('.'))
        .map(|(_, rest)| rest);
    if let Some(library) = library.filter(|library| library != driver_version) {
        return mismatch(&format!(
            "the library is of driver {library}, the driver is {driver_version}"
        ));
    }
    let module = sample
        .host
        .as_ref()
        .and_then(|host| host.nvidia_module_version.as_ref());
    if let Some(module) = module.filter(|module| *module != driver_version) {
        return mismatch(&format!(
            "the kernel module is {module}, the driver is {driver_version}"
        ));
    }
    Judgement::good(format!("driver {driver_version}"))
}

/// The judgement of a mixture.
pub fn mismatch(message: &str) -> Judgement {
    Judgement::new(
        ConditionStatus::False,
        Reason::DriverMismatch,
        format!("{message}: a driver upgrade is half done; drain the machine and load the new module"),
    )
}
