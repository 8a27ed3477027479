//! Box 2, GPUs: the reading as a plain value and [`GpuSource`], the only hardware seam of the agent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

/// Most GPUs of a machine that are looked at; the API holds no more.
pub const MAX_GPUS: usize = 32;
/// Most different failing calls that are counted.
pub const MAX_CALL_ERRORS: usize = 128;

/// Where readings come from: NVML, or a file.
pub trait GpuSource: Send {
    /// Reads every GPU once. May hang as long as the driver does; the caller runs it on a thread of its own.
    fn read(&mut self, depth: Depth) -> GpuReading;
}

/// How much is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// What changes each second; the slow values are those of the last full reading.
    Fast,
    /// All of it.
    Full,
}

/// One look at every GPU.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuReading {
    /// When it was complete.
    pub taken_at: Time,
    /// How long it took.
    #[serde(default)]
    pub duration_micros: u64,
    /// Whether there is a library, and which.
    pub library: Library,
    /// The GPUs NVML lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuSample>,
    /// Failed calls since the agent started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub call_errors: Vec<CallErrors>,
}

/// The NVML library.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub enum Library {
    /// Loaded and answering.
    Present {
        /// Driver, for example `570.133.20`.
        driver_version: String,
        /// NVML, for example `12.570.133.20`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nvml_version: Option<String>,
        /// CUDA the driver supports, for example `12.8`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cuda_version: Option<String>,
    },
    /// Could not be loaded, or found no driver.
    Absent {
        /// What the loader said.
        error: String,
    },
    /// Loaded, but not even the GPUs can be counted.
    Failing {
        /// Call that failed.
        call: String,
        /// Name of the error.
        error: String,
    },
}

/// One GPU. A value that is missing was not asked, is not supported, or failed (then `errors` says how).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuSample {
    /// NVML index.
    pub index: u32,
    /// Absent when the GPU was never readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Name of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// PCI address.
    #[serde(rename = "pciBusID", skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// Memory in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mebibytes: Option<u64>,
    /// Whether confidential compute is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidential_compute: Option<bool>,
    /// Whether it answers.
    pub state: GpuState,
    /// Calls that failed in this reading.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<CallError>,
    /// What changes each second.
    #[serde(flatten)]
    pub fast: FastValues,
    /// What changes rarely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<SlowValues>,
}

/// Whether a GPU answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum GpuState {
    /// It does.
    #[default]
    Ok,
    /// It fell off the bus.
    Lost,
    /// It refuses work until it is reset.
    ResetRequired,
    /// Every call fails.
    Unreadable,
}

/// A call that failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallError {
    /// NVML function.
    pub call: String,
    /// Name of the error, as NVML has it.
    pub error: String,
}

/// How often a call failed in a way.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallErrors {
    /// NVML function.
    pub call: String,
    /// Name of the error.
    pub error: String,
    /// How often.
    pub count: u64,
}

/// What changes each second.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FastValues {
    /// Die.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<u32>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_temperature_celsius: Option<u32>,
    /// Draw, averaged by the firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_milliwatts: Option<u32>,
    /// Since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_millijoules: Option<u64>,
    /// Streaming multiprocessors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm_clock_mhz: Option<u32>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_clock_mhz: Option<u32>,
    /// Share of time with a kernel on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<u32>,
    /// Share of time with memory read or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_utilization_percent: Option<u32>,
    /// In use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_mebibytes: Option<u64>,
    /// Free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_free_mebibytes: Option<u64>,
    /// Held by the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reserved_mebibytes: Option<u64>,
    /// Why clocks are not at their highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clocks_event_reasons: Option<Vec<ClocksEventReason>>,
}

/// Why clocks are not at their highest, as NVML names it.
#[derive(
    Clone,
    Copy,
    Debug,
    Deserialize,
    Eq,
    Hash,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum ClocksEventReason {
    /// Nothing runs.
    GpuIdle,
    /// Somebody set lower clocks.
    ApplicationsClocksSetting,
    /// Power limit reached: normal under load.
    SwPowerCap,
    /// The hardware halves its clocks.
    HwSlowdown,
    /// Held down by another GPU of its sync group.
    SyncBoost,
    /// The driver lowers clocks for heat.
    SwThermalSlowdown,
    /// The hardware halves its clocks for heat.
    HwThermalSlowdown,
    /// The power supply asked for less.
    HwPowerBrakeSlowdown,
    /// Display clock setting.
    DisplayClockSetting,
}

impl ClocksEventReason {
    /// Its bit in NVML's mask.
    pub fn bit(self) -> u64 {
        1 << (self as u64)
    }

    /// The reasons of a mask, in the order of their bits.
    pub fn from_bits(bits: u64) -> Vec<Self> {
        use strum::VariantArray as _;
        Self::VARIANTS
            .iter()
            .copied()
            .filter(|reason| bits & reason.bit() != 0)
            .collect()
    }
}

/// What changes rarely.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlowValues {
    /// ECC, absent when the GPU has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc: Option<Ecc>,
    /// Row remapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_remap: Option<RowRemap>,
    /// What the driver asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_action: Option<RecoveryAction>,
    /// Link to the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie: Option<Pcie>,
    /// Links to other GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlinks: Option<NvLinks>,
    /// MIG mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<Mode>,
    /// Power limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit: Option<PowerLimit>,
    /// Die temperature at which the hardware slows down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowdown_celsius: Option<u32>,
    /// Highest memory temperature allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max_celsius: Option<u32>,
}

/// A switch that takes effect after a reset.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mode {
    /// Now.
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
}

/// ECC errors. Volatile: since the driver was loaded or the GPU reset. Aggregate: over its life.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ecc {
    /// Whether ECC is on.
    pub mode: Mode,
    /// Corrected, volatile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volatile_corrected: Option<u64>,
    /// Uncorrected, volatile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volatile_uncorrected: Option<u64>,
    /// Corrected, aggregate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate_corrected: Option<u64>,
    /// Uncorrected, aggregate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate_uncorrected: Option<u64>,
}

/// Rows of memory replaced by spare ones.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RowRemap {
    /// After correctable errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correctable: Option<u64>,
    /// After uncorrectable errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncorrectable: Option<u64>,
    /// One waits for a reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<bool>,
    /// One found no spare row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<bool>,
}

/// What the driver asks for so that the GPU works again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// Reset the GPU.
    GpuReset,
    /// Reboot the machine.
    NodeReboot,
    /// Stop peer-to-peer traffic.
    DrainP2p,
    /// Usable; drain it and reset it when convenient.
    DrainAndReset,
    /// One this version does not know.
    Other,
}

/// Link to the host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pcie {
    /// Generation now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Highest that GPU and slot allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_generation: Option<u32>,
    /// Lanes now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Most lanes that GPU and slot allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_width: Option<u32>,
    /// Packets sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replays: Option<u64>,
}

/// Links to other GPUs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NvLinks {
    /// The GPU has.
    pub present: u32,
    /// Reach a switch.
    pub connected: u32,
}

/// Power limit in force and as delivered.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PowerLimit {
    /// In force.
    pub enforced_milliwatts: u32,
    /// As delivered.
    pub default_milliwatts: u32,
}
