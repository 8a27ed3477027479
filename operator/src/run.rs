//! The composition root: what every replica does, and what only the leader does.
//!
//! ```text
//! every replica: probes · metrics and live view · chain readers (from the cache, without the API server) · FleetSignal
//! leader:        controllers; a lost lease ends the process
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::runtime::events::Reporter;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, Config};
use prometheus::Registry;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::args::Args;
use crate::certificate::{self, Keeper};
use crate::chain::{self, Readers, ReadersSettings};
use crate::context::{Book, Context, Settings};
use crate::gate::history::History;
use crate::leader::Election;
use crate::live::Board;
use crate::metrics::Metrics;
use crate::signal as fleet_signal;
use crate::sprint_view::SprintView;
use crate::trust::Trust;
use crate::{
    backoff, gonka_host, gpu_node, machine, model_deployment, protection, schema, sprint_run, sprint_schedule,
};

/// Longest wait for parts to end after the stop.
const GRACE: Duration = Duration::from_secs(10);

/// Longest wait for the lease to be given back.
const RELEASE: Duration = Duration::from_secs(3);

/// Longest wait of pods for FleetSignal's certificate: one that starts before its authority is in its namespace knows it a minute late.
const CERTIFIED: Duration = Duration::from_secs(10);

/// The parts of a replica; each says its name when it ends, and none ends while all is well.
type Parts = JoinSet<Result<&'static str>>;

/// Runs until SIGTERM, a lost lease, or a part that cannot go on.
pub async fn run(args: Args) -> Result<()> {
    // Ignored when a test installed one first.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let stop = CancellationToken::new();
    let mut parts = start(&args, &stop).await?;
    let ended = tokio::select! {
        ended = parts.join_next() => ended,
        terminated = terminated() => { terminated?; None }
    };
    stop.cancel();
    let rest = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::warn!("parts did not end in time");
    }
    match ended {
        None => Ok(()),
        Some(Ok(Ok(part))) => bail!("{part} ended"),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(panic)) => Err(panic).context("a part of the operator panicked"),
    }
}

async fn start(args: &Args, stop: &CancellationToken) -> Result<Parts> {
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry).context("metrics cannot be registered")?);
    let (book, live) = (Arc::new(Book::default()), Arc::new(Board::default()));
    let readiness = Arc::new(Readiness::default());
    let gate = Arc::new(History::default());
    let view = Arc::new(SprintView::new(
        args.name.clone(),
        book.clone(),
        live.clone(),
        gate.clone(),
    ));
    let client = client().await?;
    let trust = Arc::new(Trust::load(&args.cache_dir, &args.signal_audience, Some(client.clone())).await);
    let certificate =
        Arc::new(Keeper::load(certificate::Settings::from(args), Some(client.clone()), metrics.clone()).await);
    let http = reqwest::Client::builder().build().context("no HTTP client")?;
    let settings = ReadersSettings {
        cache_dir: args.cache_dir.clone(),
        book: book.clone(),
        metrics: metrics.clone(),
        http,
    };
    let (readers, reading) = Readers::start(settings, stop.clone());

    let mut parts = Parts::new();
    let probes = admin::serve_probes(args.probe_address, readiness.clone(), stop.clone());
    parts.spawn(async move { probes.await.context("probes").map(|()| "probes") });
    let doors = admin::serve_metrics(args.metrics_address, registry, view.clone(), stop.clone());
    parts.spawn(async move { doors.await.context("metrics").map(|()| "metrics") });
    parts.spawn(async move {
        reading.await;
        Ok("chain readers")
    });
    parts.spawn(watch_schedules(client.clone(), readers, stop.clone()));
    readiness.chain.store(true, Ordering::Relaxed);

    let serving = fleet_signal::Serving {
        source: args.name.clone(),
        book: book.clone(),
        trust: trust.clone(),
        served: certificate.served(),
        plaintext: args.signal_plaintext,
        metrics: metrics.clone(),
    };
    let listener = tokio::net::TcpListener::bind(args.signal_address)
        .await
        .context("FleetSignal cannot listen")?;
    readiness.signal.store(true, Ordering::Relaxed);
    let signalling = fleet_signal::serve_on(listener, serving, stop.clone());
    parts.spawn(async move { signalling.await.context("FleetSignal").map(|()| "FleetSignal") });
    let (keeper, stopped) = (trust.clone(), stop.clone());
    parts.spawn(async move {
        keeper.keep_fresh(stopped).await;
        Ok("token keys")
    });
    let (keeper, stopped) = (certificate.clone(), stop.clone());
    parts.spawn(async move {
        keeper.keep_fresh(stopped).await;
        Ok("FleetSignal's certificate")
    });

    let reporter = Reporter {
        controller: "gonka-fleet".to_owned(),
        instance: Some(args.name.clone()),
    };
    let context = Context {
        client,
        reporter,
        book,
        live,
        gate,
        metrics,
        settings: Arc::new(crate::context::Settings::from(args)),
        trust,
        certificate,
    };
    parts.spawn(lead(args.clone(), context, view, readiness, stop.clone()));
    Ok(parts)
}

async fn client() -> Result<Client> {
    let config = Config::infer()
        .await
        .context("neither a service account nor a kubeconfig says which cluster to work in")?;
    Client::try_from(config).context("the API server's address cannot be used")
}

async fn watch_schedules(client: Client, readers: Arc<Readers>, stop: CancellationToken) -> Result<&'static str> {
    chain::watch_schedules(client, readers, stop).await;
    Ok("SprintSchedule watch")
}

