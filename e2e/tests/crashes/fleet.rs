//! The objects of one story, and taking everything away after it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, SprintSchedule};
use e2e::fleet::{objects, until};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::world::World;

pub const SLOTS: i32 = 2;
pub const SPARES: i32 = 1;
pub const DEPLOYMENT: &str = "tiny";
pub const HOST: &str = "ours";

/// The example's three objects as these stories need them.
pub fn wanted(world: &World<'_>) -> Result<Vec<Value>> {
    let mut all = objects::example(world.cluster)?;
    let host = objects::of_kind(&mut all, "GonkaHost")?;
    host["spec"]["networkNode"]["external"]["adminURL"] = json!(world.dapi);
    let deployment = objects::of_kind(&mut all, "ModelDeployment")?;
    deployment["spec"]["slots"] = json!(SLOTS);
    deployment["spec"]["spares"] = json!(SPARES);
    // No exam comes by that a canary could wait for.
    deployment["spec"]["rollout"] = json!({"canarySlots": 0});
    deployment["spec"]["engine"]["native"]["maxNoncesPerSecond"] = json!(5);
    // No agent tells of GPUs here.
    deployment["spec"]["gpusPerReplica"] = json!(0);
    Ok(all)
}

/// Makes them.
pub async fn make(world: &World<'_>) -> Result<()> {
    for object in wanted(world)? {
        apply(world, &object).await?;
    }
    Ok(())
}

/// Makes one.
pub async fn apply(world: &World<'_>, object: &Value) -> Result<()> {
    let parameters = PatchParams::apply("crashes").force();
    let patch = Patch::Apply(object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let made = match object["kind"].as_str() {
        Some("SprintSchedule") => Api::<SprintSchedule>::all(world.client.clone())
            .patch(name, &parameters, &patch)
            .await
            .map(drop),
        Some("GonkaHost") => ours::<GonkaHost>(&world.client)
            .patch(name, &parameters, &patch)
            .await
            .map(drop),
        _ => ours::<ModelDeployment>(&world.client)
            .patch(name, &parameters, &patch)
            .await
            .map(drop),
    };
    made.with_context(|| format!("{name} was not made"))
}

/// A kind in the host's namespace.
pub fn ours<K>(client: &Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), "gonka")
}

/// Wants another number of spares: a person does, the operator's own name may write no spec.
pub async fn set_spares(world: &World<'_>, count: i32) -> Result<()> {
    let patch = json!({"spec": {"spares": count}});
    ours::<ModelDeployment>(&world.cluster.client().await?)
        .patch(DEPLOYMENT, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
        .context("spares were not changed")
}

/// How many slot pods there are.
pub async fn pods(world: &World<'_>) -> Result<usize> {
    let selector = format!("{}={}", crds::labels::ROLE, crds::labels::ROLE_SLOT_POD);
    let found = ours::<Pod>(&world.client)
        .list(&ListParams::default().labels(&selector))
        .await?;
    Ok(found.items.len())
}

/// Waits until there are so many slot pods.
pub async fn until_pods(world: &World<'_>, wanted: usize) -> Result<()> {
    until(&format!("{wanted} pods"), Duration::from_secs(20), async || {
        let count = pods(world).await?;
        Ok(if count == wanted {
            Ok(())
        } else {
            Err(format!("there are {count}"))
        })
    })
    .await
}

/// Takes everything away that a story left, and makes DAPI forget its nodes. The operator must not run.
pub async fn clear(world: &World<'_>) -> Result<()> {
    let client = &world.client;
    let role = |role: &str| format!("{}={role}", crds::labels::ROLE);
    let (of_pods, of_slots) = (role(crds::labels::ROLE_SLOT_POD), role(crds::labels::ROLE_SLOT));
    let (keys, account) = (ours::<ConfigMap>(client), ours::<ServiceAccount>(client));
    let certificates = Api::<Secret>::namespaced(client.clone(), "gonka-system");
    tokio::try_join!(
        delete(Api::<Lease>::namespaced(client.clone(), "gonka-system"), ""),
        delete(ours::<ModelDeployment>(client), ""),
        delete(ours::<GonkaHost>(client), ""),
        delete(Api::<SprintSchedule>::all(client.clone()), ""),
        delete(ours::<SprintRun>(client), ""),
        delete(Api::<GpuNode>::all(client.clone()), ""),
        delete(Api::<DaemonSet>::namespaced(client.clone(), "gonka-system"), ""),
        delete(ours::<Pod>(client), &of_pods),
        delete(ours::<PodDisruptionBudget>(client), &of_pods),
        delete(ours::<Service>(client), &of_slots),
        delete(ours::<EndpointSlice>(client), &of_slots),
        delete_named(&keys, "slot-trust"),
        delete_named(&certificates, "gonka-fleet-signal-tls"),
        delete_named(&account, "gonka-slot"),
    )?;
    world
        .control
        .fault(&json!({"verb": "loseDatabase", "target": "dapi"}))
        .await
}

async fn delete<K>(api: Api<K>, selector: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let parameters = ListParams::default().labels(selector);
    let kind = K::plural(&()).into_owned();
    until(&format!("no {kind}"), Duration::from_secs(20), async || {
        let all = api.list(&parameters).await.with_context(|| kind.clone())?.items;
        for object in &all {
            delete_named(&api, &object.name_any()).await?;
        }
        Ok(if all.is_empty() {
            Ok(())
        } else {
            Err(format!("there are {}", all.len()))
        })
    })
    .await
}

async fn delete_named<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::background().grace_period(0)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{name} was not deleted")),
    }
}
