//! The pod template and its hash. Everything in it rolls out; what may differ between two pods of one revision (machines to
//! avoid, the slot label, the owner: a deployment that is made again is the same to its pods) is added at creation. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::labels;
use crds::model_deployment::{Device, ModelDeploymentSpec, NativeEngine, OverlayVolume, VolumeKind};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::trust;
use crate::change::{Change, Object};
use crate::model_deployment::observed::{Install, Observed};

const USER: i64 = 65_532;
/// Where the token for FleetSignal is, without the file's name.
const SIGNAL_TOKEN: &str = "/var/run/secrets/fleet.gonka.ai/signal";
/// Where the keys are that the operator's token is checked with, and the authorities that vouch for FleetSignal.
const TRUST: &str = "/etc/gonka/trust";
/// Port of the operator door.
pub const OPERATOR_PORT: u16 = 9410;
/// Names of volumes that an overlay may not take.
pub const VOLUMES: [&str; 5] = ["program", "run", "journal", "signal-token", "trust"];
/// Places that an overlay may not cover.
pub const PATHS: [&str; 5] = [
    "/gonka",
    "/run/gonka",
    "/var/lib/gonka",
    "/var/run/secrets",
    "/etc/gonka",
];
/// Environment that an overlay may not set.
pub const ENVIRONMENT: [&str; 4] = ["POD_UID", "POD_NAME", "POD_NAMESPACE", DEPLOYMENT_UID];
/// Environment variable with the UID of the deployment a pod was made for.
pub const DEPLOYMENT_UID: &str = "DEPLOYMENT_UID";

/// Revision of the pods that follow from a snapshot.
pub fn of(seen: &Observed) -> String {
    hash(&template(seen))
}

/// Everything a template is made of.
#[derive(Clone, Debug, PartialEq)]
struct Ingredients {
    install: Install,
    name: ResourceName,
    spec: ModelDeploymentSpec,
    chain_id: Option<String>,
    host_uid: Option<String>,
}

type ResourceName = (String, String);

impl Ingredients {
    fn of(seen: &Observed) -> Self {
        Self {
            install: seen.install.clone(),
            name: (seen.namespace().to_owned(), seen.name().to_owned()),
            spec: seen.deployment.spec.clone(),
            chain_id: seen.schedule.as_ref().map(|schedule| schedule.chain_id.clone()),
            host_uid: host_uid(seen).cloned(),
        }
    }

    /// Nothing a template is made of is another in this snapshot.
    fn are_of(&self, seen: &Observed) -> bool {
        self.install == seen.install
            && (self.name.0.as_str(), self.name.1.as_str()) == (seen.namespace(), seen.name())
            && self.spec == seen.deployment.spec
            && self.chain_id.as_ref() == seen.schedule.as_ref().map(|schedule| &schedule.chain_id)
            && self.host_uid.as_ref() == host_uid(seen)
    }
}

fn host_uid(seen: &Observed) -> Option<&String> {
    seen.host.as_ref()?.metadata.uid.as_ref()
}

/// Revisions that were computed before, by what they follow from: building a template and its hash is most of what a pass costs.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    known: BTreeMap<ResourceName, (Ingredients, String)>,
}

impl Revisions {
    /// Revision of the pods that follow from a snapshot.
    pub fn of(&mut self, seen: &Observed) -> String {
        let key = (seen.namespace().to_owned(), seen.name().to_owned());
        if let Some((_, revision)) = self.known.get(&key).filter(|(from, _)| from.are_of(seen)) {
            return revision.clone();
        }
        let revision = of(seen);
        self.known.insert(key, (Ingredients::of(seen), revision.clone()));
        revision
    }
}

/// First ten hex digits of the template's SHA-256.
pub fn hash(template: &Value) -> String {
    let mut text = String::with_capacity(4096);
    canonical(template, &mut text);
    hex::encode(&Sha256::digest(text.as_bytes())[..5])
}

