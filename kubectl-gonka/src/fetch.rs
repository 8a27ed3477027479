//! Box 2: everything the commands read from the API server.

use anyhow::{Context as _, Result};
use crds::sprint_view::View;
use crds::{GonkaHost, GpuNode, ModelDeployment, SprintRun, SprintSchedule};
use kube::api::{Api, ListParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

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
    let path = format!("/api/v1/namespaces/{system_namespace}/services/gonka-fleet:9490/proxy/fleet/v1/sprint");
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let request = http::Request::get(&path)
            .body(Vec::new())
            .context("the view's path is a URL")?;
        let text = client
            .request_text(request)
            .await
            .with_context(|| format!("GET {path}"))?;
        let view: View = serde_json::from_str(&text).context("the operator's view is not in this version's shape")?;
        if view.leader {
            return Ok(view);
        }
        last = Some(view);
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
