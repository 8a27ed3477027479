//! A slot's assignment: one EndpointSlice with at most one endpoint, which names the pod, its UID and the generation.
//! One write moves the slot. Pure.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use super::objects;
use super::services::CHAIN_DOOR;
use super::world::{ASSIGNED, Assignment, World};
use crate::change::{Change, Object};
use crate::model_deployment::observed::Observed;

/// The slice's write, when it differs from `assignment`.
pub fn change(world: &World<'_>, slot: i32, assignment: &Assignment) -> Option<Change> {
    let desired = slice(world, slot, assignment);
    let name = desired.metadata.name.as_deref().unwrap_or_default();
    let observed = world.seen.slices.get(name);
    if observed.is_some_and(|observed| is_the_same(observed, &desired)) {
        return None;
    }
    objects::unless_covered(observed, Object::of(&desired))
}

/// It says what is desired to the letter, as almost always: nothing has to be serialised to see that it is covered.
fn is_the_same(observed: &EndpointSlice, desired: &EndpointSlice) -> bool {
    observed.address_type == desired.address_type
        && observed.endpoints == desired.endpoints
        && observed.ports == desired.ports
        && objects::is_same_metadata(&observed.metadata, &desired.metadata)
}

fn slice(world: &World<'_>, slot: i32, assignment: &Assignment) -> EndpointSlice {
    let seen: &Observed = world.seen;
    let mut metadata = objects::slot_metadata(seen, slot);
    let name = metadata.name.clone().unwrap_or_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.insert("kubernetes.io/service-name".to_owned(), name);
    labels.insert(
        "endpointslice.kubernetes.io/managed-by".to_owned(),
        crds::labels::SLICE_MANAGED_BY.to_owned(),
    );
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(crds::labels::GENERATION.to_owned(), assignment.generation.to_string());
    annotations.insert(ASSIGNED.to_owned(), assignment.assigned_ms.to_string());
    let ports = CHAIN_DOOR
        .iter()
        .map(|(name, port)| EndpointPort {
            name: Some((*name).to_owned()),
            port: Some(*port),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        })
        .collect();
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: endpoint(world, assignment).into_iter().collect(),
        metadata,
        ports: Some(ports),
    }
}

/// The endpoint: the pod's address as it is now, which is not always the one it had.
fn endpoint(world: &World<'_>, assignment: &Assignment) -> Option<Endpoint> {
    let holder = assignment.holder.as_ref()?;
    let pod = world.pod_of(holder).filter(|pod| !pod.address.is_empty())?;
    Some(Endpoint {
        addresses: vec![pod.address.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            ..EndpointConditions::default()
        }),
        node_name: (!pod.node_name.is_empty()).then(|| pod.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(holder.name.clone()),
            namespace: Some(world.seen.namespace().to_owned()),
            uid: Some(holder.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}
