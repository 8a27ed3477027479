//! Box 2, NVML: one GPU read once. Nine calls a second, about a dozen more with a full reading.

use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor, TemperatureThreshold};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id as field;
use nvml_wrapper::{Device, Nvml};

use super::errors::{Counts, error_name};
use crate::agent::observe::gpu::{
    CallError, ClocksEventReason, Depth, Ecc, FastValues, GpuSample, GpuState, Mode, NvLinks, Pcie, PowerLimit,
    RecoveryAction, RowRemap, SlowValues,
};

const MEBIBYTE: u64 = 1024 * 1024;
/// More failing calls than this in one reading say nothing new.
const MAX_ERRORS: usize = 16;

const FAST_FIELDS: [FieldId; 2] = [
    FieldId(field::NVML_FI_DEV_MEMORY_TEMP),
    FieldId(field::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION),
];
const SLOW_FIELDS: [FieldId; 12] = [
    FieldId(field::NVML_FI_DEV_ECC_SBE_VOL_TOTAL),
    FieldId(field::NVML_FI_DEV_ECC_DBE_VOL_TOTAL),
    FieldId(field::NVML_FI_DEV_ECC_SBE_AGG_TOTAL),
    FieldId(field::NVML_FI_DEV_ECC_DBE_AGG_TOTAL),
    FieldId(field::NVML_FI_DEV_REMAPPED_COR),
    FieldId(field::NVML_FI_DEV_REMAPPED_UNC),
    FieldId(field::NVML_FI_DEV_REMAPPED_PENDING),
    FieldId(field::NVML_FI_DEV_REMAPPED_FAILURE),
    FieldId(field::NVML_FI_DEV_PCIE_REPLAY_COUNTER),
    FieldId(field::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
    FieldId(field::NVML_FI_DEV_NVLINK_LINK_COUNT),
    FieldId(field::NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT),
];

/// What is kept of one GPU between readings.
#[derive(Debug)]
pub(super) struct Slot {
    index: u32,
    state: GpuState,
    identity: Option<Identity>,
    limits: Limits,
    slow: Option<SlowValues>,
}

/// What never changes while the library is open.
#[derive(Clone, Debug)]
struct Identity {
    uuid: String,
    product: Option<String>,
    pci_bus_id: Option<String>,
    memory_mebibytes: Option<u64>,
    confidential_compute: Option<bool>,
}

/// Constants of the GPU that slow values are compared with.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    slowdown_celsius: Option<u32>,
    memory_max_celsius: Option<u32>,
    default_milliwatts: Option<u32>,
    max_generation: Option<u32>,
    max_width: Option<u32>,
}

/// Turns failed calls of one reading into data.
struct Reader<'a> {
    counts: &'a mut Counts,
    errors: Vec<CallError>,
    state: GpuState,
    answered: bool,
}

impl Reader<'_> {
    /// The value, or None with the error noted. Not supported is no error: the GPU just has no such value.
    fn keep<T>(&mut self, call: &'static str, result: Result<T, NvmlError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.answered = true;
                return Some(value);
            }
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {
                self.answered = true;
                return None;
            }
            Err(error) => {
                match error {
                    NvmlError::GpuLost => self.state = GpuState::Lost,
                    NvmlError::ResetRequired if self.state != GpuState::Lost => self.state = GpuState::ResetRequired,
                    _ => {}
                }
                self.counts.add(call, error_name(&error));
                if self.errors.len() < MAX_ERRORS {
                    self.errors.push(CallError {
                        call: call.to_owned(),
                        error: error_name(&error).to_owned(),
                    });
                }
            }
        }
        None
    }

    /// A lost GPU fails every call, some only after seconds: it is not asked further.
    fn gone(&self) -> bool {
        self.state != GpuState::Ok
    }
}

impl Slot {
    pub(super) fn new(index: u32) -> Self {
        Self {
            index,
            state: GpuState::Ok,
            identity: None,
            limits: Limits::default(),
            slow: None,
        }
    }

    pub(super) fn state(&self) -> GpuState {
        self.state
    }

