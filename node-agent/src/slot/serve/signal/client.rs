//! Observe: watches every replica behind every FleetSignal address at once; whoever is first with a new height is believed.

use super::{accept, replicas};
use crate::slot::{clock::now_ms, serve::state::Core};
use proto::v1::{Frame, WatchRequest, fleet_signal_client::FleetSignalClient};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    net::lookup_host,
    task::{AbortHandle, JoinSet},
};
use tonic::{Request, Status, metadata::MetadataValue, transport::Endpoint};

/// First and longest pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection must stand within this time.
const CONNECT: Duration = Duration::from_secs(3);
/// Heartbeats come every five seconds; a source silent for longer is left.
const SILENCE: Duration = Duration::from_secs(20);
/// Between two looks at what a name means.
const LOOK_UP: Duration = Duration::from_secs(10);
/// A name server that takes longer does not answer.
const NAMED: Duration = Duration::from_secs(3);
/// Longest token that is read.
const MAX_TOKEN: u64 = 65_536;

/// Where and as whom to watch.
#[derive(Debug, Clone)]
pub struct Source {
    /// `http://10.0.0.1:9400`.
    pub address: String,
    /// File of the token; it is renewed there.
    pub token: Option<PathBuf>,
    /// Chain expected; empty = any.
    pub chain_id: String,
    /// Whose window.
    pub host_uid: String,
    /// Who asks.
    pub client: String,
}

#[derive(Debug, Error)]
enum Error {
    #[error("cannot read the token {0}: is the projected volume mounted?")]
    Token(PathBuf, #[source] std::io::Error),
    #[error("the token in {0} is no header value")]
    TokenText(PathBuf),
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("the source ended the watch")]
    Watch(#[source] Status),
    #[error("the source closed the watch")]
    Closed,
    #[error("the source has been silent for {}s", SILENCE.as_secs())]
    Silent,
}

/// Watches every replica behind one address for ever.
pub async fn run(core: Arc<Core>, source: Source) {
    let mut tasks = JoinSet::new();
    let mut watching: BTreeMap<SocketAddr, AbortHandle> = BTreeMap::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let known: BTreeSet<SocketAddr> = watching.keys().copied().collect();
        let wanted = replicas::watched(&known, &resolve(&source.address).await);
        watching.retain(|address, task| {
            let stays = wanted.contains(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for address in wanted {
            watching.entry(address).or_insert_with(|| {
                let source = Source {
                    address: format!("http://{address}"),
                    ..source.clone()
                };
                tasks.spawn(watch_replica(Arc::clone(&core), source))
            });
        }
        pause = if watching.is_empty() {
            (pause * 2).min(LONGEST_PAUSE)
        } else {
            LOOK_UP
        };
        tokio::time::sleep(pause).await;
        // Tasks that were aborted.
        while tasks.try_join_next().is_some() {}
    }
}

/// What a name means now; nothing when nobody says.
async fn resolve(address: &str) -> BTreeSet<SocketAddr> {
    let uri = address.parse::<http::Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(80);
    match tokio::time::timeout(NAMED, lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            tracing::info!(address, %error, "name is not resolved");
            BTreeSet::new()
        }
        Err(_) => BTreeSet::new(),
    }
}

/// Watches one replica for ever.
async fn watch_replica(core: Arc<Core>, source: Source) {
    let mut pause = FIRST_PAUSE;
    let mut sequence = None;
    loop {
        let before = sequence.clone();
        let Err(error) = watch(&core, &source, &mut sequence).await;
        if sequence != before {
            pause = FIRST_PAUSE;
        }
        tracing::info!(
            address = source.address,
            error = &error as &dyn std::error::Error,
            "signal is not watched"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn watch(
    core: &Core,
    source: &Source,
    sequence: &mut Option<(String, u64)>,
) -> Result<std::convert::Infallible, Error> {
    let channel = Endpoint::from_shared(source.address.clone())
        .map_err(Error::Connect)?
        .connect_timeout(CONNECT)
        .connect()
        .await
        .map_err(Error::Connect)?;
    let mut request = Request::new(WatchRequest {
        chain_id: source.chain_id.clone(),
        host_uid: source.host_uid.clone(),
        resume_sequence: sequence.as_ref().map_or(0, |(_, sequence)| *sequence),
        client: source.client.clone(),
    });
    if let Some(path) = &source.token {
        request.metadata_mut().insert("authorization", read_token(path)?);
    }
    let mut frames = tokio::time::timeout(CONNECT, FleetSignalClient::new(channel).watch(request))
        .await
        .map_err(|_| Error::Silent)?
        .map_err(Error::Watch)?
        .into_inner();
    loop {
        let frame = tokio::time::timeout(SILENCE, frames.message())
            .await
            .map_err(|_| Error::Silent)?
            .map_err(Error::Watch)?
            .ok_or(Error::Closed)?;
        *sequence = Some((frame.source.clone(), frame.sequence));
        take(core, frame, &source.chain_id);
    }
}

fn take(core: &Core, frame: Frame, chain_id: &str) {
    let now = now_ms();
    let view = core.read(|state| accept(state.signal.as_ref(), frame, chain_id, now));
    if let Some(view) = view {
        core.update(|state| state.take_view(view));
    }
}

fn read_token(path: &Path) -> Result<MetadataValue<tonic::metadata::Ascii>, Error> {
    let read = |source| Error::Token(path.to_owned(), source);
    if std::fs::metadata(path).map_err(read)?.len() > MAX_TOKEN {
        return Err(Error::TokenText(path.to_owned()));
    }
    let token = std::fs::read_to_string(path).map_err(read)?;
    format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| Error::TokenText(path.to_owned()))
}
