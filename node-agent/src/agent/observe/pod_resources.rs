//! Box 2, the kubelet: which pod holds which GPU, from the PodResources socket. Cached; never asked by a scrape.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use tonic::transport::{Channel, Endpoint};

/// Code generated from `proto/podresources.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated code"
)]
pub mod v1 {
    include!("../../gen/podresources.v1.rs");
}

/// The kubelet's own limit on the answer.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// More devices than any machine has.
const MAX_ALLOCATIONS: usize = 1024;
const DEADLINE: Duration = Duration::from_secs(5);
/// Resources of this prefix are GPUs: `nvidia.com/gpu`, `nvidia.com/mig-…`.
const RESOURCE_PREFIX: &str = "nvidia.com/";

/// One answer of the kubelet.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReading {
    /// When.
    pub taken_at: Time,
    /// GPUs that pods hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocations: Vec<Allocation>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A GPU that a container holds.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Id the device plugin gave it, usually the UUID.
    pub device: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Container.
    pub container: String,
}

/// Why the kubelet did not answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the socket path is not a valid address")]
    Address(#[source] tonic::transport::Error),
    #[error("could not connect to the kubelet's socket")]
    Connect(#[source] tonic::transport::Error),
    #[error("the kubelet refused to list pod resources")]
    List(#[source] Box<tonic::Status>),
    #[error("the kubelet did not answer in time")]
    Deadline,
}

/// Asks once; a kubelet that does not answer is a reading with an error.
pub async fn read(socket: &Path) -> PodReading {
    let answer = match tokio::time::timeout(DEADLINE, list(socket)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Deadline),
    };
    match answer {
        Ok(answer) => PodReading {
            taken_at: super::now(),
            allocations: allocations(answer),
            error: None,
        },
        Err(error) => PodReading {
            taken_at: super::now(),
            allocations: Vec::new(),
            error: Some(error.to_string()),
        },
    }
}

async fn list(socket: &Path) -> Result<v1::ListPodResourcesResponse, Error> {
    let channel: Channel = Endpoint::from_shared(format!("unix:{}", socket.display()))
        .map_err(Error::Address)?
        .connect()
        .await
        .map_err(Error::Connect)?;
    let mut client = v1::pod_resources_lister_client::PodResourcesListerClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = client
        .list(v1::ListPodResourcesRequest {})
        .await
        .map_err(|status| Error::List(Box::new(status)))?;
    Ok(answer.into_inner())
}

/// The GPUs of an answer, sorted.
fn allocations(answer: v1::ListPodResourcesResponse) -> Vec<Allocation> {
    let mut found: Vec<Allocation> = Vec::new();
    for pod in answer.pod_resources {
        for container in pod.containers {
            let devices = container
                .devices
                .into_iter()
                .filter(|devices| devices.resource_name.starts_with(RESOURCE_PREFIX))
                .flat_map(|devices| devices.device_ids);
            found.extend(devices.map(|device| Allocation {
                device,
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                container: container.name.clone(),
            }));
        }
    }
    found.sort();
    found.truncate(MAX_ALLOCATIONS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gpus_are_taken_and_sorted() {
        let devices = |resource: &str, ids: &[&str]| v1::ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let answer = v1::ListPodResourcesResponse {
            pod_resources: vec![v1::PodResources {
                name: "slot-7f".to_owned(),
                namespace: "gonka".to_owned(),
                containers: vec![v1::ContainerResources {
                    name: "slot".to_owned(),
                    devices: vec![
                        devices("nvidia.com/gpu", &["GPU-b", "GPU-a"]),
                        devices("example.com/nic", &["nic0"]),
                    ],
                }],
            }],
        };
        let found: Vec<String> = allocations(answer).into_iter().map(|found| found.device).collect();
        assert_eq!(found, ["GPU-a", "GPU-b"]);
    }
}
