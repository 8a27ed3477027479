//! Box 2, observe: reads one deployment's world out of the watch stores and the live board. Reads only; the clock is read
//! here and nowhere else.
//!
//! Stores may be behind. A pass that wants to write reads its own children again from the API server first
//! ([`refresh`]), so that nothing is made twice because of an old list.

pub mod golden;
mod live;
mod machines;
mod objects;
mod pods;
mod rollout;

pub use live::{of_report, significant};
pub use objects::{Objects, Stores};
pub use pods::seen as pod_seen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{ModelDeployment, labels};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::observed::{GoldenSeen, Install, Link, Observed, Schedule};
use crate::chain::now_ms;
use crate::context::{Context, Settings};
use crate::facts::Facts;
use crate::live::Board;
use crate::slot_door::{DoorState, Doors};

/// Lists that were just read.
#[derive(Debug, Default)]
pub struct Children {
    /// Pods.
    pub pods: Vec<Arc<Pod>>,
    /// Slot Services.
    pub services: Vec<Arc<Service>>,
    /// Slot EndpointSlices.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Disruption budgets.
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    /// Pod templates on record.
    pub templates: Vec<Arc<ControllerRevision>>,
}

/// The world could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a get or list.
    #[error("{kind} of deployment {deployment} could not be read from the API server")]
    Api {
        /// Plural of the kind.
        kind: String,
        /// Namespace and name.
        deployment: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The watch is behind: what it shows is gone. The watch will tell what is there instead.
    #[error(
        "deployment {deployment} is not the one that is watched any more; nothing is written for the one that is gone"
    )]
    Replaced {
        /// Namespace and name.
        deployment: String,
    },
    /// What was just read is older than what the watch told before.
    #[error("lists of deployment {deployment} show an older assignment than the watch; nothing is written from them")]
    Behind {
        /// Namespace and name.
        deployment: String,
    },
}

/// What a pass knows beside the API server's objects.
pub struct Surroundings<'a> {
    /// The clock, Unix milliseconds.
    pub now_ms: i64,
    /// Flags of the installation.
    pub settings: &'a Settings,
    /// What the chain says, by schedule.
    pub facts: &'a dyn Fn(&str) -> Arc<Facts>,
    /// What slots report.
    pub board: &'a Board,
    /// What is known of a pod's door.
    pub door: &'a dyn Fn(&str) -> Option<DoorState>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Surroundings")
            .field("now_ms", &self.now_ms)
            .finish_non_exhaustive()
    }
}

/// What this process knows now.
fn amid<R>(context: &Context, doors: &Doors, look: impl FnOnce(&Surroundings<'_>) -> R) -> R {
    let facts = |schedule: &str| context.book.facts(schedule);
    let door = |pod_uid: &str| doors.state(pod_uid);
    look(&Surroundings {
        now_ms: now_ms(),
        settings: &context.settings,
        facts: &facts,
        board: &context.live,
        door: &door,
    })
}

/// What slot pods are to believe, as far as the operator has it yet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Believed {
    /// Keys that sign the operator's token, a JWKS.
    pub keys: Option<String>,
    /// Authorities that vouch for FleetSignal's certificate, PEM.
    pub authorities: Option<String>,
}

/// Reads the world of one deployment from the stores.
pub fn gather(
    context: &Context,
    stores: &Stores,
    doors: &Doors,
    deployment: &ModelDeployment,
    golden: GoldenSeen,
    believed: Believed,
) -> Observed {
    amid(context, doors, |surroundings| {
        assemble(stores, deployment, surroundings, golden, believed)
    })
}

