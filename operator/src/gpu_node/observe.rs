//! Box 2: nodes with GPUs, GpuNodes and the agent DaemonSet, as one value.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crds::GpuNode;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use serde::{Deserialize, Serialize};

use crate::context::Context;

/// Everything the decision needs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Observed {
    /// Names of nodes with the GPU label.
    pub gpu_nodes: BTreeSet<String>,
    /// Names of GpuNodes that exist.
    pub known: BTreeSet<String>,
    /// The agent DaemonSet from the chart; absent when Helm owns it.
    pub agent_template: Option<DaemonSet>,
    /// The DaemonSet as it is.
    pub agent: Option<DaemonSet>,
}

/// Why the world could not be read.
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
    /// The template's file cannot be read.
    #[error("the agent template {} cannot be read; check the ConfigMap the chart mounts there", path.display())]
    Template {
        /// File of the flag.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The template is not a DaemonSet.
    #[error("the agent template {} is not a DaemonSet", path.display())]
    Shape {
        /// File of the flag.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_yaml::Error,
    },
}

/// Reads the world once.
pub async fn observe(context: &Context) -> Result<Observed, Error> {
    let client = &context.client;
    let failed = |what| {
        move |source| Error::Api {
            what,
            source: Box::new(source),
        }
    };
    let with_gpus = ListParams::default().labels(&context.settings.gpu_node_selector);
    let nodes = Api::<Node>::all(client.clone())
        .list_metadata(&with_gpus)
        .await
        .map_err(failed("nodes"))?;
    let known = Api::<GpuNode>::all(client.clone())
        .list_metadata(&ListParams::default())
        .await
        .map_err(failed("gpunodes"))?;
    let agent_template = match &context.settings.agent_template_file {
        Some(path) => Some(template(path.clone()).await?),
        None => None,
    };
    let agent = match agent_template
        .as_ref()
        .and_then(|template| template.metadata.name.as_deref())
    {
        Some(name) => Api::<DaemonSet>::namespaced(client.clone(), &context.settings.namespace)
            .get_opt(name)
            .await
            .map_err(failed("the agent DaemonSet"))?,
        None => None,
    };
    let names = |list: kube::core::ObjectList<_>| -> BTreeSet<String> {
        list.items
            .into_iter()
            .filter_map(|item: kube::core::PartialObjectMeta<Node>| item.metadata.name)
            .collect()
    };
    Ok(Observed {
        gpu_nodes: names(nodes),
        known: known.items.into_iter().filter_map(|item| item.metadata.name).collect(),
        agent_template,
        agent,
    })
}

async fn template(path: PathBuf) -> Result<DaemonSet, Error> {
    let text = match tokio::fs::read_to_string(&path).await {
        Ok(text) => text,
        Err(source) => return Err(Error::Template { path, source }),
    };
    serde_yaml::from_str(&text).map_err(|source| Error::Shape { path, source })
}
