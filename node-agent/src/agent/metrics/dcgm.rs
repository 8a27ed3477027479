//! Box 4: GPU values under dcgm-exporter's names, units and labels.

use super::{Page, View, escaped};
use crate::agent::history::KnownGpu;
use crate::agent::observe::gpu::{ClocksEventReason, Ecc, GpuSample, Pcie, RowRemap};

/// One family.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&GpuSample) -> Option<f64>,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&GpuSample) -> Option<f64>) -> Family {
    Family {
        name,
        kind: "gauge",
        help,
        value,
    }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&GpuSample) -> Option<f64>) -> Family {
    Family {
        kind: "counter",
        ..gauge(name, help, value)
    }
}

#[rustfmt::skip]
const FAMILIES: [Family; 27] = [
    gauge("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", |gpu| gpu.fast.sm_clock_mhz.map(f64::from)),
    gauge("DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", |gpu| gpu.fast.memory_clock_mhz.map(f64::from)),
    gauge("DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", |gpu| gpu.fast.memory_temperature_celsius.map(f64::from)),
    gauge("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", |gpu| gpu.fast.temperature_celsius.map(f64::from)),
    gauge("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", |gpu| gpu.fast.power_milliwatts.map(|value| f64::from(value) / 1000.0)),
    counter("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", |gpu| float(gpu.fast.energy_millijoules)),
    gauge("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", |gpu| gpu.fast.utilization_percent.map(f64::from)),
    gauge("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).", |gpu| gpu.fast.memory_utilization_percent.map(f64::from)),
    gauge("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", |gpu| float(gpu.fast.memory_free_mebibytes)),
    gauge("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", |gpu| float(gpu.fast.memory_used_mebibytes)),
    gauge("DCGM_FI_DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB).", |gpu| float(gpu.fast.memory_reserved_mebibytes)),
    gauge("DCGM_FI_DEV_FB_TOTAL", "Total framebuffer memory (in MiB).", |gpu| float(gpu.memory_mebibytes)),
    gauge("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "Current clock event reasons (bitmask).", clocks_event_bits),
    counter("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", |gpu| pcie(gpu).and_then(|pcie| float(pcie.replays))),
    gauge("DCGM_FI_DEV_PCIE_LINK_GEN", "PCIe current link generation.", |gpu| pcie(gpu).and_then(|pcie| pcie.generation).map(f64::from)),
    gauge("DCGM_FI_DEV_PCIE_LINK_WIDTH", "PCIe current link width.", |gpu| pcie(gpu).and_then(|pcie| pcie.width).map(f64::from)),
    gauge("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "Effective power limit (in W).", |gpu| {
        gpu.slow.as_ref().and_then(|slow| slow.power_limit).map(|limit| f64::from(limit.enforced_milliwatts) / 1000.0)
    }),
    counter("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.", |gpu| ecc(gpu).and_then(|ecc| float(ecc.volatile_corrected))),
    counter("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.", |gpu| ecc(gpu).and_then(|ecc| float(ecc.volatile_uncorrected))),
    counter("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "Total number of single-bit persistent ECC errors.", |gpu| ecc(gpu).and_then(|ecc| float(ecc.aggregate_corrected))),
    counter("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "Total number of double-bit persistent ECC errors.", |gpu| ecc(gpu).and_then(|ecc| float(ecc.aggregate_uncorrected))),
    counter("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for correctable errors.", |gpu| rows(gpu).and_then(|rows| float(rows.correctable))),
    counter("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for uncorrectable errors.", |gpu| rows(gpu).and_then(|rows| float(rows.uncorrectable))),
    gauge("DCGM_FI_DEV_ROW_REMAP_FAILURE", "Whether remapping of rows has failed.", |gpu| rows(gpu).and_then(|rows| flag(rows.failure))),
    gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", "Whether remapping of rows is pending.", |gpu| rows(gpu).and_then(|rows| flag(rows.pending))),
    gauge("DCGM_FI_DEV_ECC_CURRENT", "Current ECC mode.", |gpu| ecc(gpu).and_then(|ecc| flag(Some(ecc.mode.current)))),
    gauge("DCGM_FI_DEV_MIG_MODE", "MIG mode.", |gpu| gpu.slow.as_ref().and_then(|slow| slow.mig).and_then(|mode| flag(Some(mode.current)))),
];

/// All families, each with one line per GPU that has the value.
pub(super) fn render(view: &View<'_>, page: &mut Page) {
    let young = view.sample.gpu_age_seconds() <= f64::from(view.stale_seconds);
    let named = view
        .sample
        .gpus
        .as_deref()
        .filter(|_| young)
        .map(|reading| view.history.named(reading))
        .unwrap_or_default();
    let shown: Vec<(&GpuSample, Option<&KnownGpu>, String)> = named
        .iter()
        .map(|(uuid, gpu)| (*gpu, view.history.gpus.get(uuid), labels(view.node_name, uuid, gpu)))
        .collect();
    for family in &FAMILIES {
        let lines: Vec<(&str, f64)> = shown
            .iter()
            .filter_map(|(gpu, _, labels)| Some((labels.as_str(), (family.value)(gpu)?)))
            .collect();
        if lines.is_empty() {
            continue;
        }
        page.family(family.name, family.kind, family.help);
        for (labels, value) in lines {
            page.line(family.name, labels, value);
        }
    }
    if shown.is_empty() {
        return;
    }
    page.family(
        "DCGM_FI_DEV_XID_ERRORS",
        "gauge",
        "Value of the last XID error encountered.",
    );
    for (_, known, labels) in &shown {
        page.line(
            "DCGM_FI_DEV_XID_ERRORS",
            labels,
            known.and_then(|known| known.last_xid).unwrap_or_default(),
        );
    }
}

fn labels(node_name: &str, uuid: &str, gpu: &GpuSample) -> String {
    format!(
        "gpu=\"{}\",UUID=\"{}\",modelName=\"{}\",Hostname=\"{}\"",
        gpu.index,
        escaped(uuid),
        escaped(gpu.product.as_deref().unwrap_or_default()),
        escaped(node_name)
    )
}

fn clocks_event_bits(gpu: &GpuSample) -> Option<f64> {
    let reasons = gpu.fast.clocks_event_reasons.as_ref()?;
    float(Some(reasons.iter().copied().map(ClocksEventReason::bit).sum()))
}

fn ecc(gpu: &GpuSample) -> Option<&Ecc> {
    gpu.slow.as_ref()?.ecc.as_ref()
}

fn rows(gpu: &GpuSample) -> Option<&RowRemap> {
    gpu.slow.as_ref()?.row_remap.as_ref()
}

fn pcie(gpu: &GpuSample) -> Option<&Pcie> {
    gpu.slow.as_ref()?.pcie.as_ref()
}

/// The format has floats only; counts beyond 2^53 are no longer exact there.
fn float(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn flag(value: Option<bool>) -> Option<f64> {
    value.map(|value| if value { 1.0 } else { 0.0 })
}
