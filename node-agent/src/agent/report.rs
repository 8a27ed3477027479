//! Box 3: evaluation → `GpuNode.status`. Pure. Transition times are those of the history while nothing changes; values that
//! move each second stay out, they are metrics.

use crds::conditions::ConditionType;
use crds::gpu_node::{Finding, Gpu, GpuNodeStatus, Host};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::evaluate::{Evaluation, GpuVerdict, Inputs, Judgement};
use super::history::{History, KnownGpu};
use super::observe::gpu::{GpuSample, Library};
use super::observe::{HostReading, Sample};

/// Longest message of a condition or finding.
const MAX_MESSAGE: usize = 1024;

/// Builds the status. `history` must be the one the evaluation was made from.
pub fn build_status(history: &History, sample: &Sample, evaluation: &Evaluation, inputs: &Inputs) -> GpuNodeStatus {
    let reading = sample.gpus.as_deref();
    let named = reading.map(|reading| history.named(reading)).unwrap_or_default();
    let gpus: Vec<Gpu> = evaluation
        .gpus
        .iter()
        .filter_map(|verdict| {
            let known = history.gpus.get(&verdict.uuid)?;
            let read = named
                .iter()
                .find(|(name, _)| *name == verdict.uuid)
                .map(|(_, gpu)| *gpu);
            Some(build_gpu(verdict, known, read, &sample.now))
        })
        .collect();
    let (driver_version, cuda_version) = match reading.map(|reading| &reading.library) {
        Some(Library::Present {
            driver_version,
            cuda_version,
            ..
        }) => (Some(driver_version.clone()), cuda_version.clone()),
        _ => (None, None),
    };
    GpuNodeStatus {
        // The operator's to answer.
        maintenance: None,
        observed_generation: inputs.generation,
        gpu_count: gpus.len() as i32,
        product: common_product(&gpus),
        driver_version,
        cuda_version,
        gpus,
        host: sample.host.as_deref().and_then(build_host),
        weights: Vec::new(),
        conditions: build_conditions(&history.conditions, &evaluation.judgements, &sample.now),
    }
}

fn build_gpu(verdict: &GpuVerdict, known: &KnownGpu, read: Option<&GpuSample>, now: &Time) -> Gpu {
    Gpu {
        index: known.index as i32,
        uuid: verdict.uuid.clone(),
        product: known.product.clone().unwrap_or_else(|| "Unknown".to_owned()),
        memory_mebibytes: known.memory_mebibytes.unwrap_or_default() as i64,
        pci_bus_id: known.pci_bus_id.clone().unwrap_or_default(),
        mig: read
            .and_then(|gpu| gpu.slow.as_ref())
            .and_then(|slow| slow.mig)
            .map(|mode| mode.current),
        confidential_compute: read.and_then(|gpu| gpu.confidential_compute),
        power_limit_watts: read
            .and_then(|gpu| gpu.slow.as_ref())
            .and_then(|slow| slow.power_limit)
            .map(|limit| limit.enforced_milliwatts.div_ceil(1000) as i32),
        health: verdict.health,
        findings: verdict
            .findings
            .iter()
            .map(|found| Finding {
                rule: found.rule.to_string(),
                blocking: found.blocking,
                message: bounded(&found.message),
                since_time: known.findings.get(found.rule.as_ref()).unwrap_or(now).clone(),
            })
            .collect(),
    }
}

fn common_product(gpus: &[Gpu]) -> Option<String> {
    let first = gpus.first()?;
    let same = gpus.iter().all(|gpu| gpu.product == first.product);
    Some(if same {
        first.product.clone()
    } else {
        "Mixed".to_owned()
    })
}

fn build_host(host: &HostReading) -> Option<Host> {
    Some(Host {
        kernel: host.kernel.clone()?,
        boot_id: host.boot_id.clone()?,
        cpus: host.cpus.unwrap_or_default() as i32,
        memory_mebibytes: host.memory_mebibytes.unwrap_or_default() as i64,
    })
}

/// Conditions with the time of their last change of status.
pub fn build_conditions(before: &[Condition], judgements: &[(ConditionType, Judgement)], now: &Time) -> Vec<Condition> {
    judgements
        .iter()
        .map(|(condition, judgement)| {
            let type_ = condition.to_string();
            let status = judgement.status.to_string();
            let kept = before.iter().find(|old| old.type_ == type_ && old.status == status);
            Condition {
                last_transition_time: kept.map_or(now, |old| &old.last_transition_time).clone(),
                message: bounded(&judgement.message),
                observed_generation: None,
                reason: judgement.reason.to_string(),
                status,
                type_,
            }
        })
        .collect()
}

/// Library texts end up in messages; the API bounds them.
fn bounded(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}
