//! Machines as a decision sees them: those that carry pods of the deployment, and those no pod may go to. Pure but for the
//! objects it reads.

use std::collections::{BTreeMap, BTreeSet};

use crds::GpuNode;
use crds::conditions::ConditionType;
use crds::gpu_node::{MaintenanceState, NodeEnrollment, stage_now};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::Objects;
use crate::machine::room;
use crate::model_deployment::observed::{ClockFinding, Machine, Observed};

/// Reads the machines that matter to the deployment.
pub fn all(objects: &impl Objects, observed: &Observed) -> BTreeMap<String, Machine> {
    let carrying: BTreeSet<String> = observed
        .pods
        .values()
        .map(|pod| pod.node_name.clone())
        .filter(|name| !name.is_empty())
        .collect();
    let key = &observed.deployment.spec.placement.failure_domain_key;
    let mut machines: BTreeMap<String, Machine> = carrying
        .iter()
        .filter_map(|name| {
            let node = objects.node(name)?;
            let gpu_node = objects.gpu_node(name);
            Some((name.clone(), seen(&node, gpu_node.as_deref(), key, observed.now_ms)))
        })
        .collect();
    for gpu_node in objects.gpu_nodes() {
        let name = gpu_node.name_any();
        if let Some(node) = objects.node(&name) {
            let machine = seen(&node, Some(&gpu_node), key, observed.now_ms);
            if machine.excluded || machine.leaving {
                machines.insert(name, machine);
            }
        }
    }
    machines
}

/// A slot is on a machine that leaves, and no machine that stays has room for one more pod. What room there is follows from Nodes and
/// slot pods; of what else runs there, the scheduler knows.
pub fn are_full(objects: &impl Objects, observed: &Observed) -> bool {
    let placement = &observed.deployment.spec.placement;
    let leaves = |name: &String| observed.machines.get(name).is_some_and(|machine| machine.leaving);
    if !observed.pods.values().any(|pod| leaves(&pod.node_name)) {
        return false;
    }
    let (wanted, pods) = (room::of_pod(&observed.deployment.spec), objects.all_pods());
    let has_room = |gpu_node: &GpuNode| {
        let name = gpu_node.name_any();
        objects.node(&name).is_some_and(|node| {
            let machine = seen(&node, Some(gpu_node), &placement.failure_domain_key, observed.now_ms);
            machine.ready
                && !machine.excluded
                && !machine.leaving
                && room::takes(&node, &placement.node_selector)
                && room::left(&node, &pods).is_none_or(|left| left >= wanted)
        })
    };
    !objects.gpu_nodes().iter().any(|gpu_node| has_room(gpu_node))
}

fn seen(node: &Node, gpu_node: Option<&GpuNode>, domain_key: &str, now_ms: i64) -> Machine {
    let name = node.name_any();
    let condition = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"));
    let ready = condition.is_some_and(|condition| condition.status == "True");
    let unschedulable = node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or_default();
    let spec = gpu_node.map(|gpu_node| gpu_node.spec.clone()).unwrap_or_default();
    let stage = gpu_node.and_then(|gpu_node| {
        let answer = gpu_node.status.as_ref()?.maintenance.as_ref()?;
        let generation = gpu_node.metadata.generation.filter(|_| !unschedulable);
        Some(stage_now(answer, &gpu_node.spec.maintenance, generation))
    });
    let (findings, clock_findings) = gpu_node.map(|gpu_node| findings(gpu_node, now_ms)).unwrap_or_default();
    Machine {
        ready,
        ready_since_ms: condition
            .and_then(|condition| condition.last_transition_time.as_ref())
            .map(|time| time.0.as_millisecond())
            .unwrap_or_default(),
        leaving: unschedulable || spec.maintenance.state == MaintenanceState::Requested,
        maintenance: stage,
        excluded: spec.enrollment == NodeEnrollment::Excluded,
        domain: node.labels().get(domain_key).cloned().unwrap_or(name),
        watts: gpu_node.and_then(watts),
        // The report of a machine that is not there is the last one before.
        gpus_healthy: if ready { gpu_node.and_then(gpus_healthy) } else { None },
        findings,
        clock_findings,
        findings_until_ms: spec
            .health_overrides
            .iter()
            .filter_map(|entry| Some(entry.not_after_time.as_ref()?.0.as_millisecond()))
            .filter(|until| *until > now_ms)
            .min(),
    }
}

