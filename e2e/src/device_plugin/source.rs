//! Where the GPU file comes from: a ConfigMap writes it to the node's folder, the folder's file is what everybody reads.
//!
//! The ConfigMap is watched through the API server rather than mounted, because a mounted one changes only a minute later.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, time::sleep};

use super::{
    args::ConfigMapName,
    decide::{self, FILE_NAME},
    inventory,
    v1beta1::Device,
};

/// Reads the file now and then; the newest good list of devices is what `devices` holds. The first one is always announced,
/// an empty one too.
pub async fn read_file(folder: &Path, node: &str, every: Duration, devices: &watch::Sender<Vec<Device>>) {
    let path = folder.join(FILE_NAME);
    let mut last = None;
    let mut first = true;
    loop {
        let text = tokio::fs::read(&path).await.ok();
        if text.is_some() && text != last {
            match inventory::parse(text.as_deref().unwrap_or_default(), node) {
                Ok(inventory) => {
                    let listed = decide::devices(&inventory);
                    tracing::info!(gpus = listed.len(), "read the GPU file");
                    devices.send_if_modified(|old| std::mem::replace(old, listed.clone()) != listed || first);
                    first = false;
                }
                Err(refusal) => {
                    tracing::warn!(path = %path.display(), %refusal, "malformed GPU file, keeping the last good state");
                }
            }
            last = text;
        }
        sleep(every).await;
    }
}

/// Writes the node's entry of the ConfigMap to the folder whenever it changed. Ends only when the watch does.
pub async fn copy_config_map(client: Client, name: &ConfigMapName, folder: &Path, node: &str) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client, &name.namespace);
    let selected = watcher::Config::default().fields(&format!("metadata.name={}", name.name));
    let mut versions = Box::pin(watcher(api, selected).default_backoff().applied_objects());
    loop {
        match versions.try_next().await {
            Ok(Some(config_map)) => {
                if let Err(error) = write_entry(&config_map, folder, node).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "GPU file not written, keeping the last one"
                    );
                }
            }
            Ok(None) => anyhow::bail!("the watch of ConfigMap {}/{} ended", name.namespace, name.name),
            Err(error) => {
                tracing::warn!(error = %error, config_map = name.name, "ConfigMap not watched, trying again");
            }
        }
    }
}

/// A node without an entry has no GPUs. Malformed entries are not written.
pub async fn write_entry(config_map: &ConfigMap, folder: &Path, node: &str) -> Result<()> {
    let entry = config_map.data.as_ref().and_then(|data| data.get(node));
    let text = entry.map_or_else(|| decide::no_gpus(node), |text| decide::for_node(text, node));
    let path = folder.join(FILE_NAME);
    inventory::parse(text.as_bytes(), node).with_context(|| format!("entry {node} of the ConfigMap"))?;
    if tokio::fs::read(&path)
        .await
        .is_ok_and(|present| present == text.as_bytes())
    {
        return Ok(());
    }
    replace(&path, text.as_bytes()).await?;
    tracing::info!(path = %path.display(), "wrote the GPU file");
    Ok(())
}

/// Puts the library beside the GPU file.
pub async fn install(library: &Path, folder: &Path) -> Result<()> {
    let bytes = tokio::fs::read(library)
        .await
        .with_context(|| format!("reading {}", library.display()))?;
    tokio::fs::create_dir_all(folder)
        .await
        .with_context(|| format!("making {}", folder.display()))?;
    replace(&folder.join(decide::LIBRARY_NAME), &bytes).await
}

/// By renaming: a reader sees the old or the new, and what is mapped stays mapped.
async fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let next = path.with_extension("next");
    tokio::fs::write(&next, bytes)
        .await
        .with_context(|| format!("writing {}", next.display()))?;
    tokio::fs::rename(&next, path)
        .await
        .with_context(|| format!("replacing {}", path.display()))
}