/// JSON with sorted keys, so that a hash does not depend on how this program was built.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (place, (key, value)) in fields.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                text.push_str(&json!(key).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (place, value) in list.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                canonical(value, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

/// Machines no slot may be placed on; they differ from day to day and are no reason for a rollout.
pub fn avoided(seen: &Observed) -> BTreeSet<&String> {
    let closed = seen
        .machines
        .iter()
        .filter(|(_, machine)| machine.excluded || machine.leaving);
    closed.map(|(name, _)| name).collect()
}

/// The create of one pod.
pub fn create(seen: &Observed, template: &Value, revision: &str) -> Change {
    let mut value = template.clone();
    value["metadata"]["labels"][labels::REVISION] = json!(revision);
    value["metadata"]["labels"][labels::SLOT] = json!(labels::SLOT_SPARE);
    value["metadata"]["ownerReferences"] = json!([super::objects::owner(seen)]);
    set_variable(&mut value["spec"]["containers"][0]["env"], DEPLOYMENT_UID, seen.uid());
    let avoid = avoided(seen);
    if !avoid.is_empty() {
        value["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({
            "nodeSelectorTerms": [{ "matchFields": avoid
                .iter()
                .map(|name| json!({"key": "metadata.name", "operator": "NotIn", "values": [name]}))
                .collect::<Vec<_>>() }]
        });
    }
    Change::Create(Object {
        resource: kube::api::ApiResource::erase::<Pod>(&()),
        namespace: Some(seen.namespace().to_owned()),
        name: String::new(),
        value,
    })
}

/// Sets a variable of a container's environment.
fn set_variable(env: &mut Value, name: &str, value: &str) {
    let Some(variables) = env.as_array_mut() else { return };
    variables.retain(|variable| variable["name"] != name);
    variables.push(json!({"name": name, "value": value}));
}

/// What keeps autoscalers from taking the machine away under the pod: Cluster Autoscaler and Karpenter.
const AUTOSCALERS: [(&str, &str); 2] = [
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
];

/// The template: a whole pod but for name, revision, slot and owner.
pub fn template(seen: &Observed) -> Value {
    let spec = &seen.deployment.spec;
    let overlay = spec.pod_overlay.clone().unwrap_or_default();
    let image = spec.engine.image.as_deref().unwrap_or(&seen.install.slot_image);
    let mut pod_labels = overlay.labels.clone();
    pod_labels.extend(super::objects::labels_of(seen, labels::ROLE_SLOT_POD));
    pod_labels.insert(labels::PROTECTED.to_owned(), "true".to_owned());
    let mut annotations = overlay.annotations.clone();
    annotations.insert(labels::INSTALL_ID.to_owned(), seen.install.install_id.clone());
    annotations.extend(AUTOSCALERS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let mut tolerations = vec![json!({"operator": "Exists", "effect": "NoExecute"})];
    tolerations.extend(overlay.tolerations.iter().map(|toleration| json!(toleration)));
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", seen.name()),
            "namespace": seen.namespace(),
            "labels": pod_labels,
            "annotations": annotations,
        },
        "spec": {
            "serviceAccountName": trust::ACCOUNT,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "tolerations": tolerations,
            "topologySpreadConstraints": [spread(seen)],
            "initContainers": [{
                "name": "install",
                "image": seen.install.slot_image,
                "imagePullPolicy": seen.install.image_pull_policy,
                "command": ["slot", "install", "/gonka"],
                "resources": guaranteed(&small()),
                "securityContext": restricted(),
                "volumeMounts": [{"name": "program", "mountPath": "/gonka"}],
            }],
            "containers": [slot_container(seen, image)],
            "volumes": volumes(&overlay.volumes),
        },
    });
    if !spec.placement.node_selector.is_empty() {
        pod["spec"]["nodeSelector"] = json!(spec.placement.node_selector);
    }
    if !seen.install.priority_class.is_empty() {
        pod["spec"]["priorityClassName"] = json!(seen.install.priority_class);
    }
    pod
}

