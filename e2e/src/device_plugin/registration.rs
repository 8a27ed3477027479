//! Keeps the plugin known to the kubelet: serves its socket, registers, and does both again when the kubelet restarted.
//!
//! A restarting kubelet removes every socket in its plugin folder and makes a new `kubelet.sock`; either is the sign.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::UnixListener,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Endpoint, Server};

use super::{
    service::{OPTIONS, Service},
    v1beta1::{RegisterRequest, device_plugin_server::DevicePluginServer, registration_client::RegistrationClient},
};

const API_VERSION: &str = "v1beta1";
const KUBELET_SOCKET: &str = "kubelet.sock";
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Under which name, and where, the kubelet finds this plugin.
#[derive(Debug, Clone)]
pub struct Place {
    /// The kubelet's plugin folder.
    pub folder: PathBuf,
    pub resource: String,
    /// File name of the plugin's socket in that folder.
    pub endpoint: String,
    /// How often the sockets are looked at.
    pub every: Duration,
}

/// One socket file: a new one at the same path is another.
type Identity = (u64, u64, i64, i64);

async fn identify(path: &Path) -> Option<Identity> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Until stopped from outside. Failures are told and tried again: the kubelet may be away for as long as it likes.
///
/// Begins when the GPUs are known: a kubelet that is told of none fails the pods that had some before a reboot.
pub async fn run(place: &Place, service: &Service) {
    // An error means that nobody reads the file any more, which ends the program anyway.
    service.devices.clone().changed().await.ok();
    loop {
        if let Err(error) = serve_one_kubelet(place, service).await {
            tracing::warn!(error = format!("{error:#}"), "not registered, trying again");
        }
        sleep(place.every).await;
    }
}

/// Returns when the kubelet that was there at the start no longer is.
async fn serve_one_kubelet(place: &Place, service: &Service) -> Result<()> {
    let kubelet = place.folder.join(KUBELET_SOCKET);
    let seen = loop {
        match identify(&kubelet).await {
            Some(identity) => break identity,
            None => sleep(place.every).await,
        }
    };
    let own = place.folder.join(&place.endpoint);
    if let Err(error) = tokio::fs::remove_file(&own).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("removing the old socket {}", own.display()));
    }
    let listener = UnixListener::bind(&own).with_context(|| format!("listening on {}", own.display()))?;
    let bound = identify(&own).await;
    let server = Server::builder()
        .add_service(DevicePluginServer::new(service.clone()))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let watched = async {
        register(place, &kubelet).await?;
        tracing::info!(resource = place.resource, "registered with the kubelet");
        while identify(&kubelet).await == Some(seen) && identify(&own).await == bound {
            sleep(place.every).await;
        }
        tracing::info!("the kubelet restarted");
        anyhow::Ok(())
    };
    tokio::select! {
        result = server => result.context("serving the plugin's socket"),
        result = watched => result,
    }
}

async fn register(place: &Place, kubelet: &Path) -> Result<()> {
    let request = RegisterRequest {
        version: API_VERSION.into(),
        endpoint: place.endpoint.clone(),
        resource_name: place.resource.clone(),
        options: Some(OPTIONS),
    };
    let address = format!("unix://{}", kubelet.display());
    let registered = async {
        let channel = Endpoint::from_shared(address.clone())?.connect().await?;
        RegistrationClient::new(channel).register(request).await?;
        anyhow::Ok(())
    };
    timeout(REGISTER_TIMEOUT, registered)
        .await
        .context("no answer")
        .flatten()
        .with_context(|| format!("registering at {address}"))
}
