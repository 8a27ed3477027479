//! Objects, facts and the live board as one snapshot. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::gonka_host::ExamSummary;
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, labels};
use k8s_openapi::api::core::v1::Service;

use crate::context::Settings;
use crate::dapi::Registered;
use crate::facts::Facts;
use crate::gonka_host::observed::{ChainView, Machine, Observed, Other, Reading};
use crate::live::{Board, Observation};

/// Records a status shows.
pub const RECORDS: usize = 20;

/// What was read from the API server.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Whether the host's SprintSchedule exists.
    pub schedule_exists: bool,
    /// Every GonkaHost of the cluster.
    pub hosts: Vec<Arc<GonkaHost>>,
    /// ModelDeployments of the host's namespace.
    pub deployments: Vec<Arc<ModelDeployment>>,
    /// Slot Services of the host's namespace.
    pub services: Vec<Arc<Service>>,
    /// The newest records of this host's exams.
    pub exams: Vec<ExamSummary>,
    /// Why the Secret of the spec cannot be used.
    pub secret_problem: String,
}

/// What a pass knows beside objects.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The clock, Unix milliseconds.
    pub now_ms: i64,
    /// Flags of the installation.
    pub settings: &'a Settings,
    /// What the chain says.
    pub facts: &'a Facts,
    /// What slots report.
    pub board: &'a Board,
}

/// One snapshot, in which DAPI and the account on the chain were not asked yet.
pub fn assemble(host: &GonkaHost, objects: Objects, surroundings: &Surroundings<'_>) -> Observed {
    let deployments: Vec<ModelDeployment> = objects
        .deployments
        .into_iter()
        .filter(|deployment| Some(&deployment.spec.host_ref.name) == host.metadata.name.as_ref())
        .map(Arc::unwrap_or_clone)
        .collect();
    Observed {
        now_ms: surroundings.now_ms,
        install_id: surroundings.settings.install_id.clone(),
        resync_seconds: surroundings.settings.resync_seconds,
        host: host.clone(),
        schedule_exists: objects.schedule_exists,
        callback_base: callback_base(surroundings.board, &deployments),
        secret_problem: objects.secret_problem,
        others: others(host, &objects.hosts),
        deployments,
        addresses: addresses(&objects.services),
        machines: BTreeMap::new(),
        nodes: Reading::default(),
        report: Reading::default(),
        identity: Reading::default(),
        dapi_height: Reading::default(),
        facts: surroundings.facts.clone(),
        chain: ChainView::default(),
        exams: objects.exams,
    }
}

/// The newest records of a host, as its status shows them.
pub fn records<'a>(runs: impl Iterator<Item = &'a Arc<SprintRun>>, host: &GonkaHost) -> Vec<ExamSummary> {
    let mut of_host: Vec<&SprintRun> = runs
        .map(AsRef::as_ref)
        .filter(|run| {
            let labels = run.metadata.labels.as_ref();
            run.metadata.namespace == host.metadata.namespace
                && labels.and_then(|labels| labels.get(labels::HOST)) == host.metadata.name.as_ref()
        })
        .collect();
    let newest_first = |one: &&'a SprintRun, other: &&'a SprintRun| {
        let order = |run: &'a SprintRun| (run.spec.poc_start_height, run.metadata.name.as_deref());
        order(other).cmp(&order(one))
    };
    if of_host.len() > RECORDS {
        of_host.select_nth_unstable_by(RECORDS, newest_first);
        of_host.truncate(RECORDS);
    }
    of_host.sort_by(newest_first);
    of_host.into_iter().map(summary).collect()
}

fn summary(run: &SprintRun) -> ExamSummary {
    let status = run.status.as_ref();
    let totals = status.and_then(|status| status.totals.as_ref());
    ExamSummary {
        name: run.metadata.name.clone().unwrap_or_default(),
        kind: run.spec.kind,
        height: run.spec.poc_start_height,
        expected: totals.map(|totals| totals.expected).unwrap_or_default(),
        committed: totals.map(|totals| totals.committed).unwrap_or_default(),
        sealed_time: status.and_then(|status| status.sealed_time.clone()),
    }
}

