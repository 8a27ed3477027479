//! Observe: watches every replica behind every FleetSignal address at once; whoever is first with a new height is believed.

use super::{accept, replicas, secure};
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
use tonic::{Request, Status, metadata::MetadataValue};

/// First and longest pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A replica must begin to answer within this time.
const ANSWER: Duration = Duration::from_secs(3);
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
    /// `https://gonka-fleet-signal.gonka-system.svc:9400`.
    pub address: String,
    /// Name its replicas must prove; else the host of the address.
    pub server_name: Option<String>,
    /// File of the authorities that vouch for it; it is renewed there.
    pub authorities: Option<PathBuf>,
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
    #[error(
        "{0} is not https: a token is shown to nobody who has not proven a name, and to nobody who listens on the way"
    )]
    Plaintext(String),
    #[error("cannot read the token {0}: is the projected volume mounted?")]
    Token(PathBuf, #[source] std::io::Error),
    #[error("the token in {0} is no header value")]
    TokenText(PathBuf),
    #[error("no connection to FleetSignal")]
    Connect(#[from] secure::Error),
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
            watching
                .entry(address)
                .or_insert_with(|| tasks.spawn(watch_replica(Arc::clone(&core), source.clone(), address)));
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

/// Host and port of an address.
fn place(address: &str) -> (String, u16) {
    let uri = address.parse::<http::Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    (host, uri.port_u16().unwrap_or(443))
}

/// What a name means now; nothing when nobody says.
async fn resolve(address: &str) -> BTreeSet<SocketAddr> {
    match tokio::time::timeout(NAMED, lookup_host(place(address))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            tracing::info!(address, %error, "name is not resolved");
            BTreeSet::new()
        }
        Err(_) => BTreeSet::new(),
    }
}

/// Watches one replica for ever.
async fn watch_replica(core: Arc<Core>, source: Source, replica: SocketAddr) {
    let mut pause = FIRST_PAUSE;
    let mut sequence = None;
    let mut told = String::new();
    let mut failures = 0;
    loop {
        let before = sequence.clone();
        let Err(error) = watch(&core, &source, replica, &mut sequence).await;
        if sequence != before {
            pause = FIRST_PAUSE;
        }
        failures += 1;
        let shown = with_causes(&error);
        if shown == told {
            tracing::debug!(%replica, error = shown, "FleetSignal is still not watched");
        } else {
            tracing::warn!(%replica, error = shown, "FleetSignal is not watched; tried again");
            told = shown;
        }
        tokio::time::sleep(spread(pause, &source.client, failures)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Up to a fifth more or less, from the pod's own name: a fleet that lost a replica does not come back to it all at once.
fn spread(pause: Duration, client: &str, failures: u32) -> Duration {
    let hash = client.bytes().fold(0x811c_9dc5_u32 ^ failures, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    pause.mul_f64(0.8 + 0.4 * f64::from(hash) / f64::from(u32::MAX))
}

async fn watch(
    core: &Core,
    source: &Source,
    replica: SocketAddr,
    sequence: &mut Option<(String, u64)>,
) -> Result<std::convert::Infallible, Error> {
    if !source.address.starts_with("https://") {
        return Err(Error::Plaintext(source.address.clone()));
    }
    let name = source.server_name.clone().unwrap_or_else(|| place(&source.address).0);
    let channel = secure::connect(replica, &name, source.authorities.as_deref()).await?;
    let mut request = Request::new(WatchRequest {
        chain_id: source.chain_id.clone(),
        host_uid: source.host_uid.clone(),
        resume_sequence: sequence.as_ref().map_or(0, |(_, sequence)| *sequence),
        client: source.client.clone(),
    });
    if let Some(path) = &source.token {
        request.metadata_mut().insert("authorization", read_token(path)?);
    }
    let mut frames = tokio::time::timeout(ANSWER, FleetSignalClient::new(channel).watch(request))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_comes_back_spread_over_two_fifths_of_the_pause() {
        let pauses: BTreeSet<u128> = (0..100)
            .map(|pod| spread(LONGEST_PAUSE, &format!("tiny-{pod}"), 1).as_millis())
            .collect();
        assert!(pauses.len() > 50, "{pauses:?}");
        assert!(pauses.iter().all(|pause| (4_000..=6_000).contains(pause)), "{pauses:?}");
        assert_ne!(spread(LONGEST_PAUSE, "a", 1), spread(LONGEST_PAUSE, "a", 2));
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(
            place("https://signal.gonka.svc:9400"),
            ("signal.gonka.svc".to_owned(), 9400)
        );
        assert_eq!(place("https://[::1]"), ("::1".to_owned(), 443));
    }
}
