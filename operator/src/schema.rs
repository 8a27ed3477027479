//! Whether the installed CRDs have every field this version writes. A pruned schema drops fields silently; the operator refuses to work on one.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::Api;
use serde_json::Value;

/// Reads the installed CRDs and lists what they lack; empty when they are as new as this operator.
pub async fn missing(client: &Client) -> Result<Vec<String>, kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut missing = Vec::new();
    for wanted in crds::all_crds() {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        match api.get_opt(&name).await? {
            None => missing.push(format!("CRD {name} is not installed")),
            Some(installed) => missing.extend(lacking(&name, &wanted, &installed)),
        }
    }
    Ok(missing)
}

/// Fields of `wanted` that `installed` would prune, as `CRD name lacks path`.
fn lacking(name: &str, wanted: &CustomResourceDefinition, installed: &CustomResourceDefinition) -> Vec<String> {
    let mut paths = Vec::new();
    collect(&schema(wanted), &schema(installed), "", &mut paths);
    paths
        .into_iter()
        .map(|path| format!("CRD {name} lacks {path}"))
        .collect()
}

fn schema(crd: &CustomResourceDefinition) -> Value {
    let version = crd.spec.versions.iter().find(|version| version.name == crds::VERSION);
    let schema = version
        .and_then(|version| version.schema.as_ref())
        .and_then(|schema| schema.open_api_v3_schema.as_ref());
    schema
        .and_then(|schema| serde_json::to_value(schema).ok())
        .unwrap_or(Value::Null)
}

fn collect(wanted: &Value, installed: &Value, path: &str, paths: &mut Vec<String>) {
    for (name, field) in wanted["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match installed["properties"].get(name) {
            None if installed["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => paths.push(path),
            Some(present) => collect(field, present, &path, paths),
        }
    }
    if wanted.get("items").is_some() {
        collect(&wanted["items"], &installed["items"], &format!("{path}[]"), paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(properties: &str) -> CustomResourceDefinition {
        serde_json::from_str(&format!(
            r#"{{"metadata": {{"name": "x"}}, "spec": {{"group": "g", "scope": "Cluster", "names": {{"kind": "X", "plural": "xs"}},
               "versions": [{{"name": "v1alpha1", "served": true, "storage": true, "schema": {{"openAPIV3Schema": {{"type": "object", "properties": {properties}}}}}}}]}}}}"#
        ))
        .expect("a CRD")
    }

    #[test]
    fn names_each_field_that_would_be_pruned() {
        let wanted = crd(r#"{"status": {"type": "object", "properties": {"a": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": "string"}}}}}}}"#);
        let installed = crd(r#"{"status": {"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}}}}}"#);
        assert_eq!(
            lacking("x", &wanted, &installed),
            ["CRD x lacks status.a", "CRD x lacks status.list[].c"]
        );
    }

    #[test]
    fn an_equal_or_newer_schema_lacks_nothing() {
        for crd in crds::all_crds() {
            assert!(lacking("x", &crd, &crd).is_empty());
        }
        let wanted = crd(r#"{"spec": {"type": "object"}}"#);
        let newer = crd(r#"{"spec": {"type": "object", "properties": {"new": {"type": "string"}}}}"#);
        assert!(lacking("x", &wanted, &newer).is_empty());
    }
}