fn spread(seen: &Observed) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": seen.deployment.spec.placement.failure_domain_key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {
            labels::DEPLOYMENT: seen.name(),
            labels::ROLE: labels::ROLE_SLOT_POD,
        }},
    })
}

fn slot_container(seen: &Observed, image: &str) -> Value {
    let spec = &seen.deployment.spec;
    let overlay = spec.pod_overlay.clone().unwrap_or_default();
    let mut env: Vec<Value> = [
        ("POD_UID", "metadata.uid"),
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
    ]
    .iter()
    .map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}))
    .collect();
    env.extend(
        overlay
            .env
            .iter()
            .map(|variable| json!({"name": variable.name, "value": variable.value})),
    );
    let mut mounts = vec![
        json!({"name": "program", "mountPath": "/gonka", "readOnly": true}),
        json!({"name": "run", "mountPath": "/run/gonka"}),
        json!({"name": "journal", "mountPath": "/var/lib/gonka/journal"}),
        json!({"name": "signal-token", "mountPath": SIGNAL_TOKEN, "readOnly": true}),
        json!({"name": "trust", "mountPath": TRUST, "readOnly": true}),
    ];
    mounts.extend(
        overlay
            .volume_mounts
            .iter()
            .map(|mount| json!({"name": mount.name, "mountPath": mount.mount_path, "readOnly": true})),
    );
    let ports = [
        ("management", 8080),
        ("inference", 5000),
        ("operator", i32::from(OPERATOR_PORT)),
        ("metrics", 9490),
    ];
    json!({
        "name": "slot",
        "image": image,
        "imagePullPolicy": seen.install.image_pull_policy,
        "command": command(seen),
        "env": env,
        "ports": ports
            .iter()
            .map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}))
            .collect::<Vec<_>>(),
        "resources": guaranteed(&requests(seen)),
        "securityContext": restricted(),
        // Tells "the pod is up" from "its container runs"; endpoints are ours and do not follow it.
        "readinessProbe": {
            "tcpSocket": {"port": OPERATOR_PORT}, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2,
        },
        "volumeMounts": mounts,
    })
}

fn command(seen: &Observed) -> Vec<String> {
    let spec = &seen.deployment.spec;
    let native = spec.engine.native.clone().unwrap_or_else(|| NativeEngine {
        scheme: "prefill_v2".to_owned(),
        ..NativeEngine::default()
    });
    let mut command: Vec<String> = ["/gonka/slot", "hold", "--run-dir", "/run/gonka", "--"]
        .iter()
        .map(|word| (*word).to_owned())
        .collect();
    let mut flag = |name: &str, value: String| {
        command.push(format!("--{name}"));
        command.push(value);
    };
    flag("model", spec.model.id.clone());
    flag("weights", weights(seen).unwrap_or_default());
    flag("replicas", spec.replicas_per_slot.to_string());
    flag("scheme", native.scheme.clone());
    flag("device", native.device.to_string());
    flag("dtype", native.dtype.to_string());
    if native.device == Device::Cuda {
        // `slot` links everything statically and can load no driver.
        flag("engine-binary", "/usr/bin/node-agent".to_owned());
    }
    if native.max_nonces_per_second > 0 {
        flag("max-nonces-per-second", native.max_nonces_per_second.to_string());
    }
    if seen.install.callback_interval_seconds > 0 {
        flag(
            "callback-interval",
            format!("{}s", seen.install.callback_interval_seconds),
        );
    }
    if spec.start_stagger_millis > 0 {
        flag("start-stagger", format!("{}ms", spec.start_stagger_millis));
    }
    flag(
        "signal",
        format!(
            "https://{}.{}.svc:9400",
            seen.install.signal_service, seen.install.namespace
        ),
    );
    flag("signal-token", format!("{SIGNAL_TOKEN}/token"));
    flag("signal-ca", format!("{TRUST}/{}", trust::AUTHORITIES));
    flag(
        "chain-id",
        seen.schedule
            .as_ref()
            .map(|schedule| schedule.chain_id.clone())
            .unwrap_or_default(),
    );
    flag("host-uid", host_uid(seen).cloned().unwrap_or_default());
    flag("trust-jwks", format!("{TRUST}/{}", trust::KEYS));
    flag(
        "trust-subject",
        format!("system:serviceaccount:{}:gonka-operator", seen.install.namespace),
    );
    command
}

