//! Box 2: objects with a broken glass, policies that are bound, pods that somebody tried to take away. Reads only.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::labels::{DEPLOYMENT, PROTECTED};
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintSchedule};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::decide::{Broken, Mark, Seal, Target};
use crate::model_deployment::observe::Stores;

/// Everything that is watched anyway and may be set aside or marked, in any order.
#[derive(Debug, Default)]
pub struct Lists {
    /// Slot pods.
    pub pods: Vec<Arc<Pod>>,
    /// Slots' addresses.
    pub services: Vec<Arc<Service>>,
    /// Machines as Kubernetes sees them.
    pub nodes: Vec<Arc<Node>>,
    /// Machines as their agents see them.
    pub gpu_nodes: Vec<Arc<GpuNode>>,
    /// Deployments.
    pub deployments: Vec<Arc<ModelDeployment>>,
    /// Hosts.
    pub hosts: Vec<Arc<GonkaHost>>,
    /// Schedules.
    pub schedules: Vec<Arc<SprintSchedule>>,
}

impl Lists {
    /// What the watch stores hold now.
    pub fn of(stores: &Stores) -> Self {
        Self {
            pods: stores.pods.state(),
            services: stores.services.state(),
            nodes: stores.nodes.state(),
            gpu_nodes: stores.gpu_nodes.state(),
            deployments: stores.deployments.state(),
            hosts: stores.hosts.state(),
            schedules: stores.schedules.state(),
        }
    }
}

/// What was set aside on it.
pub fn watched(lists: &Lists) -> Vec<Broken> {
    let mut broken = Vec::new();
    let glass = Seal::Glass;
    broken.extend(all(&lists.pods, glass));
    broken.extend(all(&lists.services, glass));
    broken.extend(all(&lists.nodes, glass));
    broken.extend(all(&lists.gpu_nodes, glass));
    broken.extend(all(&lists.deployments, glass));
    broken.extend(all(&lists.hosts, glass));
    broken.extend(all(&lists.schedules, glass));
    broken.extend(all(&lists.hosts, Seal::Breaker));
    broken
}

fn all<K: Resource<DynamicType = ()>>(objects: &[Arc<K>], seal: Seal) -> impl Iterator<Item = Broken> {
    let read = move |object: &Arc<K>| read::<K>(object.meta(), seal);
    objects.iter().filter_map(read)
}

/// How many slot pods nobody looks after: their deployment is gone, and nobody made it again.
pub fn unattended(lists: &Lists) -> usize {
    let key = |namespace: Option<String>, name: String| (namespace.unwrap_or_default(), name);
    let known = lists.deployments.iter();
    let known: BTreeSet<(String, String)> = known.map(|all| key(all.namespace(), all.name_any())).collect();
    let named = |pod: &Arc<Pod>| Some(key(pod.namespace(), pod.labels().get(DEPLOYMENT)?.clone()));
    let pods = lists
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    pods.filter_map(named).filter(|named| !known.contains(named)).count()
}

/// Objects of people whose mark is not as it should be.
pub fn marks(lists: &Lists) -> Vec<Mark> {
    let carrying: BTreeSet<(String, String)> = lists
        .pods
        .iter()
        .filter_map(|pod| Some((pod.namespace()?, pod.labels().get(DEPLOYMENT)?.clone())))
        .collect();
    let key = |namespace: Option<String>, name: &str| (namespace.unwrap_or_default(), name.to_owned());
    let (mut marks, mut hosts, mut schedules) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for deployment in &lists.deployments {
        let carries = carrying.contains(&key(deployment.namespace(), &deployment.name_any()));
        if carries {
            hosts.insert(key(deployment.namespace(), &deployment.spec.host_ref.name));
        }
        marks.extend(mark(deployment.as_ref(), carries));
    }
    for host in &lists.hosts {
        let carries = hosts.contains(&key(host.namespace(), &host.name_any()));
        if carries {
            schedules.insert(host.spec.schedule_name.clone());
        }
        marks.extend(mark(host.as_ref(), carries));
    }
    for schedule in &lists.schedules {
        marks.extend(mark(schedule.as_ref(), schedules.contains(&schedule.name_any())));
    }
    marks
}