fn others(host: &GonkaHost, hosts: &[Arc<GonkaHost>]) -> Vec<Other> {
    let other = |host: &Arc<GonkaHost>| {
        let metadata = &host.metadata;
        let external = host.spec.network_node.external.as_ref();
        Other {
            name: format!(
                "{}/{}",
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default()
            ),
            created_ms: metadata
                .creation_timestamp
                .as_ref()
                .map_or(i64::MAX, |time| time.0.as_millisecond()),
            schedule: host.spec.schedule_name.clone(),
            account: host.spec.account.address.clone(),
            admin_url: external.map(|external| external.admin_url.clone()).unwrap_or_default(),
        }
    };
    hosts
        .iter()
        .filter(|other| other.metadata.uid != host.metadata.uid)
        .map(other)
        .collect()
}

/// ClusterIPs, or addresses of load balancers, of slot Services by name.
fn addresses(services: &[Arc<Service>]) -> BTreeMap<String, String> {
    services
        .iter()
        .filter_map(|service| Some((service.metadata.name.clone()?, address(service)?)))
        .collect()
}

fn address(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("LoadBalancer") {
        let ingress = service
            .status
            .as_ref()?
            .load_balancer
            .as_ref()?
            .ingress
            .as_ref()?
            .first()?;
        return ingress.ip.clone().or_else(|| ingress.hostname.clone());
    }
    spec.cluster_ip
        .clone()
        .filter(|address| !address.is_empty() && address != "None")
}

/// Machines of slots whose devices DAPI does not know yet.
pub fn wanted_machines(observed: &Observed) -> BTreeSet<String> {
    let no_nodes = Vec::new();
    let nodes: &Vec<Registered> = observed.nodes.value.as_ref().unwrap_or(&no_nodes);
    let settled: BTreeSet<&str> = nodes
        .iter()
        .filter(|node| !node.node.hardware.is_empty())
        .map(|node| node.node.id.as_str())
        .collect();
    observed
        .deployments
        .iter()
        .filter(|deployment| deployment.spec.gpus_per_replica > 0)
        .flat_map(|deployment| deployment.status.iter().flat_map(|status| &status.slots))
        .filter(|slot| !settled.contains(slot.node_id.as_str()))
        .filter_map(|slot| slot.node_name.clone())
        .collect()
}

/// GPUs of one machine.
pub fn machine(node: &GpuNode) -> Machine {
    let gpus = node
        .status
        .as_ref()
        .map(|status| status.gpus.as_slice())
        .unwrap_or_default();
    match gpus.split_first() {
        Some((first, rest)) if rest.iter().all(|gpu| gpu.product == first.product) => Machine {
            product: first.product.clone(),
            memory_mebibytes: first.memory_mebibytes,
        },
        _ => Machine::default(),
    }
}

/// The callback base of the newest start request any slot of the host was sent.
fn callback_base(board: &Board, deployments: &[ModelDeployment]) -> String {
    deployments
        .iter()
        .flat_map(|deployment| deployment.status.iter().flat_map(|status| &status.slots))
        .filter_map(|slot| {
            let asked = |seen: &Observation| {
                let round = seen.report.round.as_ref()?;
                Some((round.started_ms, round.request.as_ref()?.callback_url.clone()))
            };
            board.of_pod(&slot.pod_ref.as_ref()?.uid, asked)?
        })
        .filter_map(|(started_ms, url)| Some((started_ms, base_of(&url)?)))
        .max()
        .map(|(_, base)| base)
        .unwrap_or_default()
}

/// Scheme, host and port of a callback URL, as in `expectedCallbackURL`.
fn base_of(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callback_base_leaves_out_the_path() {
        let url = "http://10.0.0.7:9100/v2/poc-batches/gonka-fleet%252Ftiny";
        assert_eq!(base_of(url).as_deref(), Some("http://10.0.0.7:9100"));
        assert_eq!(base_of("nonsense"), None);
    }

    #[test]
    fn a_service_without_an_address_is_left_out() {
        let headless: Service =
            serde_json::from_value(serde_json::json!({"spec": {"clusterIP": "None"}})).expect("a Service");
        let usual: Service =
            serde_json::from_value(serde_json::json!({"spec": {"clusterIP": "10.0.0.1"}})).expect("a Service");
        assert_eq!(address(&headless), None);
        assert_eq!(address(&usual).as_deref(), Some("10.0.0.1"));
    }
}
