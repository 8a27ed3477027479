//! A namespace for the length of one test.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};

use super::Cluster;
use crate::{args::Environment, harness::process::until};

const DELETE_LIMIT: Duration = Duration::from_secs(60);

impl Cluster {
    /// Makes a namespace `test-NAME-…`, hands it to `body`, and deletes it; when `body` fails, its pods' states go to
    /// the log first.
    pub async fn with_temp_namespace<F, T>(&self, name: &str, body: F) -> Result<T>
    where
        F: AsyncFnOnce(Client, String) -> Result<T>,
    {
        let client = self.client().await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let metadata = ObjectMeta {
            generate_name: Some(format!("test-{name}-")),
            ..ObjectMeta::default()
        };
        let wanted = Namespace {
            metadata,
            ..Namespace::default()
        };
        let made = namespaces
            .create(&PostParams::default(), &wanted)
            .await
            .context("cannot make a test namespace")?;
        let namespace = made.name_any();
        let body = std::panic::AssertUnwindSafe(body(client.clone(), namespace.clone()));
        let ended = futures::FutureExt::catch_unwind(body).await;
        if !matches!(ended, Ok(Ok(_))) {
            show_pods(&client, &namespace).await;
        }
        if !Environment::read().keep {
            namespaces
                .delete(&namespace, &DeleteParams::default())
                .await
                .context("cannot delete the test namespace")?;
            until(DELETE_LIMIT, async || {
                matches!(namespaces.get_opt(&namespace).await, Ok(None))
            })
            .await;
        }
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

async fn show_pods(client: &Client, namespace: &str) {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await;
    for pod in pods.into_iter().flatten() {
        let status = serde_json::to_string(&pod.status).unwrap_or_default();
        tracing::warn!(
            namespace,
            pod = pod.name_any(),
            status,
            "state of a pod when the test failed"
        );
    }
}
