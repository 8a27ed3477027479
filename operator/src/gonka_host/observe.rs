//! Box 2: everything one pass over a GonkaHost needs, read once. The only place with requests in this kind.

mod assemble;

pub use assemble::{Objects, Surroundings, assemble, machine, records, wanted_machines};

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::gonka_host::{ExamSummary, ExternalNetworkNode};
use crds::labels;
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintSchedule};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, ListParams};

use super::account;
use super::observed::{ChainView, Machine, Observed, Reading};
use crate::chain::{Queries, now_ms};
use crate::context::Context;
use crate::dapi::{Client, Endpoint};
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

/// Reads the world once. `exams` are the host's records, from a cache.
pub async fn observe(
    context: &Context,
    host: &GonkaHost,
    exams: Vec<ExamSummary>,
) -> Result<(Observed, Option<Client>), Error> {
    let client = &context.client;
    let namespace = host.metadata.namespace.clone().unwrap_or_default();
    let schedule = &host.spec.schedule_name;
    let schedule_exists = Api::<SprintSchedule>::all(client.clone())
        .get_metadata_opt(schedule)
        .await
        .map_err(failed("the SprintSchedule"))?
        .is_some();
    let hosts = Api::<GonkaHost>::all(client.clone())
        .list(&ListParams::default())
        .await
        .map_err(failed("GonkaHosts"))?
        .items;
    let deployments = Api::<ModelDeployment>::namespaced(client.clone(), &namespace)
        .list(&ListParams::default())
        .await
        .map_err(failed("ModelDeployments"))?
        .items;
    let of_slots = ListParams::default().labels(&format!("{}={}", labels::ROLE, labels::ROLE_SLOT));
    let services = Api::<Service>::namespaced(client.clone(), &namespace)
        .list(&of_slots)
        .await
        .map_err(failed("slot Services"))?
        .items;
    let external = host.spec.network_node.external.clone().unwrap_or_default();
    let (token, secret_problem) = token(context, &namespace, &external).await?;
    let facts = context.book.facts(schedule);
    let objects = Objects {
        schedule_exists,
        hosts: shared(hosts),
        deployments: shared(deployments),
        services: shared(services),
        exams,
        secret_problem,
    };
    let surroundings = Surroundings {
        now_ms: now_ms(),
        settings: &context.settings,
        facts: &facts,
        board: &context.live,
    };
    let mut observed = assemble(host, objects, &surroundings);
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

fn shared<K>(objects: Vec<K>) -> Vec<Arc<K>> {
    objects.into_iter().map(Arc::new).collect()
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
    let api = Api::<GpuNode>::all(context.client.clone());
    let mut machines = BTreeMap::new();
    for name in wanted_machines(observed) {
        if let Some(node) = api.get_opt(&name).await.map_err(failed("a GpuNode"))? {
            machines.insert(name, machine(&node));
        }
    }
    Ok(machines)
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
