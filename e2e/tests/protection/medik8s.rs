//! medik8s' NodeHealthCheck, as its operator installs it: it remediates machines that it finds unhealthy, unless somebody asks it to
//! pause. Only the kind is here; the wish to pause is all that is ours.

use std::time::Duration;

use anyhow::Result;
use e2e::fleet::{objects, until};
use kube::api::{Api, ApiResource, DynamicObject};
use serde_json::json;

use crate::world::World;

/// What somebody else asked for, and must find again.
const ANOTHERS: &str = "a storage upgrade";
const NAME: &str = "gpus";
/// The operator lists these once a minute.
const LOOKED: Duration = Duration::from_secs(90);

/// Installs the kind, and one check that looks after `machine`.
pub async fn looks_after(world: &World<'_>, machine: &str) -> Result<()> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let kind = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "nodehealthchecks.remediation.medik8s.io"},
        "spec": {
            "group": "remediation.medik8s.io", "scope": "Cluster",
            "names": {"kind": "NodeHealthCheck", "listKind": "NodeHealthCheckList",
                "plural": "nodehealthchecks", "singular": "nodehealthcheck"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    objects::apply(world.cluster, &[kind]).await?;
    let check = json!({
        "apiVersion": "remediation.medik8s.io/v1alpha1", "kind": "NodeHealthCheck", "metadata": {"name": NAME},
        "spec": {
            "selector": {"matchLabels": {"kubernetes.io/hostname": machine}},
            "minHealthy": "51%", "pauseRequests": [ANOTHERS],
        },
    });
    until(
        "the API server to serve the kind",
        Duration::from_secs(30),
        async || {
            let applied = objects::apply(world.cluster, std::slice::from_ref(&check)).await;
            Ok(applied.map_err(|error| format!("{error:#}")))
        },
    )
    .await
}

/// Waits until it is paused, or not any more, by us; what somebody else asked for stays.
pub async fn is_paused(world: &World<'_>, paused: bool) -> Result<()> {
    let kind = ApiResource {
        group: "remediation.medik8s.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "remediation.medik8s.io/v1alpha1".to_owned(),
        kind: "NodeHealthCheck".to_owned(),
        plural: "nodehealthchecks".to_owned(),
    };
    let checks: Api<DynamicObject> = Api::all_with(world.client.clone(), &kind);
    let what = if paused {
        "a paused NodeHealthCheck"
    } else {
        "one that goes on"
    };
    until(what, LOOKED, async || {
        let requests = &checks.get(NAME).await?.data["spec"]["pauseRequests"];
        let all: Vec<&str> = requests
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one.as_str())
            .collect();
        let ours = all.iter().any(|request| *request != ANOTHERS);
        Ok(if all.contains(&ANOTHERS) && ours == paused {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        })
    })
    .await
}
