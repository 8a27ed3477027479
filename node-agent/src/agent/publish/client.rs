//! Box 4, the request itself: `PATCH …/gpunodes/NAME/status?fieldManager=gonka-fleet/agent&force=true`, body only
//! `{apiVersion, kind, metadata.name, status}`. Its answer tells the spec and, by its `Date`, the server's clock.

use std::time::{Duration, Instant};

use crds::gpu_node::HealthOverride;
use crds::{GpuNode, GpuNodeStatus};
use http::{HeaderMap, StatusCode};
use k8s_openapi::jiff::fmt::rfc2822::DateTimeParser;
use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use kube::core::Request;
use serde::Deserialize;
use serde_json::json;

use crate::agent::observe::{self, ClockReading};

/// Field manager of the agent.
pub const FIELD_MANAGER: &str = "gonka-fleet/agent";
const DEADLINE: Duration = Duration::from_secs(15);
/// Longest part of a refusal that is kept.
const MAX_REFUSAL: usize = 300;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a request.
    #[error("could not build the request for GpuNode {name}: is the node name valid?")]
    Build {
        /// Object.
        name: String,
        /// Cause.
        #[source]
        source: kube::core::request::Error,
    },
    /// No answer.
    #[error("the API server did not answer")]
    Send(#[source] Box<kube::Error>),
    /// No answer in time.
    #[error("the API server did not answer within {DEADLINE:?}")]
    Deadline,
    /// An answer that is a refusal.
    #[error("the API server refused the status of GpuNode {name} with {status}: {text}")]
    Refused {
        /// Object.
        name: String,
        /// HTTP status.
        status: u16,
        /// Beginning of the answer.
        text: String,
    },
    /// An answer that is no GpuNode.
    #[error("the API server answered with something that is no GpuNode")]
    Parse(#[source] serde_json::Error),
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The write (or its dry run) was accepted.
    Accepted(Seen),
    /// There is no such object.
    Absent,
}

/// What an accepted write shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Of the object: another one means that it was made anew, without our status.
    pub uid: Option<String>,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Overrides of the spec.
    pub overrides: Vec<HealthOverride>,
    /// The server's clock against ours.
    pub clock: Option<ClockReading>,
}

/// The part of a GpuNode that is read.
#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    metadata: StoredMetadata,
    #[serde(default)]
    spec: StoredSpec,
}

#[derive(Default, Deserialize)]
struct StoredMetadata {
    uid: Option<String>,
    generation: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSpec {
    #[serde(default)]
    health_overrides: Option<Vec<HealthOverride>>,
}

/// Writes one object's status.
#[derive(Clone)]
pub struct Client {
    client: kube::Client,
    node_name: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("node_name", &self.node_name)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// For the object of this node.
    pub fn new(client: kube::Client, node_name: String) -> Self {
        Self { client, node_name }
    }

    /// Whose object it is.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// Applies the status. With `dry_run` the server answers as if, and stores nothing.
    pub async fn apply(&self, status: &GpuNodeStatus, dry_run: bool) -> Result<Answer, Error> {
        let request = self.request(status, dry_run)?;
        let begun = Instant::now();
        let (code, headers, body) = tokio::time::timeout(DEADLINE, self.send(request))
            .await
            .map_err(|_| Error::Deadline)?
            .map_err(|source| Error::Send(Box::new(source)))?;
        let clock = compare_clocks(&headers, begun.elapsed());
        match code {
            StatusCode::NOT_FOUND => Ok(Answer::Absent),
            code if code.is_success() => {
                let stored: Stored = serde_json::from_slice(&body).map_err(Error::Parse)?;
                Ok(Answer::Accepted(Seen {
                    uid: stored.metadata.uid,
                    generation: stored.metadata.generation,
                    overrides: stored.spec.health_overrides.unwrap_or_default(),
                    clock,
                }))
            }
            code => Err(Error::Refused {
                name: self.node_name.clone(),
                status: code.as_u16(),
                text: String::from_utf8_lossy(&body).chars().take(MAX_REFUSAL).collect(),
            }),
        }
    }

    fn request(&self, status: &GpuNodeStatus, dry_run: bool) -> Result<http::Request<Vec<u8>>, Error> {
        let document = json!({
            "apiVersion": GpuNode::api_version(&()),
            "kind": GpuNode::kind(&()),
            "metadata": {"name": self.node_name},
            "status": status,
        });
        let parameters = PatchParams {
            dry_run,
            ..PatchParams::apply(FIELD_MANAGER).force()
        };
        Request::new(GpuNode::url_path(&(), None))
            .patch_subresource("status", &self.node_name, &parameters, &Patch::Apply(&document))
            .map_err(|source| Error::Build {
                name: self.node_name.clone(),
                source,
            })
    }

    async fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<(StatusCode, HeaderMap, bytes::Bytes), kube::Error> {
        let answer = self.client.send(request.map(Body::from)).await?;
        let (head, body) = answer.into_parts();
        Ok((head.status, head.headers, body.collect_bytes().await?))
    }
}

/// `Date` has whole seconds and was stamped somewhere in the round trip: the offset is known to half of both.
fn compare_clocks(headers: &HeaderMap, round_trip: Duration) -> Option<ClockReading> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    let theirs = DateTimeParser::new().parse_timestamp(date).ok()?.as_millisecond() + 500;
    let now = observe::now();
    let half_trip = round_trip.as_millis() as i64 / 2;
    Some(ClockReading {
        offset_millis: now.0.as_millisecond() - half_trip - theirs,
        error_millis: 500 + half_trip,
        taken_at: now,
    })
}