fn watts(gpu_node: &GpuNode) -> Option<i64> {
    let gpus = gpu_node.status.iter().flat_map(|status| &status.gpus);
    let limits: Vec<i64> = gpus.filter_map(|gpu| gpu.power_limit_watts.map(i64::from)).collect();
    (!limits.is_empty()).then(|| limits.iter().sum())
}

fn gpus_healthy(gpu_node: &GpuNode) -> Option<bool> {
    let kind = ConditionType::GpusHealthy.to_string();
    let conditions = &gpu_node.status.as_ref()?.conditions;
    let condition = conditions.iter().find(|condition| condition.type_ == kind)?;
    match condition.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

/// Blocking findings that no person declared harmless, those about clocks apart.
fn findings(gpu_node: &GpuNode, now_ms: i64) -> (Vec<String>, Vec<ClockFinding>) {
    let harmless = |uuid: &str, rule: &str| {
        gpu_node.spec.health_overrides.iter().any(|entry| {
            entry.gpu_uuid == uuid
                && entry.rule == rule
                && entry
                    .not_after_time
                    .as_ref()
                    .is_none_or(|until| until.0.as_millisecond() > now_ms)
        })
    };
    let (mut clocks, mut rules) = (BTreeSet::new(), BTreeSet::new());
    let gpus = gpu_node.status.iter().flat_map(|status| &status.gpus);
    for (gpu, finding) in gpus.flat_map(|gpu| gpu.findings.iter().map(move |finding| (gpu, finding))) {
        if !finding.blocking || harmless(&gpu.uuid, &finding.rule) {
            continue;
        }
        if finding.is_about_clocks() {
            clocks.insert(ClockFinding {
                rule: finding.rule.clone(),
                since_ms: finding.since_time.0.as_millisecond(),
            });
        } else {
            rules.insert(finding.rule.clone());
        }
    }
    (rules.into_iter().collect(), clocks.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use crds::gpu_node::{Finding, Gpu, GpuHealth, GpuNodeStatus, HealthOverride};
    use crds::{GpuNode, GpuNodeSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn gpu_node(overrides: Vec<HealthOverride>) -> GpuNode {
        let finding = |rule: &str, blocking| Finding {
            rule: rule.to_owned(),
            blocking,
            message: String::new(),
            since_time: Time(Timestamp::UNIX_EPOCH),
        };
        let mut node = GpuNode::new(
            "n1",
            GpuNodeSpec {
                health_overrides: overrides,
                ..GpuNodeSpec::default()
            },
        );
        node.status = Some(GpuNodeStatus {
            gpus: vec![Gpu {
                uuid: "GPU-1".to_owned(),
                health: GpuHealth::Unhealthy,
                findings: vec![
                    finding("EccUncorrectable", true),
                    finding("HwSlowdown", true),
                    finding("PowerLimited", false),
                ],
                ..Gpu::default()
            }],
            ..GpuNodeStatus::default()
        });
        node
    }

    #[test]
    fn only_blocking_findings_that_nobody_overrode_count() {
        let (rules, clocks) = findings(&gpu_node(Vec::new()), 1_000);
        assert_eq!(rules, ["EccUncorrectable"]);
        let clocks: Vec<(&str, i64)> = clocks.iter().map(|one| (one.rule.as_str(), one.since_ms)).collect();
        assert_eq!(clocks, [("HwSlowdown", 0)]);
        let harmless = |until: Option<i64>| HealthOverride {
            gpu_uuid: "GPU-1".to_owned(),
            rule: "EccUncorrectable".to_owned(),
            reason: "known".to_owned(),
            not_after_time: until.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(Time),
        };
        assert!(findings(&gpu_node(vec![harmless(None)]), 1_000).0.is_empty());
        assert!(findings(&gpu_node(vec![harmless(Some(2_000))]), 1_000).0.is_empty());
        assert_eq!(
            findings(&gpu_node(vec![harmless(Some(500))]), 1_000).0,
            ["EccUncorrectable"]
        );
    }
}
