//! The deployment's disruption budget: it never allows an eviction, whatever the number of spares. Pure.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::objects;
use crate::change::{Change, Object};
use crate::model_deployment::observed::Observed;

/// Above any count of pods. `maxUnavailable: 0` would count against the slots and let every spare open the door.
const MIN_AVAILABLE: i32 = 1_000_000;

/// The budget's write, when it is missing or differs.
pub fn change(seen: &Observed) -> Option<Change> {
    let selector = [
        (crds::labels::DEPLOYMENT.to_owned(), seen.name().to_owned()),
        (crds::labels::PROTECTED.to_owned(), "true".to_owned()),
    ];
    let desired = PodDisruptionBudget {
        metadata: objects::metadata(seen, seen.name(), objects::labels_of(seen, crds::labels::ROLE_SLOT_POD)),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(MIN_AVAILABLE)),
            selector: Some(LabelSelector {
                match_labels: Some(selector.into()),
                match_expressions: None,
            }),
            unhealthy_pod_eviction_policy: Some("IfHealthyBudget".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    objects::unless_covered(seen.budget.as_ref(), Object::of(&desired))
}
