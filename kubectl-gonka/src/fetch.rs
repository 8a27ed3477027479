//! Box 2: everything the commands read from the API server.

use anyhow::{Context as _, Result};
use crds::sprint_view::{GateHistory, View};
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, SprintSchedule};
use kube::api::{Api, ListParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde::de::DeserializeOwned;

/// Replicas that may answer before one that leads does: the Service picks one by chance.
const ATTEMPTS: usize = 8;

/// A client for the kubeconfig's (or this) context.
pub(crate) async fn client(context: Option<String>) -> Result<Client> {
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let config = Config::from_kubeconfig(&options)
        .await
        .context("no usable kubeconfig; set KUBECONFIG or pass --context")?;
    Client::try_from(config).context("the kubeconfig's cluster cannot be reached")
}

/// The operator's live view: the leader's when one answers, else a follower's.
pub(crate) async fn view(client: &Client, system_namespace: &str) -> Result<View> {
    ask(client, system_namespace, "sprint", |view: &View| view.leader).await
}

/// What the gate answered whom, as the leader remembers it.
pub(crate) async fn gate(client: &Client, system_namespace: &str) -> Result<GateHistory> {
    ask(client, system_namespace, "gate", |history: &GateHistory| history.leader).await
}

/// Asks replicas until the leader answers; a follower's answer is better than none.
async fn ask<T: DeserializeOwned>(
    client: &Client,
    system_namespace: &str,
    what: &str,
    leads: impl Fn(&T) -> bool,
) -> Result<T> {
    let path = format!("/api/v1/namespaces/{system_namespace}/services/gonka-fleet:9490/proxy/fleet/v1/{what}");
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let request = http::Request::get(&path)
            .body(Vec::new())
            .context("the view's path is a URL")?;
        let text = client
            .request_text(request)
            .await
            .with_context(|| format!("GET {path}"))?;
        let answer: T = serde_json::from_str(&text).context("the operator's view is not in this version's shape")?;
        if leads(&answer) {
            return Ok(answer);
        }
        last = Some(answer);
    }
    last.context("the operator did not answer")
}

/// What status says, for when the operator does not answer.
pub(crate) async fn schedules(client: &Client) -> Result<Vec<SprintSchedule>> {
    let list = Api::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("SprintSchedules cannot be listed")?;
    Ok(list.items)
}

/// All hosts.
pub(crate) async fn hosts(client: &Client) -> Result<Vec<GonkaHost>> {
    let list = Api::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("GonkaHosts cannot be listed")?;
    Ok(list.items)
}

/// All machines with GPUs.
pub(crate) async fn machines(client: &Client) -> Result<Vec<GpuNode>> {
    let list = Api::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("GpuNodes cannot be listed")?;
    Ok(list.items)
}

/// All deployments.
pub(crate) async fn deployments(client: &Client) -> Result<Vec<ModelDeployment>> {
    let list = Api::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("ModelDeployments cannot be listed")?;
    Ok(list.items)
}

/// Records, newest first.
pub(crate) async fn runs(client: &Client, namespace: Option<&str>) -> Result<Vec<SprintRun>> {
    let api: Api<SprintRun> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut runs = api
        .list(&ListParams::default())
        .await
        .context("SprintRuns cannot be listed")?
        .items;
    runs.sort_by_key(|run| std::cmp::Reverse(run.spec.poc_start_height));
    Ok(runs)
}
