//! The kubelet's PodResources socket: read when it is there, an error as data when it is not or does not answer.

use std::time::Duration;

use node_agent::agent::observe::pod_resources::{read, v1};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

struct Kubelet;

#[tonic::async_trait]
impl v1::pod_resources_lister_server::PodResourcesLister for Kubelet {
    async fn list(
        &self,
        _request: Request<v1::ListPodResourcesRequest>,
    ) -> Result<Response<v1::ListPodResourcesResponse>, Status> {
        Ok(Response::new(v1::ListPodResourcesResponse {
            pod_resources: vec![v1::PodResources {
                name: "slot-x7k2p".to_owned(),
                namespace: "gonka".to_owned(),
                containers: vec![v1::ContainerResources {
                    name: "slot".to_owned(),
                    devices: vec![v1::ContainerDevices {
                        resource_name: "nvidia.com/gpu".to_owned(),
                        device_ids: vec!["GPU-a".to_owned()],
                    }],
                }],
            }],
        }))
    }
}

#[tokio::test]
async fn the_kubelet_says_which_pod_holds_which_gpu() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("kubelet.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut tasks = JoinSet::new();
    tasks.spawn(
        tonic::transport::Server::builder()
            .add_service(v1::pod_resources_lister_server::PodResourcesListerServer::new(Kubelet))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let reading = read(&socket).await;
    assert_eq!(reading.error, None);
    assert_eq!(reading.allocations.len(), 1);
    assert_eq!(reading.allocations[0].device, "GPU-a");
    assert_eq!(reading.allocations[0].pod, "slot-x7k2p");
}

#[tokio::test]
async fn a_kubelet_that_is_not_there_is_an_error_as_data() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let reading = read(&folder.path().join("kubelet.sock")).await;
    assert!(reading.allocations.is_empty());
    assert!(reading.error.is_some());
}

#[tokio::test]
async fn a_kubelet_that_does_not_answer_is_an_error_as_data() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("kubelet.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let reading = tokio::time::timeout(Duration::from_secs(60), read(&socket))
        .await
        .expect("it gives up by itself");
    assert!(reading.error.is_some());
}