    pub(super) fn read(&mut self, nvml: &Nvml, depth: Depth, counts: &mut Counts) -> GpuSample {
        let mut reader = Reader {
            counts,
            errors: Vec::new(),
            state: GpuState::Ok,
            answered: false,
        };
        let mut fast = FastValues::default();
        if let Some(device) = reader.keep("nvmlDeviceGetHandleByIndex", nvml.device_by_index(self.index)) {
            reader.answered = false;
            fast = self.read_device(&device, depth, &mut reader);
        }
        self.state = match reader.state {
            GpuState::Ok if !reader.answered => GpuState::Unreadable,
            state => state,
        };
        let answers = self.state == GpuState::Ok;
        let identity = self.identity.as_ref();
        GpuSample {
            index: self.index,
            uuid: identity.map(|identity| identity.uuid.clone()),
            product: identity.and_then(|identity| identity.product.clone()),
            pci_bus_id: identity.and_then(|identity| identity.pci_bus_id.clone()),
            memory_mebibytes: identity.and_then(|identity| identity.memory_mebibytes),
            confidential_compute: identity.and_then(|identity| identity.confidential_compute),
            state: self.state,
            errors: reader.errors,
            fast: if answers { fast } else { FastValues::default() },
            slow: self.slow.clone().filter(|_| answers),
        }
    }

    fn read_device(&mut self, device: &Device<'_>, depth: Depth, reader: &mut Reader<'_>) -> FastValues {
        if self.identity.is_none() {
            self.identity = read_identity(device, reader);
            self.limits = read_limits(device);
        }
        let fast = read_fast(device, reader);
        if (depth == Depth::Full || self.slow.is_none()) && !reader.gone() {
            self.slow = Some(read_slow(device, &self.limits, reader));
        }
        fast
    }
}

fn read_identity(device: &Device<'_>, reader: &mut Reader<'_>) -> Option<Identity> {
    let uuid = reader.keep("nvmlDeviceGetUUID", device.uuid())?;
    Some(Identity {
        uuid,
        product: reader.keep("nvmlDeviceGetName", device.name()),
        pci_bus_id: reader
            .keep("nvmlDeviceGetPciInfo", device.pci_info())
            .map(|pci| pci.bus_id),
        memory_mebibytes: reader
            .keep("nvmlDeviceGetMemoryInfo", device.memory_info())
            .map(|memory| memory.total / MEBIBYTE),
        confidential_compute: device.is_cc_enabled().ok(),
    })
}

/// Constants; one that cannot be had only means that nothing is compared with it.
fn read_limits(device: &Device<'_>) -> Limits {
    Limits {
        slowdown_celsius: device.temperature_threshold(TemperatureThreshold::Slowdown).ok(),
        memory_max_celsius: device.temperature_threshold(TemperatureThreshold::MemoryMax).ok(),
        default_milliwatts: device.power_management_limit_default().ok(),
        max_generation: device.max_pcie_link_gen().ok(),
        max_width: device.max_pcie_link_width().ok(),
    }
}

fn read_fast(device: &Device<'_>, reader: &mut Reader<'_>) -> FastValues {
    let mut values = FastValues {
        temperature_celsius: reader.keep("nvmlDeviceGetTemperature", device.temperature(TemperatureSensor::Gpu)),
        ..FastValues::default()
    };
    if reader.gone() {
        return values;
    }
    values.power_milliwatts = reader.keep("nvmlDeviceGetPowerUsage", device.power_usage());
    values.sm_clock_mhz = reader.keep("nvmlDeviceGetClockInfo", device.clock_info(Clock::SM));
    values.memory_clock_mhz = reader.keep("nvmlDeviceGetClockInfo", device.clock_info(Clock::Memory));
    values.clocks_event_reasons = reader
        .keep(
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            device.current_throttle_reasons(),
        )
        .map(|reasons| ClocksEventReason::from_bits(reasons.bits()));
    if let Some(utilization) = reader.keep("nvmlDeviceGetUtilizationRates", device.utilization_rates()) {
        values.utilization_percent = Some(utilization.gpu);
        values.memory_utilization_percent = Some(utilization.memory);
    }
    if let Some(memory) = reader.keep("nvmlDeviceGetMemoryInfo", device.memory_info()) {
        values.memory_used_mebibytes = Some(memory.used / MEBIBYTE);
        values.memory_free_mebibytes = Some(memory.free / MEBIBYTE);
        values.memory_reserved_mebibytes = Some(memory.reserved / MEBIBYTE);
    }
    let [memory_temperature, energy] = read_fields(device, &FAST_FIELDS, reader);
    values.memory_temperature_celsius = memory_temperature.map(|value| value as u32);
    values.energy_millijoules = energy;
    values
}

