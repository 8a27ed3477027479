//! What is there, without what differs from story to story by right: names of pods, addresses, times, versions. Reading is
//! one function; everything else is pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintSchedule, labels};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::Value;

use crate::fleet::{DEPLOYMENT, HOST, SLOTS, ours};
use crate::world::World;

/// Everything of one moment.
#[derive(Debug, Default)]
pub struct Seen {
    schedule: Option<SprintSchedule>,
    host: Option<GonkaHost>,
    deployment: Option<ModelDeployment>,
    pub pods: Vec<Pod>,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    budgets: Vec<PodDisruptionBudget>,
    trust: Option<ConfigMap>,
    /// What FleetSignal's Secret holds.
    certificate: BTreeMap<String, ByteString>,
    account: Option<ServiceAccount>,
    machines: Vec<GpuNode>,
    agent: Option<DaemonSet>,
    /// As DAPI lists them.
    nodes: Value,
}

/// Lines that must be the same after every story.
pub type Lines = BTreeSet<String>;

/// Reads everything from the API server and from DAPI, past the proxy.
pub async fn read(world: &World<'_>) -> Result<Seen> {
    Box::pin(read_all(world)).await
}

async fn read_all(world: &World<'_>) -> Result<Seen> {
    let client = &world.client;
    let every = ListParams::default();
    let with_role = |role: &str| ListParams::default().labels(&format!("{}={role}", labels::ROLE));
    let nodes = reqwest::get(format!("http://{}:9200/admin/v1/nodes", world.network))
        .await
        .context("DAPI does not answer")?;
    Ok(Seen {
        schedule: Api::<SprintSchedule>::all(client.clone()).get_opt("devnet").await?,
        host: ours::<GonkaHost>(client).get_opt(HOST).await?,
        deployment: ours::<ModelDeployment>(client).get_opt(DEPLOYMENT).await?,
        pods: ours::<Pod>(client).list(&with_role(labels::ROLE_SLOT_POD)).await?.items,
        services: ours::<Service>(client).list(&with_role(labels::ROLE_SLOT)).await?.items,
        slices: ours::<EndpointSlice>(client)
            .list(&with_role(labels::ROLE_SLOT))
            .await?
            .items,
        budgets: ours::<PodDisruptionBudget>(client)
            .list(&with_role(labels::ROLE_SLOT_POD))
            .await?
            .items,
        trust: ours::<ConfigMap>(client).get_opt("slot-trust").await?,
        certificate: Api::<Secret>::namespaced(client.clone(), "gonka-system")
            .get_opt("gonka-fleet-signal-tls")
            .await?
            .and_then(|secret| secret.data)
            .unwrap_or_default(),
        account: ours::<ServiceAccount>(client).get_opt("gonka-slot").await?,
        machines: Api::<GpuNode>::all(client.clone()).list(&every).await?.items,
        agent: Api::<DaemonSet>::namespaced(client.clone(), "gonka-system")
            .list(&every)
            .await?
            .items
            .into_iter()
            .next(),
        nodes: nodes.json().await.context("DAPI's nodes are not JSON")?,
    })
}

fn conditions(of: &str, conditions: &[Condition]) -> Lines {
    conditions
        .iter()
        .map(|condition| format!("{of} {}={} ({})", condition.type_, condition.status, condition.reason))
        .collect()
}

fn label<'a, K: kube::Resource>(object: &'a K, name: &str) -> &'a str {
    object.labels().get(name).map_or("-", String::as_str)
}

impl Seen {
    pub fn deployment_uid(&self) -> Option<String> {
        self.deployment.as_ref()?.metadata.uid.clone()
    }

    /// UID of the pod that holds each slot.
    pub fn holders(&self) -> BTreeMap<String, String> {
        self.slices
            .iter()
            .filter_map(|slice| {
                let target = slice.endpoints.first()?.target_ref.as_ref()?;
                Some((slice.name_any(), target.uid.clone()?))
            })
            .collect()
    }

    /// Generation of each slot.
    pub fn generations(&self) -> BTreeMap<String, i64> {
        self.slices
            .iter()
            .filter_map(|slice| {
                let generation = slice.annotations().get(labels::GENERATION)?.parse().ok()?;
                Some((slice.name_any(), generation))
            })
            .collect()
    }

