//! A slot's stable address: a Service without selector. DAPI knows it for ever, so it is never deleted while the
//! deployment lives. Pure.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::objects;
use crate::change::{Change, Object};
use crate::model_deployment::observed::Observed;

/// Ports of the chain door: name, number.
pub const CHAIN_DOOR: [(&str, i32); 2] = [("management", 8080), ("inference", 5000)];

/// Services that are missing or differ.
pub fn changes(seen: &Observed, slots: impl Iterator<Item = i32>) -> Vec<Change> {
    slots
        .filter_map(|slot| {
            let desired = service(seen, slot);
            let name = desired.metadata.name.as_deref().unwrap_or_default();
            let observed = seen.services.get(name);
            if observed.is_some_and(|observed| is_the_same(observed, &desired)) {
                return None;
            }
            objects::unless_covered(observed, Object::of(&desired))
        })
        .collect()
}

/// It says what is desired to the letter, as almost always: nothing has to be serialised to see that it is covered.
fn is_the_same(observed: &Service, desired: &Service) -> bool {
    let (Some(have), Some(want)) = (&observed.spec, &desired.spec) else {
        return false;
    };
    let wanted = ServiceSpec {
        type_: want.type_.clone(),
        ports: want.ports.clone(),
        ..ServiceSpec::default()
    };
    *want == wanted
        && have.type_ == want.type_
        && have.ports == want.ports
        && objects::is_same_metadata(&observed.metadata, &desired.metadata)
}

/// Address of a slot's Service; absent until it has one.
pub fn address(seen: &Observed, slot: i32) -> Option<String> {
    seen.services
        .get(&crds::labels::slot_service_name(seen.name(), slot))?
        .spec
        .as_ref()?
        .cluster_ip
        .clone()
        .filter(|address| !address.is_empty() && address != "None")
}

fn service(seen: &Observed, slot: i32) -> Service {
    let ports = CHAIN_DOOR
        .iter()
        .map(|(name, port)| ServicePort {
            name: Some((*name).to_owned()),
            port: *port,
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::Int(*port)),
            ..ServicePort::default()
        })
        .collect();
    Service {
        metadata: objects::slot_metadata(seen, slot),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
