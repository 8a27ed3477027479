//! Composition root: the file's reader, the ConfigMap's copier and the kubelet's registration, each a task of one set.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result};
use kube::Client;
use tokio::{sync::watch, task::JoinSet};

use super::{
    args,
    decide::Layout,
    registration::{self, Place},
    service::Service,
    source,
};

/// Runs until `stop` completes or a task ends by itself, which none should.
pub async fn run(args: args::Run, client: Option<Client>, stop: impl Future<Output = ()> + Send) -> Result<()> {
    let args::Run {
        node_name,
        folder,
        container_folder,
        plugins_folder,
        resource,
        config_map,
        poll_millis,
    } = args;
    let every = Duration::from_millis(poll_millis);
    tokio::fs::create_dir_all(&folder)
        .await
        .with_context(|| format!("making {}", folder.display()))?;
    let (devices, listed) = watch::channel(Vec::new());
    let endpoint = format!("{}.sock", resource.replace('/', "-"));
    let place = Place {
        folder: plugins_folder,
        resource,
        endpoint,
        every,
    };
    let service = Service {
        devices: listed,
        layout: Layout {
            on_node: folder.clone(),
            in_container: container_folder,
        },
    };
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    if let Some((client, name)) = client.zip(config_map) {
        let (folder, node) = (folder.clone(), node_name.clone());
        tasks.spawn(async move { source::copy_config_map(client, &name, &folder, &node).await });
    }
    tasks.spawn(async move {
        source::read_file(&folder, &node_name, every, &devices).await;
        Ok(())
    });
    tasks.spawn(async move {
        registration::run(&place, &service).await;
        Ok(())
    });
    tokio::select! {
        () = stop => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panicked)) => Err(panicked).context("a task of the plugin"),
            Some(Ok(Ok(()))) | None => anyhow::bail!("a task of the plugin ended"),
        },
    }
}
