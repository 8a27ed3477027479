//! Observe: which of the GPUs that this process sees is the one asked for, and whether it is whole.

use super::{Wanted, failed};
use crate::cuda::{Error, OLDEST_DRIVER};
use cudarc::driver::{
    result,
    sys::{self, CUdevice_attribute as Attribute},
};

/// The name of a GPU: what one that is whole and not shared is locked by before it is opened.
pub fn uuid_of(gpu: &Wanted) -> Result<String, Error> {
    find(gpu).map(|(_, uuid)| uuid)
}

/// The driver's CUDA version.
#[expect(unsafe_code, reason = "the driver's interface")]
pub(super) fn driver_version() -> Result<i32, Error> {
    let mut version = 0;
    // SAFETY: writes one integer; any driver has it.
    unsafe { sys::cuDriverGetVersion(&raw mut version).result() }.map_err(failed("cuDriverGetVersion"))?;
    Ok(version)
}

/// Ordinal and name of the GPU asked for.
#[expect(unsafe_code, reason = "the driver's interface")]
pub(super) fn find(wanted: &Wanted) -> Result<(usize, String), Error> {
    // SAFETY: loads a library, whose initialisers run; it is the driver's.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDriver);
    }
    let have = driver_version()?;
    if have < OLDEST_DRIVER {
        return Err(Error::OldDriver { have });
    }
    match result::init() {
        Ok(()) => {}
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            return Err(Error::NoDevice("cuInit finds none".into()));
        }
        Err(error) => return Err(failed("cuInit")(error)),
    }
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    let mut seen = Vec::new();
    for ordinal in 0..count {
        let device = result::device::get(ordinal).map_err(failed("cuDeviceGet"))?;
        let uuid = written(&result::device::get_uuid(device).map_err(failed("cuDeviceGetUuid"))?);
        let found = match wanted {
            Wanted::Ordinal(place) => *place == ordinal as usize,
            Wanted::Uuid(wanted) => *wanted == uuid,
        };
        if found {
            whole(device, &uuid)?;
            return Ok((ordinal as usize, uuid));
        }
        seen.push(uuid);
    }
    Err(Error::NoDevice(match wanted {
        Wanted::Ordinal(place) => format!("number {place} is not among [{}]", seen.join(", ")),
        Wanted::Uuid(wanted) => format!("{wanted} is not among [{}]", seen.join(", ")),
    }))
}

/// Refuses a GPU that is cut or shared.
#[expect(unsafe_code, reason = "the driver's interface")]
fn whole(device: sys::CUdevice, uuid: &str) -> Result<(), Error> {
    let shared = |how, remedy| Error::Shared {
        uuid: uuid.to_owned(),
        how,
        remedy,
    };
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    if name.contains(" MIG ") {
        return Err(shared("an instance cut by MIG", "switch MIG off on this GPU"));
    }
    // SAFETY: reads a number of a device that exists.
    let served = unsafe { result::device::get_attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MPS_ENABLED) };
    if served.is_ok_and(|served| served != 0) {
        return Err(shared(
            "behind an MPS server",
            "stop the MPS control daemon for this GPU",
        ));
    }
    Ok(())
}

/// `GPU-…` as the driver's tools write it.
fn written(uuid: &sys::CUuuid) -> String {
    let hex = hex::encode(uuid.bytes.map(i8::cast_unsigned));
    format!(
        "GPU-{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