fn mark<K: Resource<DynamicType = ()>>(object: &K, carries: bool) -> Option<Mark> {
    let metadata = object.meta();
    let marked = object.labels().get(PROTECTED).is_some_and(|mark| mark == "true");
    (marked != carries && metadata.deletion_timestamp.is_none()).then(|| Mark {
        resource: ApiResource::erase::<K>(&()),
        namespace: metadata.namespace.clone(),
        name: object.name_any(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        carries,
    })
}

/// Broken glass on namespaces and CRDs, which nothing watches: a handful of objects, their metadata alone.
pub async fn listed(client: &Client) -> Result<Vec<Broken>, kube::Error> {
    let marked = ListParams::default().labels(&format!("{PROTECTED}=true"));
    let mut broken = list::<Namespace>(client, &marked).await?;
    broken.extend(list::<CustomResourceDefinition>(client, &marked).await?);
    Ok(broken)
}

async fn list<K>(client: &Client, parameters: &ListParams) -> Result<Vec<Broken>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let objects = Api::<K>::all(client.clone()).list_metadata(parameters).await?;
    Ok(objects
        .items
        .iter()
        .filter_map(|object| read::<K>(&object.metadata, Seal::Glass))
        .collect())
}

fn read<K: Resource<DynamicType = ()>>(metadata: &ObjectMeta, seal: Seal) -> Option<Broken> {
    let annotations = metadata.annotations.as_ref()?;
    let value = |key: &str| annotations.get(key).filter(|value| !value.is_empty()).cloned();
    let (why, limit) = seal.annotations();
    let (reason, until) = (value(why), value(limit));
    if (reason.is_none() && until.is_none()) || metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(Broken {
        seal,
        resource: ApiResource::erase::<K>(&()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        reason,
        until,
    })
}

/// Names of policies that are there and have a binding that denies.
pub async fn bound(client: &Client) -> Result<BTreeSet<String>, kube::Error> {
    let all = ListParams::default();
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone())
        .list_metadata(&all)
        .await?;
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())
        .list(&all)
        .await?;
    let denying: BTreeSet<String> = bindings
        .items
        .into_iter()
        .filter_map(|binding| binding.spec)
        .filter(|spec| spec.validation_actions.iter().flatten().any(|action| action == "Deny"))
        .filter_map(|spec| spec.policy_name)
        .collect();
    Ok(policies
        .items
        .iter()
        .map(kube::ResourceExt::name_any)
        .filter(|name| denying.contains(name))
        .collect())
}

/// Slot pods that the scheduler or a controller tried to take away. The kubelet's own pressure is not among them: it asks nobody.
pub fn targets(lists: &Lists) -> Vec<Target> {
    lists.pods.iter().filter_map(|pod| target(pod)).collect()
}

fn target(pod: &Pod) -> Option<Target> {
    if pod.metadata.deletion_timestamp.is_some() || pod.labels().get(PROTECTED).is_none_or(|mark| mark != "true") {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")?;
    Some(Target {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        reason: condition.reason.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use crds::ModelDeploymentSpec;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, metadata: &serde_json::Value) -> Arc<Pod> {
        let mut pod: Pod = serde_json::from_value(json!({"metadata": metadata})).expect("a Pod");
        pod.metadata.namespace = Some(namespace.to_owned());
        Arc::new(pod)
    }

    fn carrying(deployment: &str) -> serde_json::Value {
        json!({"name": "p", "labels": {DEPLOYMENT: deployment}})
    }

    #[rstest]
    #[case::of_one_that_is_there(pod("ai", &carrying("tiny")), 0)]
    #[case::of_one_that_is_gone(pod("ai", &carrying("large")), 1)]
    #[case::of_a_namesake_elsewhere(pod("other", &carrying("tiny")), 1)]
    #[case::that_leaves(pod("ai", &json!({
        "name": "p", "labels": {DEPLOYMENT: "large"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
    })), 0)]
    #[case::of_nobody(pod("ai", &json!({"name": "p"})), 0)]
    fn a_pod_is_unattended_where_its_deployment_is_gone(#[case] pod: Arc<Pod>, #[case] unattended: usize) {
        let mut deployment = ModelDeployment::new("tiny", ModelDeploymentSpec::default());
        deployment.metadata.namespace = Some("ai".to_owned());
        let lists = Lists {
            pods: vec![pod],
            deployments: vec![Arc::new(deployment)],
            ..Lists::default()
        };
        assert_eq!(super::unattended(&lists), unattended);
    }
}
