//! Box 3: one judgement per condition of GpuNode, from the verdicts over the GPUs and the sample.
//!
//! Ready needs GpusHealthy, DriverConsistent and DiskOk. Clocks, time and what nobody observes yet are shown beside it.

use crds::GpuNode;
use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::gpu_node::GpuHealth;

use super::freshness::Freshness;
use super::{GpuVerdict, Judgement, clock_sync, disk, driver};
use crate::agent::observe::Sample;
use crate::agent::policy::Policy;

/// Most names in one message.
const MAX_NAMED: usize = 8;

/// Judges every condition of the kind, in the kind's order.
pub fn judge(
    gpus: &[GpuVerdict],
    sample: &Sample,
    fresh: Freshness<'_>,
    policy: &Policy,
) -> Vec<(ConditionType, Judgement)> {
    let healthy = gpus_healthy(gpus, fresh, policy);
    let driver = match fresh {
        Freshness::Fresh(reading) => driver::check(reading, sample),
        Freshness::Failing(call, error) if error == driver::MISMATCH => {
            driver::mismatch(&format!("{call} says that library and kernel module differ"))
        }
        other => unreadable(other, policy).unwrap_or_else(not_observed),
    };
    let disk = disk::check(sample, policy);
    let ready = ready(&[
        (ConditionType::GpusHealthy, &healthy),
        (ConditionType::DriverConsistent, &driver),
        (ConditionType::DiskOk, &disk),
    ]);
    GpuNode::CONDITIONS
        .into_iter()
        .map(|condition| {
            let judgement = match condition {
                ConditionType::Ready => ready.clone(),
                ConditionType::Reconciling => reconciling(fresh),
                ConditionType::Stalled => stalled(fresh, policy),
                ConditionType::GpusHealthy => healthy.clone(),
                ConditionType::ClocksNominal => clocks_nominal(gpus, fresh, policy),
                ConditionType::DriverConsistent => driver.clone(),
                ConditionType::DiskOk => disk.clone(),
                ConditionType::ClockSynced => clock_sync::check(sample, policy),
                _ => not_observed(),
            };
            (condition, judgement)
        })
        .collect()
}

/// Why nothing is known about the GPUs, when nothing is.
fn unreadable(fresh: Freshness<'_>, policy: &Policy) -> Option<Judgement> {
    let unknown = |reason, message: String| Some(Judgement::new(ConditionStatus::Unknown, reason, message));
    match fresh {
        Freshness::Fresh(_) => None,
        Freshness::Pending => unknown(Reason::Pending, "the GPUs were not read yet".to_owned()),
        Freshness::Stale => unknown(
            Reason::SampleStale,
            format!(
                "no reading of the GPUs for more than {} s: NVML does not return",
                policy.stale_seconds
            ),
        ),
        Freshness::Absent(error) => unknown(Reason::NvmlAbsent, format!("NVML is not there: {error}")),
        Freshness::Failing(call, error) => unknown(Reason::NvmlFailing, format!("{call} fails with {error}")),
    }
}

fn gpus_healthy(gpus: &[GpuVerdict], fresh: Freshness<'_>, policy: &Policy) -> Judgement {
    let blocked = naming(gpus, |gpu| (gpu.health == GpuHealth::Unhealthy).then(|| worst(gpu)));
    if let Some(names) = blocked {
        return Judgement::new(
            ConditionStatus::False,
            Reason::GpuFinding,
            format!("must not be examined: {names}"),
        );
    }
    if let Some(unknown) = unreadable(fresh, policy) {
        return unknown;
    }
    if let Some(names) = naming(gpus, |gpu| (gpu.health == GpuHealth::Unknown).then(|| worst(gpu))) {
        return Judgement::new(
            ConditionStatus::Unknown,
            Reason::NvmlFailing,
            format!("not readable: {names}"),
        );
    }
    match policy.expected_gpus {
        Some(expected) if gpus.len() < expected as usize => Judgement::new(
            ConditionStatus::False,
            Reason::GpuFinding,
            format!("{} of {expected} expected GPUs are there", gpus.len()),
        ),
        _ if gpus.is_empty() => Judgement::new(ConditionStatus::Unknown, Reason::NotObserved, "NVML lists no GPU"),
        _ => Judgement::good(format!("{} GPUs without a blocking finding", gpus.len())),
    }
}

fn clocks_nominal(gpus: &[GpuVerdict], fresh: Freshness<'_>, policy: &Policy) -> Judgement {
    if let Some(unknown) = unreadable(fresh, policy) {
        return unknown;
    }
    let slowed = naming(gpus, |gpu| {
        let found = gpu.findings.iter().find(|found| found.clocks);
        found.map(|found| found.rule.as_ref())
    });
    match slowed {
        Some(names) => Judgement::new(
            ConditionStatus::False,
            Reason::ClocksReduced,
            format!("held back: {names}"),
        ),
        None if gpus.is_empty() => not_observed(),
        None => Judgement::good("no GPU is held back"),
    }
}

/// `GPU 3 (FallenOffBus), GPU 5 (Xid48)`, or None when no GPU is meant. `meant` names what speaks against a GPU.
fn naming<'a>(gpus: &'a [GpuVerdict], meant: impl Fn(&'a GpuVerdict) -> Option<&'a str>) -> Option<String> {
    let mut names: Vec<String> = gpus
        .iter()
        .filter_map(|gpu| meant(gpu).map(|rule| format!("GPU {} ({rule})", gpu.index)))
        .collect();
    if names.len() > MAX_NAMED {
        let more = names.len() - MAX_NAMED;
        names.truncate(MAX_NAMED);
        names.push(format!("{more} more"));
    }
    (!names.is_empty()).then(|| names.join(", "))
}

fn worst(gpu: &GpuVerdict) -> &str {
    gpu.findings.first().map_or("Unread", |found| &found.rule)
}

fn ready(parts: &[(ConditionType, &Judgement)]) -> Judgement {
    for status in [ConditionStatus::False, ConditionStatus::Unknown] {
        if let Some((condition, cause)) = parts.iter().find(|(_, part)| part.status == status) {
            return Judgement::new(status, cause.reason, format!("{condition}: {}", cause.message));
        }
    }
    Judgement::good("GPUs, driver and disks are well")
}

fn reconciling(fresh: Freshness<'_>) -> Judgement {
    match fresh {
        Freshness::Pending => Judgement::new(ConditionStatus::True, Reason::InProgress, "the GPUs are being read"),
        _ => Judgement::new(ConditionStatus::False, Reason::AsExpected, "nothing is under way"),
    }
}

/// Without NVML the agent goes on trying, but only people bring it back.
fn stalled(fresh: Freshness<'_>, policy: &Policy) -> Judgement {
    match (fresh, unreadable(fresh, policy)) {
        (Freshness::Stale | Freshness::Absent(_) | Freshness::Failing(..), Some(cause)) => {
            Judgement::new(ConditionStatus::True, cause.reason, cause.message)
        }
        _ => Judgement::new(ConditionStatus::False, Reason::AsExpected, "the GPUs are readable"),
    }
}

fn not_observed() -> Judgement {
    Judgement::new(
        ConditionStatus::Unknown,
        Reason::NotObserved,
        "nothing observes this yet",
    )
}
