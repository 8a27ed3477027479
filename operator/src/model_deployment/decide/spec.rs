//! What the schema cannot say: every reason why a spec is not acted upon. Pure.

use std::collections::BTreeSet;

use crds::conditions::Reason;
use crds::model_deployment::{Device, Dtype, EngineKind, ExposureKind, PodOverlay};

use super::revision;
use crate::model_deployment::observed::Observed;

/// One reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// `InvalidSpec` or `MissingReference`.
    pub reason: Reason,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Every reason; empty when the spec can be acted upon.
pub fn problems(seen: &Observed) -> Vec<Problem> {
    let mut invalid = Vec::new();
    name(seen, &mut invalid);
    engine(seen, &mut invalid);
    exposure(seen, &mut invalid);
    adopted(seen, &mut invalid);
    if let Some(overlay) = &seen.deployment.spec.pod_overlay {
        marks(overlay, &mut invalid);
        resources(overlay, &mut invalid);
        environment(overlay, &mut invalid);
        volumes(overlay, &mut invalid);
    }
    let mut problems: Vec<Problem> = invalid
        .into_iter()
        .map(|message| Problem {
            reason: Reason::InvalidSpec,
            message,
        })
        .collect();
    problems.extend(references(seen));
    problems
}

fn references(seen: &Observed) -> Option<Problem> {
    let missing = |message: String| Problem {
        reason: Reason::MissingReference,
        message,
    };
    match (&seen.host, &seen.schedule) {
        (None, _) => Some(missing(format!(
            "spec.hostRef: there is no GonkaHost {} in namespace {}",
            seen.deployment.spec.host_ref.name,
            seen.namespace()
        ))),
        (Some(host), None) => Some(missing(format!(
            "GonkaHost {} names SprintSchedule {}, which does not exist",
            seen.deployment.spec.host_ref.name, host.spec.schedule_name
        ))),
        (Some(_), Some(_)) => None,
    }
}

fn name(seen: &Observed, problems: &mut Vec<String>) {
    let longest = crds::labels::slot_service_name(seen.name(), 511);
    if longest.len() > 63 || seen.name().contains('.') {
        problems.push(format!(
            "metadata.name: {} is a part of Service names, so it may have no dot and at most 54 characters",
            seen.name()
        ));
    }
}

fn engine(seen: &Observed, problems: &mut Vec<String>) {
    let spec = &seen.deployment.spec;
    if spec.engine.kind != EngineKind::Native {
        problems.push(format!(
            "spec.engine.type: {} comes later, this version runs Native",
            serde_json::to_value(spec.engine.kind)
                .ok()
                .and_then(|kind| kind.as_str().map(str::to_owned))
                .unwrap_or_default()
        ));
        return;
    }
    let Some(native) = &spec.engine.native else {
        problems.push("spec.engine.native: must be set with type Native".to_owned());
        return;
    };
    if native.scheme != "prefill_v2" {
        problems.push(format!(
            "spec.engine.native.scheme: {} is not known, this version knows prefill_v2",
            native.scheme
        ));
    }
    if native.device == Device::Cuda {
        if spec.gpus_per_replica != 1 {
            problems.push("spec.gpusPerReplica: device CUDA needs 1 for each replica, no fewer and no more".to_owned());
        }
        if native.dtype != Dtype::Bf16 {
            problems.push("spec.engine.native.dtype: device CUDA computes in BF16".to_owned());
        }
    }
    if revision::weights(seen).is_none() {
        problems.push(
            "spec.model: a Native engine downloads nothing: set repository to a path in a mounted volume, or to recipe:NAME with the weights' tag as revision"
                .to_owned(),
        );
    }
}

fn exposure(seen: &Observed, problems: &mut Vec<String>) {
    let kind = seen.deployment.spec.exposure.kind;
    if kind != ExposureKind::ClusterIp {
        problems.push(format!(
            "spec.exposure.type: {kind} comes later, this version exposes ClusterIP"
        ));
    }
}

fn adopted(seen: &Observed, problems: &mut Vec<String>) {
    let mut known = BTreeSet::new();
    for id in &seen.deployment.spec.adopt_nodes {
        if id.is_empty() || !known.insert(id) {
            problems.push(format!("spec.adoptNodes: {id:?} is empty or there twice"));
        }
    }
}

fn marks(overlay: &PodOverlay, problems: &mut Vec<String>) {
    let prefix = format!("{}/", crds::GROUP);
    for (field, keys) in [
        ("labels", overlay.labels.keys()),
        ("annotations", overlay.annotations.keys()),
    ] {
        for key in keys.filter(|key| key.starts_with(&prefix)) {
            problems.push(format!("spec.podOverlay.{field}: {key} is the operator's own"));
        }
    }
}

fn resources(overlay: &PodOverlay, problems: &mut Vec<String>) {
    let Some(resources) = &overlay.resources else { return };
    let (requests, limits) = (
        resources.requests.clone().unwrap_or_default(),
        resources.limits.clone().unwrap_or_default(),
    );
    let names: BTreeSet<&String> = requests.keys().chain(limits.keys()).collect();
    for name in names {
        if name != "cpu" && name != "memory" && name != "ephemeral-storage" {
            problems.push(format!(
                "spec.podOverlay.resources: {name} cannot be set here; GPUs follow from gpusPerReplica"
            ));
            continue;
        }
        match (requests.get(name), limits.get(name)) {
            (Some(request), Some(limit)) if request != limit => problems.push(format!(
                "spec.podOverlay.resources: limits.{name} ({}) must equal requests.{name} ({})",
                limit.0, request.0
            )),
            _ => {}
        }
    }
    if resources.claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        problems.push("spec.podOverlay.resources: claims come later".to_owned());
    }
}

fn environment(overlay: &PodOverlay, problems: &mut Vec<String>) {
    for variable in &overlay.env {
        if revision::ENVIRONMENT.contains(&variable.name.as_str()) {
            problems.push(format!("spec.podOverlay.env: {} is the operator's own", variable.name));
        }
    }
}

fn volumes(overlay: &PodOverlay, problems: &mut Vec<String>) {
    for volume in &overlay.volumes {
        if revision::VOLUMES.contains(&volume.name.as_str()) {
            problems.push(format!(
                "spec.podOverlay.volumes: {} is the operator's own",
                volume.name
            ));
        }
    }
    for mount in &overlay.volume_mounts {
        if !overlay.volumes.iter().any(|volume| volume.name == mount.name) {
            problems.push(format!(
                "spec.podOverlay.volumeMounts: there is no volume {}",
                mount.name
            ));
        }
        let covered = revision::PATHS
            .iter()
            .find(|path| mount.mount_path == **path || mount.mount_path.starts_with(&format!("{path}/")));
        if let Some(path) = covered {
            problems.push(format!(
                "spec.podOverlay.volumeMounts: {} lies in {path}, which is the operator's own",
                mount.mount_path
            ));
        }
    }
}