/// Where a native engine's weights come from: a path in a mounted volume, or a recipe that needs no download.
/// Recipes are `recipe:NAME` in `spec.model.repository`, or ids `gonka-fleet/NAME`; the revision is the weights' tag.
pub fn weights(seen: &Observed) -> Option<String> {
    let model = &seen.deployment.spec.model;
    let source = model.repository.as_deref().unwrap_or(&model.id);
    if source.starts_with('/') {
        return Some(source.to_owned());
    }
    let recipe = source
        .strip_prefix("recipe:")
        .or_else(|| source.strip_prefix("gonka-fleet/"))
        .filter(|name| !name.is_empty() && !name.contains(':'))?;
    let tag = model.revision.as_deref()?;
    Some(format!("recipe:{recipe}:{tag}"))
}

fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

fn small() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("cpu".to_owned(), "100m".to_owned()),
        ("memory".to_owned(), "64Mi".to_owned()),
    ])
}

/// CPU, memory and GPUs of the engine container.
fn requests(seen: &Observed) -> BTreeMap<String, String> {
    let spec = &seen.deployment.spec;
    let mut wanted = BTreeMap::from([
        ("cpu".to_owned(), "500m".to_owned()),
        ("memory".to_owned(), "512Mi".to_owned()),
    ]);
    let overlay = spec.pod_overlay.as_ref().and_then(|overlay| overlay.resources.as_ref());
    let given = overlay.and_then(|resources| resources.limits.as_ref().or(resources.requests.as_ref()));
    for (name, quantity) in given.into_iter().flatten() {
        wanted.insert(name.clone(), quantity.0.clone());
    }
    let gpus = spec.gpus_per_replica * spec.replicas_per_slot;
    if gpus > 0 {
        wanted.insert("nvidia.com/gpu".to_owned(), gpus.to_string());
    }
    wanted
}

/// Requests equal limits: under memory pressure these pods go last.
fn guaranteed(wanted: &BTreeMap<String, String>) -> Value {
    json!({"requests": wanted, "limits": wanted})
}

fn volumes(overlay: &[OverlayVolume]) -> Vec<Value> {
    let mut volumes = vec![
        json!({"name": "program", "emptyDir": {"sizeLimit": "256Mi"}}),
        json!({"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}),
        json!({"name": "journal", "emptyDir": {"sizeLimit": "1Gi"}}),
        json!({"name": "signal-token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": "fleetsignal", "expirationSeconds": 604_800, "path": "token",
        }}]}}),
        json!({"name": "trust", "configMap": {"name": trust::CONFIG_MAP, "optional": true}}),
    ];
    volumes.extend(overlay.iter().map(|volume| {
        let source = volume.source.clone().unwrap_or_default();
        match volume.kind {
            VolumeKind::EmptyDir => match volume.size_mebibytes {
                Some(size) => json!({"name": volume.name, "emptyDir": {"sizeLimit": format!("{size}Mi")}}),
                None => json!({"name": volume.name, "emptyDir": {}}),
            },
            VolumeKind::Image => json!({"name": volume.name, "image": {"reference": source}}),
            VolumeKind::Pvc => {
                json!({"name": volume.name, "persistentVolumeClaim": {"claimName": source, "readOnly": true}})
            }
            VolumeKind::ConfigMap => json!({"name": volume.name, "configMap": {"name": source}}),
        }
    }));
    volumes
}

#[cfg(test)]
mod tests;