/// The world of one deployment from objects, wherever they are kept. Pure.
pub fn assemble(
    objects: &impl Objects,
    deployment: &ModelDeployment,
    surroundings: &Surroundings<'_>,
    golden: GoldenSeen,
    believed: Believed,
) -> Observed {
    let namespace = deployment.namespace().unwrap_or_default();
    let host = objects.host(&namespace, &deployment.spec.host_ref.name);
    let schedule = host
        .as_ref()
        .and_then(|host| objects.schedule(&host.spec.schedule_name));
    let facts = host.as_ref().map_or_else(Facts::default, |host| {
        (surroundings.facts)(&host.spec.schedule_name).as_ref().clone()
    });
    let budget = objects.budget(&namespace, &deployment.name_any());
    let mut observed = Observed {
        now_ms: surroundings.now_ms,
        install: install(surroundings.settings),
        deployment: deployment.clone(),
        host: host.map(|host| host.as_ref().clone()),
        schedule: schedule.map(|schedule| Schedule {
            chain_id: schedule.spec.chain_id.clone(),
            margins: schedule.spec.margins.clone(),
        }),
        facts,
        pods: BTreeMap::new(),
        services: by_name(objects.services(deployment)),
        slices: by_name(objects.slices(deployment)),
        budget: budget.map(|budget| budget.as_ref().clone()),
        account: objects.account(&namespace).map(|account| account.as_ref().clone()),
        trust: objects.trust(&namespace).map(|trust| trust.as_ref().clone()),
        trust_keys: believed.keys,
        trust_authorities: believed.authorities,
        golden,
        machines: BTreeMap::new(),
        is_full: false,
        live: BTreeMap::new(),
        rounds: BTreeMap::new(),
        templates: BTreeMap::new(),
        exams: Vec::new(),
        revision: None,
    };
    observed.templates = rollout::templates(&objects.templates(deployment), observed.uid());
    observed.exams = rollout::exams(&observed, || objects.runs(&namespace, &deployment.spec.host_ref.name));
    set_pods(&mut observed, &objects.pods(deployment));
    observed.machines = machines::all(objects, &observed);
    observed.is_full = machines::are_full(objects, &observed);
    hear(surroundings, &mut observed);
    observed
}

/// Replaces what may be old in a snapshot by lists that were just read. Pure.
pub fn replace_children(observed: &mut Observed, fresh: Children, surroundings: &Surroundings<'_>) {
    let deployment = observed.deployment.clone();
    let pods: Vec<Arc<Pod>> = of(fresh.pods, &deployment).collect();
    set_pods(observed, &pods);
    observed.services = by_name(of(fresh.services, &deployment));
    observed.slices = by_name(of(fresh.slices, &deployment));
    observed.budget = fresh
        .budgets
        .into_iter()
        .find(|budget| budget.name_any() == deployment.name_any())
        .map(|budget| budget.as_ref().clone());
    let templates: Vec<Arc<ControllerRevision>> = of(fresh.templates, &deployment).collect();
    observed.templates = rollout::templates(&templates, observed.uid());
    observed.now_ms = surroundings.now_ms;
    hear(surroundings, observed);
}

/// Whether lists show a slot's assignment as it was before the one in the snapshot: an API server may answer from a cache
/// that is behind, and whoever holds a slot now would be taken for a spare. Pure.
pub fn is_behind(observed: &Observed, fresh: &Children) -> bool {
    let version = |slice: &EndpointSlice| slice.metadata.resource_version.as_deref()?.parse::<u64>().ok();
    fresh.slices.iter().any(|slice| {
        let known = observed.slices.get(&slice.name_any());
        known.is_some_and(|known| known.metadata.uid == slice.metadata.uid && version(slice) < version(known))
    })
}

/// Reads the children again, from the API server itself. An error when the deployment itself is another by now: its
/// children would be made for an owner that is gone, or those of its successor be taken for old ones.
pub async fn refresh(context: &Context, doors: &Doors, observed: &mut Observed) -> Result<(), Error> {
    let client = &context.client;
    let deployment = observed.deployment.clone();
    still_there(client, &deployment).await?;
    let fresh = Children {
        pods: list(client, &deployment).await?,
        services: list(client, &deployment).await?,
        slices: list(client, &deployment).await?,
        budgets: list(client, &deployment).await?,
        templates: list(client, &deployment).await?,
    };
    if is_behind(observed, &fresh) {
        return Err(Error::Behind {
            deployment: format!("{}/{}", observed.namespace(), observed.name()),
        });
    }
    amid(context, doors, |surroundings| {
        replace_children(observed, fresh, surroundings);
    });
    Ok(())
}

async fn still_there(client: &Client, deployment: &ModelDeployment) -> Result<(), Error> {
    let namespace = deployment.namespace().unwrap_or_default();
    let name = deployment.name_any();
    let known = Api::<ModelDeployment>::namespaced(client.clone(), &namespace)
        .get_metadata_opt(&name)
        .await
        .map_err(|source| Error::Api {
            kind: ModelDeployment::plural(&()).into_owned(),
            deployment: format!("{namespace}/{name}"),
            source: Box::new(source),
        })?;
    if known.is_some_and(|known| known.metadata.uid == deployment.metadata.uid) {
        return Ok(());
    }
    Err(Error::Replaced {
        deployment: format!("{namespace}/{name}"),
    })
}

/// A deployment that was deleted and made again takes its pods over as they are: the network knows them by their slots.
fn set_pods(observed: &mut Observed, pods: &[Arc<Pod>]) {
    let (uid, name) = (observed.uid().to_owned(), observed.name().to_owned());
    observed.pods = pods
        .iter()
        .filter_map(|pod| {
            let owner = pods::controller(pod)?;
            let ours = owner.kind == ModelDeployment::kind(&()) && owner.name == name;
            ours.then(|| (pod.name_any(), pods::seen(pod, &uid)))
        })
        .collect();
}