async fn terminated() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be heard")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be heard")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Waits for the lease, then runs the controllers until it is lost.
async fn lead(
    args: Args,
    context: Context,
    view: Arc<SprintView>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
) -> Result<&'static str> {
    let election = Election::new(
        context.client.clone(),
        &args.namespace,
        &args.lease_name,
        &args.name,
        args.lease_seconds,
    );
    tokio::select! {
        () = election.acquire() => {}
        () = stop.cancelled() => return Ok("leader election"),
    }
    tracing::info!(lease = args.lease_name, "this replica leads");
    context.metrics.leader.set(1);
    let ended = tokio::select! {
        // Nothing to give back, and nobody may be there to take it: the next process must not wait for that.
        lost = election.hold() => return Err(lost.into()),
        // Beside the controllers: clients of FleetSignal do not wait for CRDs.
        () = certificate::run(context.clone()) => Ok("FleetSignal's certificates"),
        ended = control(context, &view, &readiness) => ended.map(|()| "controllers"),
        () = stop.cancelled() => Ok("leader"),
    };
    let _late = tokio::time::timeout(RELEASE, election.release()).await;
    ended
}

/// All controllers. Returns only when one cannot go on.
async fn control(mut context: Context, view: &SprintView, readiness: &Readiness) -> Result<()> {
    wait_for_schema(&context, readiness).await;
    let mut settings = Settings::clone(&context.settings);
    settings.install_id = install_id(&context.client).await;
    context.settings = Arc::new(settings);
    view.lead();

    let mut controllers = Parts::new();
    if !context.certificate.ready(CERTIFIED).await {
        tracing::warn!("FleetSignal has no certificate yet; slots start without it");
    }
    let (schedules, hosts, nodes, records) = (context.clone(), context.clone(), context.clone(), context.clone());
    controllers.spawn(async move {
        sprint_schedule::run(schedules).await;
        Ok("SprintSchedule controller")
    });
    controllers.spawn(async move {
        gonka_host::run(hosts)
            .await
            .context("GonkaHost controller")
            .map(|()| "GonkaHost controller")
    });
    let watching = model_deployment::watch(&context);
    let (machines, stores) = (context.clone(), watching.stores());
    controllers.spawn(async move {
        machine::run(machines, stores)
            .await
            .context("machine controller")
            .map(|()| "machine controller")
    });
    let (protected, stores) = (context.clone(), watching.stores());
    controllers.spawn(async move {
        protection::run(protected, stores)
            .await
            .context("protection controller")
            .map(|()| "protection controller")
    });
    let deployments = context.clone();
    controllers.spawn(async move {
        let (keys, certificate) = (deployments.trust.clone(), deployments.certificate.clone());
        let believed = move || model_deployment::Believed {
            keys: keys.jwks_json(),
            authorities: certificate.authorities(),
        };
        model_deployment::run(deployments, watching, believed)
            .await
            .context("ModelDeployment controller")
            .map(|()| "ModelDeployment controller")
    });
    controllers.spawn(async move {
        sprint_run::run(records)
            .await
            .context("SprintRun controller")
            .map(|()| "SprintRun controller")
    });
    controllers.spawn(async move {
        gpu_node::run(nodes).await;
        Ok("GpuNode controller")
    });
    tokio::select! {
        ended = controllers.join_next() => match ended {
            Some(Ok(ended)) => bail!("{} ended", ended?),
            Some(Err(panic)) => Err(panic).context("a controller panicked"),
            None => bail!("there is no controller"),
        },
        () = feed_view(&context.client, view) => bail!("the live view's watch ended"),
    }
}

/// A pruned schema would lose status silently: nothing is reconciled until every CRD has every field.
async fn wait_for_schema(context: &Context, readiness: &Readiness) {
    let mut failures = 0;
    loop {
        match schema::missing(&context.client).await {
            Ok(missing) => {
                let whole = missing.is_empty();
                if !whole {
                    tracing::error!(missing = ?missing, "installed CRDs are older than this operator; install the chart gonka-fleet-crds of this version");
                }
                *readiness
                    .crds
                    .write()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = missing;
                if whole {
                    return;
                }
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "CRDs cannot be read"),
        }
        failures += 1;
        tokio::time::sleep(backoff::delay(failures.min(5), 0.5)).await;
    }
}

/// Six hex digits that mark what this installation makes outside the cluster: from the cluster's own identity, so that a
/// reinstalled operator finds its nodes again.
async fn install_id(client: &Client) -> String {
    let mut failures = 0;
    loop {
        match Api::<Namespace>::all(client.clone()).get("kube-system").await {
            Ok(namespace) => {
                let uid = namespace.metadata.uid.unwrap_or_default();
                return hex::encode(&Sha256::digest(uid.as_bytes())[..3]);
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "namespace kube-system cannot be read"
            ),
        }
        failures += 1;
        tokio::time::sleep(backoff::delay(failures, 0.5)).await;
    }
}

/// Keeps the live view's deployments as the API server has them.
async fn feed_view(client: &Client, view: &SprintView) {
    let (store, writer) = reflector::store();
    let deployments = watcher(
        Api::<crds::ModelDeployment>::all(client.clone()),
        watcher::Config::default(),
    );
    let mut events = reflector(writer, deployments.default_backoff()).boxed();
    while events.next().await.is_some() {
        view.set_deployments(
            store
                .state()
                .iter()
                .map(|deployment| crds::ModelDeployment::clone(deployment)),
        );
    }
}
