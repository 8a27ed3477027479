//! Who may break the glass, and what comes of it; and what happens when the glass itself is taken out.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::labels::BREAK_GLASS;
use e2e::fleet::{objects, until};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::{Value, json};

use crate::world::World;

fn role(name: &str, rules: &Value) -> [Value; 2] {
    [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": "gonka"}, "rules": rules}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "gonka"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]}),
    ]
}

/// Rights over Services do not suffice, the verb does; it is told of, and after a minute mended.
pub async fn a_glass_is_broken_by_those_who_may_and_mended(world: &World<'_>) -> Result<()> {
    let everything = json!({"apiGroups": [""], "resources": ["services"], "verbs": ["*"]});
    let verb = json!({"apiGroups": ["fleet.gonka.ai"], "resources": ["disruptions"], "verbs": ["breakglass"]});
    let mut all = role("tired", &json!([everything])).to_vec();
    all.extend(role("trusted", &json!([everything, verb])));
    objects::apply(world.cluster, &all).await?;
    let annotate = |who: &'static str, value: &'static str| {
        vec![
            "-n",
            "gonka",
            "annotate",
            "service",
            "slot-tiny-1",
            value,
            "--as",
            who,
            "--overwrite",
        ]
    };
    let why = "fleet.gonka.ai/break-glass=to see that it mends";
    world
        .refused(&annotate("tired", why), "needs the verb breakglass")
        .await?;
    world.cluster.kubectl(&annotate("trusted", why)).await?;
    world.event("gonka", "GlassBroken", "slot-tiny-1").await?;
    let services: Api<Service> = Api::namespaced(world.client.clone(), "gonka");
    until("the glass to be mended", Duration::from_secs(100), async || {
        let service = services.get("slot-tiny-1").await?;
        Ok(match service.annotations().get(BREAK_GLASS) {
            None => Ok(()),
            Some(reason) => Err(format!("it is broken: {reason}")),
        })
    })
    .await?;
    world.event("gonka", "GlassMended", "slot-tiny-1").await?;
    let delete = ["-n", "gonka", "delete", "service", "slot-tiny-1", "--as", "trusted"];
    world.refused(&delete, "denied").await?;
    world.say("a glass was broken by one who may, told of, and mended");
    Ok(())
}

/// An administrator can remove a policy: nothing can deny that, so it is told.
pub async fn a_policy_that_is_removed_is_an_alarm(world: &World<'_>) -> Result<()> {
    let binding = ["validatingadmissionpolicybinding", "gonka-fleet-marks", "-o", "json"];
    let kept = world.cluster.kubectl(&[&["get"][..], &binding].concat()).await?;
    world.cluster.kubectl(&["delete", binding[0], binding[1]]).await?;
    world.event("default", "ProtectionRemoved", "gonka-fleet-marks").await?;
    let mut kept: Value = serde_json::from_str(&kept).context("a binding is JSON")?;
    let metadata = kept["metadata"].as_object_mut().context("no metadata")?;
    metadata.retain(|key, _| matches!(key.as_str(), "name" | "labels" | "annotations"));
    objects::apply(world.cluster, &[kept]).await?;
    ensure!(!world.slot_pods().await?.is_empty(), "no slot pods");
    world.say("a removed policy was told of");
    Ok(())
}
