//! Simulated GPUs on every node: the ConfigMap, the device plugin, and the label a GPU feature discovery would set.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};

use super::{repository, until};
use crate::harness::Cluster;

/// What every node gets.
pub const SAMPLE: &str = "e2e/simulated-nvml/samples/8xH200.yaml";

/// Installs GPUs on all nodes and waits until the kubelets offer them.
pub async fn install(cluster: &Cluster) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client().await?);
    let names: Vec<String> = nodes
        .list(&ListParams::default())
        .await
        .context("nodes cannot be listed")?
        .items
        .into_iter()
        .filter_map(|node| node.metadata.name)
        .collect();
    let sample = repository().join(SAMPLE);
    let mut create = vec![
        "-n".to_owned(),
        "kube-system".into(),
        "create".into(),
        "configmap".into(),
        "simulated-gpus".into(),
    ];
    create.extend(
        names
            .iter()
            .map(|name| format!("--from-file={name}={}", sample.display())),
    );
    cluster.kubectl(&create).await?;
    cluster
        .kubectl(&["label", "nodes", "--all", "nvidia.com/gpu.present=true"])
        .await?;
    let manifest = repository().join("e2e/manifests/gpu-device-plugin.yaml");
    cluster
        .kubectl(&["apply".as_ref(), "-f".as_ref(), manifest.as_os_str()])
        .await?;
    until("nvidia.com/gpu on every node", Duration::from_secs(90), async || {
        let list = nodes.list(&ListParams::default()).await?;
        let without: Vec<String> = list
            .items
            .iter()
            .filter(|node| gpus(node) == 0)
            .filter_map(|node| node.metadata.name.clone())
            .collect();
        Ok(if without.is_empty() {
            Ok(())
        } else {
            Err(format!("no GPUs yet on {}", without.join(", ")))
        })
    })
    .await
}

fn gpus(node: &Node) -> u64 {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    allocatable
        .and_then(|all| all.get("nvidia.com/gpu"))
        .and_then(|quantity| quantity.0.parse().ok())
        .unwrap_or(0)
}
