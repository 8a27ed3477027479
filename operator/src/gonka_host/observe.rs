//! Box 2: everything one pass over a GonkaHost needs, read once. The only place with requests in this kind.

use std::collections::{BTreeMap, BTreeSet};

use crds::gonka_host::ExternalNetworkNode;
use crds::labels;
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, SprintSchedule};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, ListParams};

use super::account;
use super::observed::{ChainView, Machine, Observed, Other, Reading};
use crate::chain::{Queries, now_ms};
use crate::context::Context;
use crate::dapi::{Client, Endpoint, Registered};
use crate::facts::Facts;

/// Why the world could not be read. An unreachable DAPI or chain is no error here, it is part of what was observed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a list or get.
    #[error("{what} could not be read from the API server")]
    Api {
        /// What was read.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

fn failed(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Api {
        what,
        source: Box::new(source),
    }
}

/// Reads the world once. `runs` are the host's records, from a cache.
pub async fn observe(
    context: &Context,
    host: &GonkaHost,
    runs: Vec<SprintRun>,
) -> Result<(Observed, Option<Client>), Error> {
    let client = &context.client;
    let namespace = host.metadata.namespace.clone().unwrap_or_default();
    let name = host.metadata.name.clone().unwrap_or_default();
    let schedule = &host.spec.schedule_name;
    let schedule_exists = Api::<SprintSchedule>::all(client.clone())
        .get_metadata_opt(schedule)
        .await
        .map_err(failed("the SprintSchedule"))?
        .is_some();
    let others = others(context, host).await?;
    let deployments: Vec<ModelDeployment> = Api::<ModelDeployment>::namespaced(client.clone(), &namespace)
        .list(&ListParams::default())
        .await
        .map_err(failed("ModelDeployments"))?
        .items
        .into_iter()
        .filter(|deployment| deployment.spec.host_ref.name == name)
        .collect();
    let addresses = addresses(context, &namespace).await?;
    let external = host.spec.network_node.external.clone().unwrap_or_default();
    let (token, secret_problem) = token(context, &namespace, &external).await?;
    let facts = context.book.facts(schedule);
    let mut observed = Observed {
        now_ms: now_ms(),
        install_id: context.settings.install_id.clone(),
        resync_seconds: context.settings.resync_seconds,
        host: host.clone(),
        schedule_exists,
        callback_base: callback_base(context, &deployments),
        secret_problem,
        others,
        deployments,
        addresses,
        machines: BTreeMap::new(),
        nodes: Reading::default(),
        report: Reading::default(),
        identity: Reading::default(),
        dapi_height: Reading::default(),
        facts: Facts::clone(&facts),
        chain: ChainView::default(),
        runs,
    };
    let dapi = if observed.secret_problem.is_empty() {
        dapi(context, &external, token, &mut observed).await
    } else {
        None
    };
    observed.machines = machines(context, &observed).await?;
    if let Some(queries) = context.book.queries(schedule) {
        observed.chain = chain(&queries, &host.spec.account.address, &facts).await;
    }
    Ok((observed, dapi))
}

async fn others(context: &Context, host: &GonkaHost) -> Result<Vec<Other>, Error> {
    let hosts = Api::<GonkaHost>::all(context.client.clone())
        .list(&ListParams::default())
        .await
        .map_err(failed("GonkaHosts"))?;
    let other = |host: GonkaHost| {
        let metadata = host.metadata;
        Other {
            name: format!(
                "{}/{}",
                metadata.namespace.unwrap_or_default(),
                metadata.name.unwrap_or_default()
            ),
            created_ms: metadata
                .creation_timestamp
                .map_or(i64::MAX, |time| time.0.as_millisecond()),
            schedule: host.spec.schedule_name,
            account: host.spec.account.address,
            admin_url: host
                .spec
                .network_node
                .external
                .map(|external| external.admin_url)
                .unwrap_or_default(),
        }
    };
    Ok(hosts
        .items
        .into_iter()
        .filter(|other| other.metadata.uid != host.metadata.uid)
        .map(other)
        .collect())
}

/// ClusterIPs, or addresses of load balancers, of slot Services by name.
async fn addresses(context: &Context, namespace: &str) -> Result<BTreeMap<String, String>, Error> {
    let of_slots = ListParams::default().labels(&format!("{}={}", labels::ROLE, labels::ROLE_SLOT));
    let services = Api::<Service>::namespaced(context.client.clone(), namespace)
        .list(&of_slots)
        .await
        .map_err(failed("slot Services"))?;
    Ok(services
        .items
        .into_iter()
        .filter_map(|service| Some((service.metadata.name.clone()?, address(&service)?)))
        .collect())
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

async fn token(
    context: &Context,
    namespace: &str,
    external: &ExternalNetworkNode,
) -> Result<(Option<String>, String), Error> {
    let Some(reference) = &external.admin_auth_secret_ref else {
        return Ok((None, String::new()));
    };
    let secret = Api::<Secret>::namespaced(context.client.clone(), namespace)
        .get_opt(&reference.name)
        .await
        .map_err(failed("the Secret of the admin API"))?;
    let Some(secret) = secret else {
        return Ok((None, format!("there is no Secret {:?}", reference.name)));
    };
    let bytes = secret.data.as_ref().and_then(|data| data.get(&reference.key));
    let text = bytes
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        .map(str::trim);
    match text {
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok((Some(text.to_owned()), String::new()))
        }
        Some(_) => Ok((
            None,
            format!("key {:?} of Secret {:?} holds no token", reference.key, reference.name),
        )),
        None => Ok((
            None,
            format!("Secret {:?} has no key {:?}", reference.name, reference.key),
        )),
    }
}

/// Reads DAPI; what it does not answer is said in the readings.
async fn dapi(
    context: &Context,
    external: &ExternalNetworkNode,
    token: Option<String>,
    observed: &mut Observed,
) -> Option<Client> {
    let endpoint = Endpoint {
        admin_url: external.admin_url.clone(),
        public_url: external.public_url.clone(),
        token,
        ca_bundle: external.ca_bundle.clone(),
    };
    let client = match Client::new(endpoint, context.metrics.clone()) {
        Ok(client) => client,
        Err(error) => {
            observed.nodes = Reading::of::<crate::dapi::Error>(Err(error));
            return None;
        }
    };
    let (nodes, report, identity, latest) = tokio::join!(
        client.nodes(),
        client.setup_report(),
        client.identity(),
        client.latest()
    );
    observed.nodes = Reading::of(nodes);
    observed.report = Reading::of(report);
    observed.identity = Reading::of(identity);
    observed.dapi_height = Reading::of(latest.map(|latest| latest.block_height));
    Some(client)
}

/// Machines of slots whose devices DAPI does not know yet. Asked for only while there are such slots.
async fn machines(context: &Context, observed: &Observed) -> Result<BTreeMap<String, Machine>, Error> {
    let no_nodes = Vec::new();
    let nodes: &Vec<Registered> = observed.nodes.value.as_ref().unwrap_or(&no_nodes);
    let settled: BTreeSet<&str> = nodes
        .iter()
        .filter(|node| !node.node.hardware.is_empty())
        .map(|node| node.node.id.as_str())
        .collect();
    let wanted: BTreeSet<String> = observed
        .deployments
        .iter()
        .filter(|deployment| deployment.spec.gpus_per_replica > 0)
        .flat_map(|deployment| deployment.status.iter().flat_map(|status| &status.slots))
        .filter(|slot| !settled.contains(slot.node_id.as_str()))
        .filter_map(|slot| slot.node_name.clone())
        .collect();
    let api = Api::<GpuNode>::all(context.client.clone());
    let mut machines = BTreeMap::new();
    for name in wanted {
        if let Some(node) = api.get_opt(&name).await.map_err(failed("a GpuNode"))? {
            machines.insert(name, machine(&node));
        }
    }
    Ok(machines)
}

fn machine(node: &GpuNode) -> Machine {
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
fn callback_base(context: &Context, deployments: &[ModelDeployment]) -> String {
    deployments
        .iter()
        .flat_map(|deployment| deployment.status.iter().flat_map(|status| &status.slots))
        .filter_map(|slot| context.live.pod(&slot.pod_ref.as_ref()?.uid)?.report.round)
        .filter_map(|round| Some((round.started_ms, base_of(&round.request?.callback_url)?)))
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

async fn chain(queries: &Queries, address: &str, facts: &Facts) -> ChainView {
    let mut view = ChainView::default();
    match queries.inference("current_epoch_group_data").await {
        Ok(answer) => match account::group(&answer, address) {
            Ok(group) => {
                view.weight = Reading::known(group.member.map_or(0, |member| member.weight));
                view.scales = group.scales;
            }
            Err(error) => view.weight = Reading::of(Err(error)),
        },
        Err(error) => view.weight = Reading::of(Err(error)),
    }
    view.settlement = match queries.inference(&format!("settle_amount/{address}")).await {
        Ok(answer) => Reading::of(account::settlement(&answer)),
        Err(error) if error.is_not_found() => Reading::known(None),
        Err(error) => Reading::of(Err(error)),
    };
    let mut summaries = BTreeMap::new();
    for epoch in [facts.epoch - 1, facts.epoch - 2]
        .into_iter()
        .filter(|epoch| *epoch > 0)
    {
        match queries
            .inference(&format!("epoch_performance_summary/{epoch}/{address}"))
            .await
        {
            Ok(answer) => match account::summary(&answer) {
                Ok(Some(summary)) => {
                    summaries.insert(epoch, summary);
                }
                Ok(None) => {}
                Err(error) => {
                    view.summaries = Reading::of(Err(error));
                    return view;
                }
            },
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                view.summaries = Reading::of(Err(error));
                return view;
            }
        }
    }
    view.summaries = Reading::known(summaries);
    view
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
