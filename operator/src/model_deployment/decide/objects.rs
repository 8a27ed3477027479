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

/// Metadata says what is desired to the letter, beside what others set. False: not to the letter, or something is desired that
/// this does not look at.
pub fn is_same_metadata(observed: &ObjectMeta, desired: &ObjectMeta) -> bool {
    let ObjectMeta {
        annotations,
        labels,
        name,
        namespace,
        owner_references,
        creation_timestamp: None,
        deletion_grace_period_seconds: None,
        deletion_timestamp: None,
        finalizers: None,
        generate_name: None,
        generation: None,
        managed_fields: None,
        resource_version: None,
        self_link: None,
        uid: None,
    } = desired
    else {
        return false;
    };
    observed.name == *name
        && observed.namespace == *namespace
        && observed.owner_references == *owner_references
        && has(observed.labels.as_ref(), labels.as_ref())
        && has(observed.annotations.as_ref(), annotations.as_ref())
}

fn has(observed: Option<&BTreeMap<String, String>>, desired: Option<&BTreeMap<String, String>>) -> bool {
    let mut wanted = desired.into_iter().flatten();
    wanted.all(|(key, want)| observed.and_then(|observed| observed.get(key)) == Some(want))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn ours() -> ObjectMeta {
        ObjectMeta {
            name: Some("slot-tiny-0".to_owned()),
            namespace: Some("gonka".to_owned()),
            labels: Some(map(&[("a", "1")])),
            annotations: Some(map(&[("g", "7")])),
            owner_references: Some(vec![OwnerReference {
                uid: "d".to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn metadata_is_the_same_whatever_others_add_and_another_when_anything_of_ours_is() {
        let theirs = ObjectMeta {
            uid: Some("u".to_owned()),
            resource_version: Some("5".to_owned()),
            labels: Some(map(&[("a", "1"), ("theirs", "x")])),
            annotations: Some(map(&[("g", "7"), ("theirs", "x")])),
            ..ours()
        };
        assert!(is_same_metadata(&theirs, &ours()));
        let changes: [fn(&mut ObjectMeta); 7] = [
            |meta| meta.name = None,
            |meta| meta.namespace = Some("other".to_owned()),
            |meta| meta.labels = Some(map(&[("a", "2")])),
            |meta| meta.labels = None,
            |meta| meta.annotations = Some(map(&[("theirs", "x")])),
            |meta| meta.owner_references = None,
            |meta| {
                meta.owner_references
                    .iter_mut()
                    .flatten()
                    .for_each(|owner| owner.uid = "e".to_owned());
            },
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut observed = theirs.clone();
            change(&mut observed);
            assert!(!is_same_metadata(&observed, &ours()), "change {place}");
        }
        let more = ObjectMeta {
            finalizers: Some(vec!["f".to_owned()]),
            ..ours()
        };
        assert!(
            !is_same_metadata(&theirs, &more),
            "what is not looked at is asked of the JSON"
        );
    }
}