    /// Whether DAPI was seen to have all its nodes serve: from here on nobody has anything to write.
    pub fn serves(&self) -> bool {
        let status = self.host.as_ref().and_then(|host| host.status.as_ref());
        status.is_some_and(|status| {
            status.registrations.len() == SLOTS as usize
                && status
                    .registrations
                    .iter()
                    .all(|node| node.state.as_deref() == Some("INFERENCE"))
        })
    }

    /// What is not as it must be at rest, whatever happened before.
    pub fn check(&self) -> Result<()> {
        let uid = self.deployment_uid().context("there is no deployment")?;
        let owned = |references: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]| {
            references.len() == 1 && references[0].uid == uid
        };
        let spec = &self.deployment.as_ref().context("there is no deployment")?.spec;
        let wanted = usize::try_from(spec.slots + spec.spares)?;
        ensure!(
            self.pods.len() == wanted,
            "{} pods instead of {wanted}",
            self.pods.len()
        );
        for pod in &self.pods {
            ensure!(
                owned(pod.owner_references()),
                "pod {} has another owner",
                pod.name_any()
            );
            ensure!(
                pod.metadata.deletion_timestamp.is_none(),
                "pod {} is leaving",
                pod.name_any()
            );
        }
        for slice in &self.slices {
            ensure!(
                owned(slice.owner_references()),
                "slice {} has another owner",
                slice.name_any()
            );
            self.check_slice(slice)?;
        }
        for service in &self.services {
            ensure!(
                owned(service.owner_references()),
                "Service {} has another owner",
                service.name_any()
            );
        }
        let holders = self.holders();
        let distinct: BTreeSet<&String> = holders.values().collect();
        ensure!(
            holders.len() == usize::try_from(SLOTS)? && distinct.len() == holders.len(),
            "holders are {holders:?}"
        );
        self.check_nodes()
    }

    /// The one endpoint is the pod that says it holds the slot, at the address it has.
    fn check_slice(&self, slice: &EndpointSlice) -> Result<()> {
        let name = slice.name_any();
        ensure!(
            slice.endpoints.len() == 1,
            "{name} has {} endpoints",
            slice.endpoints.len()
        );
        let endpoint = &slice.endpoints[0];
        let target = endpoint.target_ref.as_ref().context("an endpoint without a pod")?;
        let pod = self
            .pods
            .iter()
            .find(|pod| pod.metadata.uid == target.uid)
            .with_context(|| format!("{name} names a pod that is not there"))?;
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        ensure!(
            endpoint.addresses.first() == address.as_ref(),
            "{name} says {:?}, its pod {address:?}",
            endpoint.addresses
        );
        ensure!(
            label(pod, labels::SLOT) == label(slice, labels::SLOT),
            "{name} is held by a pod that is labelled {}",
            label(pod, labels::SLOT)
        );
        Ok(())
    }

    /// Numbers follow the slots.
    fn check_nodes(&self) -> Result<()> {
        let mut nodes: Vec<(i64, i64)> = self
            .nodes
            .as_array()
            .context("DAPI's nodes are no list")?
            .iter()
            .map(|node| {
                let id = node["node"]["id"].as_str().unwrap_or_default();
                let slot = id.rsplit('-').next().and_then(|slot| slot.parse().ok());
                Ok((
                    slot.with_context(|| format!("{id} is no slot"))?,
                    node["node"]["node_num"].as_i64().context("a node without a number")?,
                ))
            })
            .collect::<Result<_>>()?;
        nodes.sort_unstable();
        let slots: Vec<i64> = nodes.iter().map(|(slot, _)| *slot).collect();
        ensure!(
            slots == (0..i64::from(SLOTS)).collect::<Vec<_>>(),
            "DAPI knows slots {slots:?}"
        );
        ensure!(
            nodes.is_sorted_by_key(|(_, number)| *number),
            "numbers do not follow the slots: {nodes:?}"
        );
        Ok(())
    }

    /// What is compared.
    pub fn lines(&self) -> Lines {
        let mut lines = Lines::new();
        if let Some(status) = self.schedule.as_ref().and_then(|schedule| schedule.status.as_ref()) {
            lines.extend(conditions("SprintSchedule", &status.conditions));
        }
        if let Some(status) = self.host.as_ref().and_then(|host| host.status.as_ref()) {
            lines.extend(conditions("GonkaHost", &status.conditions));
            lines.extend(status.registrations.iter().map(|entry| {
                format!(
                    "registration {} slot {} drift {:?} numbered {}",
                    entry.node_id,
                    entry.slot,
                    entry.drift,
                    entry.node_num.is_some()
                )
            }));
        }
        if let Some(status) = self
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.status.as_ref())
        {
            lines.extend(conditions("ModelDeployment", &status.conditions));
            lines.insert(format!(
                "ModelDeployment holds {} ready {} spares {}",
                status.assigned_slots, status.sprint_ready_slots, status.ready_spares
            ));
        }
        for (index, pod) in self.pods.iter().enumerate() {
            let slot = label(pod, labels::SLOT);
            // Spares are alike: counted, not told apart.
            let which = if slot == labels::SLOT_SPARE {
                let before = self.pods[..index].iter();
                format!(
                    "spare {}",
                    before.filter(|pod| label(*pod, labels::SLOT) == slot).count()
                )
            } else {
                format!("slot {slot}")
            };
            let spec = pod.spec.as_ref();
            let command = spec
                .and_then(|spec| spec.containers.first()?.command.clone())
                .unwrap_or_default();
            // The host's UID is another in every story.
            let command: Vec<String> = command.into_iter().filter(|word| !is_uid(word)).collect();
            lines.insert(format!(
                "pod {which} protected {} {}",
                label(pod, labels::PROTECTED),
                command.join(" ")
            ));
        }
        let revisions: BTreeSet<&str> = self.pods.iter().map(|pod| label(pod, labels::REVISION)).collect();
        lines.insert(format!("{} revisions", revisions.len()));
        self.children(&mut lines);
        lines
    }

    /// Whether slots believe exactly the authorities that the certificate of FleetSignal comes with: one, made once.
    fn certificate(&self) -> String {
        let names: Vec<&String> = self.certificate.keys().collect();
        let authorities = self.certificate.get("ca.crt").map(|pem| pem.0.as_slice());
        let believed = self.trust.as_ref().and_then(|trust| trust.data.as_ref());
        let believed = believed
            .and_then(|data| data.get("signal-ca.pem"))
            .map(String::as_bytes);
        let count = believed.map_or(0, |pem| {
            String::from_utf8_lossy(pem).matches("BEGIN CERTIFICATE").count()
        });
        format!(
            "certificate {names:?}, {count} authority believed {}",
            authorities == believed
        )
    }

    fn children(&self, lines: &mut Lines) {
        for slice in &self.slices {
            let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|port| port.port).collect();
            lines.insert(format!(
                "slice {} of {} ports {ports:?}",
                slice.name_any(),
                label(slice, "kubernetes.io/service-name")
            ));
        }
        for service in &self.services {
            let spec = service.spec.clone().unwrap_or_default();
            let ports: Vec<_> = spec.ports.iter().flatten().map(|port| port.port).collect();
            lines.insert(format!(
                "Service {} selector {:?} ports {ports:?}",
                service.name_any(),
                spec.selector
            ));
        }
        for budget in &self.budgets {
            let spec = budget.spec.clone().unwrap_or_default();
            lines.insert(format!("budget {} {:?}", budget.name_any(), spec.min_available));
        }
        lines.extend(
            self.machines
                .iter()
                .map(|machine| format!("GpuNode {}", machine.name_any())),
        );
        lines.insert(format!(
            "agent {:?}",
            self.agent.as_ref().map(kube::ResourceExt::name_any)
        ));
        let keys = self.trust.as_ref().and_then(|trust| trust.data.as_ref());
        lines.insert(format!(
            "keys {}",
            keys.is_some_and(|keys| keys.contains_key("jwks.json"))
        ));
        lines.insert(self.certificate());
        lines.insert(format!("account {}", self.account.is_some()));
        for node in self.nodes.as_array().into_iter().flatten() {
            let node = &node["node"];
            lines.insert(format!(
                "DAPI {} ports {} {} models {}",
                node["id"], node["inference_port"], node["poc_port"], node["models"]
            ));
        }
    }
}

fn is_uid(word: &str) -> bool {
    word.len() == 36 && word.matches('-').count() == 4
}

/// Lines that one has and the other has not.
pub fn difference(wanted: &Lines, found: &Lines) -> String {
    let missing = wanted.difference(found).map(|line| format!("- {line}"));
    let added = found.difference(wanted).map(|line| format!("+ {line}"));
    missing.chain(added).collect::<Vec<_>>().join("\n")
}
