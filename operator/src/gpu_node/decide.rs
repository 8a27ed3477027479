//! Box 3: which GpuNodes are missing, and whether the agent is as the chart says. Pure.

use crds::GpuNode;
use crds::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::observe::Observed;
use crate::change::{Change, Object};
use crate::unchanged::covers;

/// Writes that are due: a GpuNode for each machine that has none, and the agent where it differs from its template.
pub fn decide(observed: &Observed) -> Vec<Change> {
    let missing = observed
        .gpu_nodes
        .difference(&observed.known)
        .map(|name| Change::Apply(gpu_node(name)));
    missing.chain(agent(observed)).collect()
}

/// Metadata alone: the spec belongs to people, and an apply that named its fields would take them over.
fn gpu_node(name: &str) -> Object {
    let object = GpuNode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(labels::PROTECTED.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: crds::GpuNodeSpec::default(),
        status: None,
    };
    let mut object = Object::of(&object);
    object.value["spec"] = json!({});
    object
}

fn agent(observed: &Observed) -> Option<Change> {
    let mut desired = Object::of(observed.agent_template.as_ref()?);
    if let Some(status) = desired.value.as_object_mut() {
        status.remove("status");
    }
    let present = observed
        .agent
        .as_ref()
        .and_then(|agent| serde_json::to_value(agent).ok())
        .unwrap_or(Value::Null);
    (!covers(&present, &without_type(&desired.value))).then_some(Change::Apply(desired))
}

/// Objects read through a typed API carry no `apiVersion` and `kind`.
fn without_type(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    value
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;

    use super::*;

    fn named(names: &[&str]) -> std::collections::BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn daemon_set(image: &str) -> DaemonSet {
        serde_yaml::from_str(&format!(
            "metadata: {{name: gonka-agent, namespace: gonka-system}}\nspec: {{selector: {{}}, template: {{spec: {{containers: [{{name: agent, image: {image}}}]}}}}}}"
        ))
        .expect("a DaemonSet")
    }

    #[test]
    fn makes_an_object_for_each_new_machine_and_never_deletes() {
        let observed = Observed {
            gpu_nodes: named(&["n1", "n2"]),
            known: named(&["n2", "gone"]),
            ..Observed::default()
        };
        let changes = decide(&observed);
        assert_eq!(changes.len(), 1);
        assert!(
            matches!(&changes[0], Change::Apply(object) if object.name == "n1" && object.value["spec"] == json!({}))
        );
    }

    #[test]
    fn an_empty_list_of_machines_changes_nothing() {
        assert!(
            decide(&Observed {
                known: named(&["n1"]),
                ..Observed::default()
            })
            .is_empty()
        );
    }

    #[test]
    fn writes_the_agent_only_where_it_differs() {
        let observed = |present| Observed {
            agent_template: Some(daemon_set("a:1")),
            agent: present,
            ..Observed::default()
        };
        assert_eq!(decide(&observed(None)).len(), 1);
        assert_eq!(decide(&observed(Some(daemon_set("a:0")))).len(), 1);
        assert!(decide(&observed(Some(daemon_set("a:1")))).is_empty());
    }
}
