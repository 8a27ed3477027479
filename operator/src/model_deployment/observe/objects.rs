//! The objects a pass reads, wherever they are kept: here the watch stores.

use std::sync::Arc;
use std::time::Duration;

use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, SprintSchedule};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};

use super::is_child;
use crate::model_deployment::decide::{SLOT_ACCOUNT, TRUST_CONFIG_MAP};

/// How often stores are asked whether they were filled.
const READY_PERIOD: Duration = Duration::from_millis(250);

/// What a pass may read. Lists come in any order.
pub trait Objects {
    /// A GonkaHost.
    fn host(&self, namespace: &str, name: &str) -> Option<Arc<GonkaHost>>;
    /// A SprintSchedule.
    fn schedule(&self, name: &str) -> Option<Arc<SprintSchedule>>;
    /// Pods with the deployment's label.
    fn pods(&self, of: &ModelDeployment) -> Vec<Arc<Pod>>;
    /// Slot pods of every deployment.
    fn all_pods(&self) -> Vec<Arc<Pod>>;
    /// Slot Services with the deployment's label.
    fn services(&self, of: &ModelDeployment) -> Vec<Arc<Service>>;
    /// Slot EndpointSlices with the deployment's label.
    fn slices(&self, of: &ModelDeployment) -> Vec<Arc<EndpointSlice>>;
    /// A disruption budget.
    fn budget(&self, namespace: &str, name: &str) -> Option<Arc<PodDisruptionBudget>>;
    /// Pod templates on record with the deployment's label.
    fn templates(&self, of: &ModelDeployment) -> Vec<Arc<ControllerRevision>>;
    /// Records of a host's exams.
    fn runs(&self, namespace: &str, host: &str) -> Vec<Arc<SprintRun>>;
    /// The ServiceAccount of slot pods.
    fn account(&self, namespace: &str) -> Option<Arc<ServiceAccount>>;
    /// The ConfigMap with keys.
    fn trust(&self, namespace: &str) -> Option<Arc<ConfigMap>>;
    /// A machine as Kubernetes sees it.
    fn node(&self, name: &str) -> Option<Arc<Node>>;
    /// A machine as its agent sees it.
    fn gpu_node(&self, name: &str) -> Option<Arc<GpuNode>>;
    /// All of them.
    fn gpu_nodes(&self) -> Vec<Arc<GpuNode>>;
}

/// What is watched.
#[derive(Clone)]
pub struct Stores {
    /// The objects of this controller.
    pub deployments: Store<ModelDeployment>,
    /// Hosts.
    pub hosts: Store<GonkaHost>,
    /// Schedules.
    pub schedules: Store<SprintSchedule>,
    /// Slot pods.
    pub pods: Store<Pod>,
    /// Slot Services.
    pub services: Store<Service>,
    /// Slot EndpointSlices.
    pub slices: Store<EndpointSlice>,
    /// Disruption budgets of deployments.
    pub budgets: Store<PodDisruptionBudget>,
    /// Pod templates on record.
    pub templates: Store<ControllerRevision>,
    /// Records of exams.
    pub runs: Store<SprintRun>,
    /// ServiceAccounts of slot pods.
    pub accounts: Store<ServiceAccount>,
    /// ConfigMaps with keys.
    pub trust: Store<ConfigMap>,
    /// Machines as Kubernetes sees them.
    pub nodes: Store<Node>,
    /// Machines as their agents see them.
    pub gpu_nodes: Store<GpuNode>,
}

impl Stores {
    /// Waits until every store was filled once: an empty store is not an empty world.
    ///
    /// Asked again and again, because a store wakes only the last of those who wait for it, and there are several.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        loop {
            if let Ok(filled) = tokio::time::timeout(READY_PERIOD, self.filled()).await {
                return filled;
            }
        }
    }

    async fn filled(&self) -> Result<(), WriterDropped> {
        self.deployments.wait_until_ready().await?;
        self.hosts.wait_until_ready().await?;
        self.schedules.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.slices.wait_until_ready().await?;
        self.budgets.wait_until_ready().await?;
        self.templates.wait_until_ready().await?;
        self.runs.wait_until_ready().await?;
        self.accounts.wait_until_ready().await?;
        self.trust.wait_until_ready().await?;
        self.nodes.wait_until_ready().await?;
        self.gpu_nodes.wait_until_ready().await
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Stores")
            .field("deployments", &self.deployments.len())
            .field("pods", &self.pods.len())
            .finish_non_exhaustive()
    }
}

impl Objects for Stores {
    fn host(&self, namespace: &str, name: &str) -> Option<Arc<GonkaHost>> {
        self.hosts.get(&ObjectRef::new(name).within(namespace))
    }

    fn schedule(&self, name: &str) -> Option<Arc<SprintSchedule>> {
        self.schedules.get(&ObjectRef::new(name))
    }

    fn pods(&self, of: &ModelDeployment) -> Vec<Arc<Pod>> {
        children(&self.pods, of)
    }

    fn all_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.state()
    }

    fn services(&self, of: &ModelDeployment) -> Vec<Arc<Service>> {
        children(&self.services, of)
    }

    fn slices(&self, of: &ModelDeployment) -> Vec<Arc<EndpointSlice>> {
        children(&self.slices, of)
    }

    fn budget(&self, namespace: &str, name: &str) -> Option<Arc<PodDisruptionBudget>> {
        self.budgets.get(&ObjectRef::new(name).within(namespace))
    }

    fn templates(&self, of: &ModelDeployment) -> Vec<Arc<ControllerRevision>> {
        children(&self.templates, of)
    }

    fn runs(&self, namespace: &str, host: &str) -> Vec<Arc<SprintRun>> {
        self.runs
            .state_filter(|run| run.metadata.namespace.as_deref() == Some(namespace) && run.spec.host_ref.name == host)
    }

    fn account(&self, namespace: &str) -> Option<Arc<ServiceAccount>> {
        self.accounts.get(&ObjectRef::new(SLOT_ACCOUNT).within(namespace))
    }

    fn trust(&self, namespace: &str) -> Option<Arc<ConfigMap>> {
        self.trust.get(&ObjectRef::new(TRUST_CONFIG_MAP).within(namespace))
    }

    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.get(&ObjectRef::new(name))
    }

    fn gpu_node(&self, name: &str) -> Option<Arc<GpuNode>> {
        self.gpu_nodes.get(&ObjectRef::new(name))
    }

    fn gpu_nodes(&self) -> Vec<Arc<GpuNode>> {
        self.gpu_nodes.state()
    }
}

fn children<K>(store: &Store<K>, deployment: &ModelDeployment) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| is_child(object, deployment))
}
