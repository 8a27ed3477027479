//! GpuNode controller: one object per machine with GPUs, and the agent DaemonSet that fills it.
//!
//! observe ([`observe`]) → decide ([`decide`]) → apply. Creates, never deletes: a machine that is gone is a fact for people.

pub mod decide;
pub mod observe;

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};

use crate::apply;
use crate::context::Context;

/// Field manager and metric label.
const CONTROLLER: &str = "gpu-node";

/// Why a pass failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The world could not be read.
    #[error("nodes, GpuNodes or the agent DaemonSet could not be read")]
    Observe(#[source] observe::Error),
    /// A write failed.
    #[error("a GpuNode or the agent DaemonSet could not be written")]
    Apply(#[source] apply::Error),
}

impl Error {
    /// Label of metrics.
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

/// Keeps GpuNodes and the agent until cancelled. One pass covers the fleet: it is a set comparison, linear in nodes.
pub async fn run(context: Context) {
    let nodes: Api<PartialObjectMeta<Node>> = Api::all(context.client.clone());
    let mut changes = watcher(nodes, watcher::Config::default()).default_backoff().boxed();
    let failures = context.metrics.failures(CONTROLLER);
    loop {
        let pause = match pass(&context).await {
            Ok(_) => {
                failures.over(CONTROLLER);
                Duration::from_secs(context.settings.resync_seconds)
            }
            Err(error) => {
                let failures = failures.another(CONTROLLER);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    category = error.category(),
                    "GpuNode pass failed"
                );
                crate::backoff::wait(CONTROLLER, failures)
            }
        };
        wait_for_change(&mut changes, pause).await;
    }
}

/// Waits for `pause`, or for a burst of changes of nodes to settle.
async fn wait_for_change<S, T>(changes: &mut S, pause: Duration)
where
    S: futures::Stream<Item = T> + Unpin,
{
    if tokio::time::timeout(pause, changes.next()).await.is_ok() {
        let settle = Duration::from_millis(500);
        while tokio::time::timeout(settle, changes.next())
            .await
            .is_ok_and(|event| event.is_some())
        {}
    }
}

/// One observe → decide → apply.
pub async fn pass(context: &Context) -> Result<apply::Applied, Error> {
    let pass = async {
        let observed = observe::observe(context).await.map_err(Error::Observe)?;
        let desired = decide::decide(&observed);
        apply::apply(
            &context.client,
            &context.recorder(),
            &crds::labels::field_manager(CONTROLLER),
            &desired,
        )
        .await
        .map_err(Error::Apply)
    };
    let applied = context.metrics.timed(CONTROLLER, Error::category, pass).await?;
    context.metrics.wrote(CONTROLLER, applied.writes);
    Ok(applied)
}
