//! What all children of a deployment share: names, labels, owner; and whether one must be written. Pure.

use std::collections::BTreeMap;

use crds::labels;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use serde::Serialize;

use crate::change::{Change, Notice, Object};
use crate::model_deployment::observed::Observed;
use crate::unchanged::says;

/// The deployment as owner: `kubectl drain` wants a controller, and so do people who ask whose pod this is.
pub fn owner(seen: &Observed) -> OwnerReference {
    OwnerReference {
        api_version: crds::ModelDeployment::api_version(&()).into_owned(),
        block_owner_deletion: None,
        controller: Some(true),
        kind: crds::ModelDeployment::kind(&()).into_owned(),
        name: seen.name().to_owned(),
        uid: seen.uid().to_owned(),
    }
}

/// Labels of everything that belongs to the deployment.
pub fn labels_of(seen: &Observed, role: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::HOST.to_owned(), seen.deployment.spec.host_ref.name.clone()),
        (labels::DEPLOYMENT.to_owned(), seen.name().to_owned()),
        (labels::ROLE.to_owned(), role.to_owned()),
    ])
}

/// Metadata of a child.
pub fn metadata(seen: &Observed, name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(seen.namespace().to_owned()),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(
            labels::INSTALL_ID.to_owned(),
            seen.install.install_id.clone(),
        )])),
        owner_references: Some(vec![owner(seen)]),
        ..ObjectMeta::default()
    }
}

/// Metadata of a slot's Service and slice.
pub fn slot_metadata(seen: &Observed, slot: i32) -> ObjectMeta {
    let mut labels = labels_of(seen, labels::ROLE_SLOT);
    labels.insert(labels::SLOT.to_owned(), slot.to_string());
    labels.insert(labels::PROTECTED.to_owned(), "true".to_owned());
    metadata(seen, &labels::slot_service_name(seen.name(), slot), labels)
}

/// The write of `desired`, unless what was observed says it all already.
pub fn unless_covered<K: Serialize>(observed: Option<&K>, desired: Object) -> Option<Change> {
    let unchanged = observed.is_some_and(|observed| says(observed, &desired.value));
    (!unchanged).then_some(Change::Apply(desired))
}

/// An Event about the deployment.
pub fn notice(seen: &Observed, warning: bool, reason: &str, note: String) -> Change {
    Change::Event(Notice {
        regarding: ObjectReference {
            api_version: Some(crds::ModelDeployment::api_version(&()).into_owned()),
            kind: Some(crds::ModelDeployment::kind(&()).into_owned()),
            name: Some(seen.name().to_owned()),
            namespace: Some(seen.namespace().to_owned()),
            uid: Some(seen.uid().to_owned()),
            ..ObjectReference::default()
        },
        warning,
        reason: reason.to_owned(),
        note,
    })
}