/// What the slots say, and what they did in the exam at hand.
fn hear(surroundings: &Surroundings<'_>, observed: &mut Observed) {
    let board = surroundings.board;
    observed.live = observed
        .pods
        .values()
        .filter_map(|pod| {
            let live = live::hear(board, (surroundings.door)(&pod.uid), &pod.uid)?;
            Some((pod.uid.clone(), live))
        })
        .collect();
    // Rounds go by the height in the request, which in a confirmation is its trigger.
    let running = observed.facts.exam.as_ref().map(|exam| exam.trigger_height);
    let active = observed
        .live
        .values()
        .filter(|live| live.link == Link::Connected)
        .filter_map(|live| live.round.as_ref())
        .filter(|round| round.active)
        .map(|round| round.height)
        .max();
    observed.rounds = BTreeMap::new();
    if let Some(height) = running.or(active) {
        let slots = observed.deployment.examined_slots().into_iter();
        let ids: BTreeSet<String> = slots.map(|slot| observed.node_id(slot)).collect();
        for id in ids {
            let rounds: Vec<_> = board.of_rounds(&id, height, live::round);
            if !rounds.is_empty() {
                observed.rounds.insert(id, rounds);
            }
        }
    }
}

fn install(settings: &Settings) -> Install {
    Install {
        namespace: settings.namespace.clone(),
        install_id: settings.install_id.clone(),
        slot_image: settings.slot_image.clone(),
        image_pull_policy: settings.image_pull_policy.clone(),
        signal_service: settings.signal_service.clone(),
        priority_class: settings.slot_priority_class.clone(),
        callback_interval_seconds: settings.callback_interval_seconds,
    }
}

/// Same namespace, and our label with the deployment's name.
pub fn is_child<K: Resource>(object: &K, deployment: &ModelDeployment) -> bool {
    object.namespace() == deployment.namespace()
        && object.labels().get(labels::DEPLOYMENT) == deployment.metadata.name.as_ref()
}

fn of<K: Resource>(objects: Vec<Arc<K>>, deployment: &ModelDeployment) -> impl Iterator<Item = Arc<K>> {
    objects
        .into_iter()
        .filter(move |object| is_child(object.as_ref(), deployment))
}

fn by_name<K: Resource + Clone>(objects: impl IntoIterator<Item = Arc<K>>) -> BTreeMap<String, K> {
    objects
        .into_iter()
        .map(|object| (object.name_any(), object.as_ref().clone()))
        .collect()
}

async fn list<K>(client: &Client, deployment: &ModelDeployment) -> Result<Vec<Arc<K>>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let namespace = deployment.namespace().unwrap_or_default();
    let name = deployment.name_any();
    let parameters = ListParams::default().labels(&format!("{}={name}", labels::DEPLOYMENT));
    Api::<K>::namespaced(client.clone(), &namespace)
        .list(&parameters)
        .await
        .map(|list| list.items.into_iter().map(Arc::new).collect())
        .map_err(|source| Error::Api {
            kind: K::plural(&()).into_owned(),
            deployment: format!("{namespace}/{name}"),
            source: Box::new(source),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(uid: &str, version: &str) -> EndpointSlice {
        EndpointSlice {
            metadata: kube::api::ObjectMeta {
                name: Some("slot-tiny-0".to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_owned()),
                ..kube::api::ObjectMeta::default()
            },
            ..EndpointSlice::default()
        }
    }

    #[test]
    fn a_list_that_shows_an_older_assignment_than_the_watch_is_behind() {
        let base = include_str!("../../tests/golden/model_deployment/base.yaml");
        let base: serde_json::Value = serde_yaml::from_str(base).expect("YAML");
        let mut observed: Observed = serde_json::from_value(base).expect("a snapshot");
        observed.slices = by_name([Arc::new(slice("a", "100"))]);
        let lists = |uid: &str, version: &str| Children {
            slices: vec![Arc::new(slice(uid, version))],
            ..Children::default()
        };
        assert!(is_behind(&observed, &lists("a", "99")), "by number, not by text");
        assert!(!is_behind(&observed, &lists("a", "100")));
        assert!(
            !is_behind(&observed, &lists("a", "101")),
            "the watch is behind, as it may be"
        );
        assert!(!is_behind(&observed, &lists("b", "99")), "another object of the name");
        assert!(!is_behind(&observed, &Children::default()), "a slice that is gone");
    }
}