fn read_slow(device: &Device<'_>, limits: &Limits, reader: &mut Reader<'_>) -> SlowValues {
    let ecc_mode = reader.keep("nvmlDeviceGetEccMode", device.is_ecc_enabled());
    let mig = reader.keep("nvmlDeviceGetMigMode", device.mig_mode());
    let enforced = reader.keep("nvmlDeviceGetEnforcedPowerLimit", device.enforced_power_limit());
    let generation = reader.keep("nvmlDeviceGetCurrPcieLinkGeneration", device.current_pcie_link_gen());
    let width = reader.keep("nvmlDeviceGetCurrPcieLinkWidth", device.current_pcie_link_width());
    let [
        sbe,
        dbe,
        sbe_all,
        dbe_all,
        correctable,
        uncorrectable,
        pending,
        failure,
        replays,
        action,
        links,
        connected,
    ] = read_fields(device, &SLOW_FIELDS, reader);
    SlowValues {
        ecc: ecc_mode.map(|mode| Ecc {
            mode: Mode {
                current: mode.currently_enabled,
                pending: mode.pending_enabled,
            },
            volatile_corrected: sbe,
            volatile_uncorrected: dbe,
            aggregate_corrected: sbe_all,
            aggregate_uncorrected: dbe_all,
        }),
        row_remap: (pending.is_some() || failure.is_some()).then_some(RowRemap {
            correctable,
            uncorrectable,
            pending: pending.map(|value| value != 0),
            failure: failure.map(|value| value != 0),
        }),
        recovery_action: action.map(recovery_action),
        pcie: Some(Pcie {
            generation,
            max_generation: limits.max_generation,
            width,
            max_width: limits.max_width,
            replays,
        }),
        nvlinks: links.zip(connected).map(|(present, connected)| NvLinks {
            present: present as u32,
            connected: connected as u32,
        }),
        mig: mig.map(|mode| Mode {
            current: mode.current == 1,
            pending: mode.pending == 1,
        }),
        power_limit: enforced
            .zip(limits.default_milliwatts)
            .map(|(enforced, default)| PowerLimit {
                enforced_milliwatts: enforced,
                default_milliwatts: default,
            }),
        slowdown_celsius: limits.slowdown_celsius,
        memory_max_celsius: limits.memory_max_celsius,
    }
}

/// Many numbers in one call. A number that is not there is None: fields differ between drivers and products.
fn read_fields<const N: usize>(device: &Device<'_>, ids: &[FieldId; N], reader: &mut Reader<'_>) -> [Option<u64>; N] {
    let Some(samples) = reader.keep("nvmlDeviceGetFieldValues", device.field_values_for(ids)) else {
        return [None; N];
    };
    let mut values = [None; N];
    for (value, sample) in values.iter_mut().zip(samples) {
        *value = match sample.and_then(|sample| sample.value) {
            Ok(SampleValue::U32(number)) => Some(u64::from(number)),
            Ok(SampleValue::U64(number)) => Some(number),
            Ok(SampleValue::I64(number)) => u64::try_from(number).ok(),
            Ok(SampleValue::F64(_)) | Err(_) => None,
        };
    }
    values
}

fn recovery_action(number: u64) -> RecoveryAction {
    match number {
        0 => RecoveryAction::None,
        1 => RecoveryAction::GpuReset,
        2 => RecoveryAction::NodeReboot,
        3 => RecoveryAction::DrainP2p,
        4 => RecoveryAction::DrainAndReset,
        _ => RecoveryAction::Other,
    }
}
