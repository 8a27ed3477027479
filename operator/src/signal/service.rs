//! The gRPC side of FleetSignal: who asks, for which chain.

use std::sync::Arc;

use proto::v1::fleet_signal_server::FleetSignal;
use proto::v1::{Frame, WatchRequest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::hub::Hub;
use crate::trust::{Trust, TrustError};

/// Answers `Watch`.
#[derive(Debug)]
pub struct Service {
    hub: Arc<Hub>,
    trust: Arc<Trust>,
}

impl Service {
    /// Serves the frames of `hub` to whom `trust` accepts.
    pub fn new(hub: Arc<Hub>, trust: Arc<Trust>) -> Self {
        Self { hub, trust }
    }
}

#[tonic::async_trait]
impl FleetSignal for Service {
    type WatchStream = ReceiverStream<Result<Frame, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(str::to_owned);
        let identity = self.trust.verify(token.as_deref()).await.map_err(|error| match error {
            TrustError::NoKeys => Status::unavailable(error.to_string()),
            TrustError::Missing { .. } | TrustError::Refused(_) => Status::unauthenticated(error.to_string()),
        })?;
        let wanted = request.into_inner();
        let frames = self.hub.subscribe(&wanted.chain_id, wanted.resume_sequence)?;
        tracing::info!(
            subject = identity.subject,
            pod = identity.pod,
            client = wanted.client,
            chain = wanted.chain_id,
            "FleetSignal watch"
        );
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}
