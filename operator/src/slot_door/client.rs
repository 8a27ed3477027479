//! One call on one operator door: token, limits of time and size, what an answer means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::v1::slot_client::SlotClient;
use proto::v1::{Rehearsal, SlotReport, SlotWatchRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::{Target, messages};
use crate::model_deployment::{Demote, OPERATOR_PORT, Promote, Rehearse};

const CONNECT: Duration = Duration::from_secs(2);
/// A silent connection is given up after interval and timeout, each as long as this.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);
const PROMOTE: Duration = Duration::from_secs(3);
/// On top of the drain that was asked for.
const DEMOTE: Duration = Duration::from_secs(1);
const REHEARSE: Duration = Duration::from_secs(90);
/// Largest message that is read.
const MAX_MESSAGE: usize = 2 << 20;
/// Longest token that is sent.
const MAX_TOKEN: usize = 65_536;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The pod is not followed (any more).
    #[error("the operator door of pod {pod} is not followed: the pod is gone or not ours")]
    Unfollowed {
        /// Name.
        pod: String,
    },
    /// The token cannot be read.
    #[error("the token {} for operator doors cannot be read; check the projected volume", path.display())]
    Token {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What the file holds is no token.
    #[error("{} holds no token", path.display())]
    NoToken {
        /// Its file.
        path: PathBuf,
    },
    /// No connection.
    #[error("the operator door at {address} does not answer")]
    Connect {
        /// Pod IP.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The pod refused: it is not meant, or has seen a higher generation.
    #[error("pod at {address} refused: {message}")]
    Refused {
        /// Pod IP.
        address: String,
        /// What it said.
        message: String,
        /// The generation it has seen, when it said so.
        seen: Option<i64>,
    },
    /// The call failed.
    #[error("call to the operator door at {address} failed")]
    Call {
        /// Pod IP.
        address: String,
        /// Why.
        #[source]
        source: Box<Status>,
    },
}

impl Error {
    /// Label of metrics.
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

/// Connects.
pub(super) async fn connect(address: &str) -> Result<Channel, Error> {
    let failed = |source| Error::Connect {
        address: address.to_owned(),
        source,
    };
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    Endpoint::from_shared(format!("http://{host}:{OPERATOR_PORT}"))
        .map_err(failed)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(failed)
}

/// Starts the stream of reports.
pub(super) async fn watch(
    token_file: &Path,
    channel: Channel,
    target: &Target,
) -> Result<Streaming<SlotReport>, Error> {
    let message = SlotWatchRequest {
        key: Some(target.key()),
    };
    let request = authorized(token_file, message, None).await?;
    answer(&target.address, client(channel).watch(request).await)
}

/// Opens a chain door.
pub(super) async fn promote(
    token_file: &Path,
    channel: Option<Channel>,
    target: &Target,
    step: &Promote,
) -> Result<SlotReport, Error> {
    let request = authorized(token_file, messages::promote(target, step), Some(PROMOTE)).await?;
    let channel = reuse(channel, &target.address).await?;
    answer(&target.address, client(channel).promote(request).await)
}

/// Closes a chain door.
pub(super) async fn demote(
    token_file: &Path,
    channel: Option<Channel>,
    target: &Target,
    step: &Demote,
) -> Result<SlotReport, Error> {
    let patience = DEMOTE + Duration::from_millis(u64::from(step.drain_millis));
    let request = authorized(token_file, messages::demote(target, step), Some(patience)).await?;
    let channel = reuse(channel, &target.address).await?;
    answer(&target.address, client(channel).demote(request).await)
}

/// Runs a rehearsal.
pub(super) async fn rehearse(
    token_file: &Path,
    channel: Option<Channel>,
    target: &Target,
    step: &Rehearse,
) -> Result<Rehearsal, Error> {
    let request = authorized(token_file, messages::rehearse(target, step), Some(REHEARSE)).await?;
    let channel = reuse(channel, &target.address).await?;
    answer(&target.address, client(channel).rehearse(request).await)
}

fn client(channel: Channel) -> SlotClient<Channel> {
    SlotClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

async fn reuse(channel: Option<Channel>, address: &str) -> Result<Channel, Error> {
    match channel {
        Some(channel) => Ok(channel),
        None => connect(address).await,
    }
}

/// The token is renewed in its file: it is read for each call.
async fn authorized<T>(token_file: &Path, message: T, patience: Option<Duration>) -> Result<Request<T>, Error> {
    let text = tokio::fs::read_to_string(token_file)
        .await
        .map_err(|source| Error::Token {
            path: token_file.to_owned(),
            source,
        })?;
    let token = text.trim();
    let header = (!token.is_empty() && token.len() <= MAX_TOKEN)
        .then(|| format!("Bearer {token}").parse().ok())
        .flatten()
        .ok_or_else(|| Error::NoToken {
            path: token_file.to_owned(),
        })?;
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", header);
    if let Some(patience) = patience {
        request.set_timeout(patience);
    }
    Ok(request)
}

fn answer<T>(address: &str, result: Result<tonic::Response<T>, Status>) -> Result<T, Error> {
    result.map(tonic::Response::into_inner).map_err(|status| {
        if matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument) {
            Error::Refused {
                address: address.to_owned(),
                seen: generation_seen(status.message()),
                message: status.message().chars().take(512).collect(),
            }
        } else {
            Error::Call {
                address: address.to_owned(),
                source: Box::new(status),
            }
        }
    })
}

/// `… generation seen is 7` → 7.
fn generation_seen(message: &str) -> Option<i64> {
    let (_, after) = message.split_once("generation seen is ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).take(18).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_a_pod_has_seen_is_read_from_its_refusal() {
        let refusal = Status::failed_precondition("generation 6 of slot 0 is over: generation seen is 7");
        let Err(Error::Refused { seen, .. }) = answer::<()>("10.0.0.1", Err(refusal)) else {
            panic!("it is a refusal")
        };
        assert_eq!(seen, Some(7));
        assert_eq!(generation_seen("this pod is another"), None);
        assert_eq!(generation_seen("generation seen is many"), None);
    }
}
