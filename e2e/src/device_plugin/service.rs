//! The plugin's own door, on a unix socket: the kubelet lists, watches and allocates here.

use futures::{Stream, StreamExt, stream::BoxStream};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{
    decide::{self, Layout},
    v1beta1::{
        AllocateRequest, AllocateResponse, Device, DevicePluginOptions, Empty, ListAndWatchResponse,
        PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse,
        device_plugin_server::DevicePlugin,
    },
};

/// What the kubelet may ask of this plugin.
pub const OPTIONS: DevicePluginOptions = DevicePluginOptions {
    pre_start_required: false,
    get_preferred_allocation_available: true,
};

#[derive(Debug, Clone)]
pub struct Service {
    pub devices: watch::Receiver<Vec<Device>>,
    pub layout: Layout,
}

/// The list at once and again whenever it changed.
fn lists(devices: watch::Receiver<Vec<Device>>) -> impl Stream<Item = Result<ListAndWatchResponse, Status>> {
    WatchStream::new(devices).map(|devices| Ok(ListAndWatchResponse { devices }))
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(OPTIONS))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        tracing::info!("the kubelet watches");
        Ok(Response::new(lists(self.devices.clone()).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Ok(Response::new(decide::prefer(&self.devices.borrow(), request.get_ref())))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let ids: Vec<_> = request
            .get_ref()
            .container_requests
            .iter()
            .flat_map(|container| &container.devices_ids)
            .collect();
        tracing::info!(?ids, "the kubelet allocates");
        let response = decide::allocate(&self.devices.borrow(), &self.layout, request.get_ref());
        response
            .map(Response::new)
            .map_err(|refused| Status::failed_precondition(refused.to_string()))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
