//! Who may listen: service account tokens of this cluster, checked offline with keys kept on disk.

mod keys;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::{Validation, decode, decode_header};
use kube::Client;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use keys::{Jwks, KeyError};

/// Path of the keys on the API server. The discovery document names an address of its own, which need not be reachable.
const JWKS_PATH: &str = "/openid/v1/jwks";
/// Seconds by which clocks may differ.
const LEEWAY: u64 = 30;
/// Shortest time between fetches for a key that is not known.
const RATE: Duration = Duration::from_secs(30);
/// Time between fetches otherwise.
const REFRESH: Duration = Duration::from_secs(600);
const FETCH: Duration = Duration::from_secs(3);
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

/// Why a token is not accepted. Says nothing of the token's content.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum TrustError {
    /// No token.
    #[error("no bearer token: mount a service account token of the audience {audience}")]
    Missing {
        /// Audience it needs.
        audience: String,
    },
    /// No keys yet.
    #[error("no keys to check tokens with: none are cached and the API server was not reached")]
    NoKeys,
    /// A token that does not hold.
    #[error("the token was not accepted: {0}")]
    Refused(String),
}

/// Whose token it was.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// Pod the token is bound to; empty when to none.
    pub pod: String,
    /// UID of that pod.
    pub pod_uid: String,
    /// Node of that pod.
    pub node: String,
}

#[derive(Debug, Default, Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Bound,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bound {
    pod: Named,
    node: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    uid: String,
}

/// Keys of the cluster and the audience they are asked about.
pub struct Trust {
    audience: String,
    file: PathBuf,
    client: Option<Client>,
    keys: RwLock<Option<Arc<Jwks>>>,
    fetched: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Trust")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl Trust {
    /// Starts from the keys in `cache_dir`. Without a client nothing is fetched.
    pub async fn load(cache_dir: &Path, audience: &str, client: Option<Client>) -> Self {
        let file = cache_dir.join("jwks.json");
        let keys = match tokio::fs::read_to_string(&file).await {
            Ok(text) => match Jwks::parse(&text) {
                Ok(keys) => Some(Arc::new(keys)),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cached keys cannot be used");
                    None
                }
            },
            Err(_) => None,
        };
        Self {
            audience: audience.to_owned(),
            file,
            client,
            keys: RwLock::new(keys),
            fetched: Mutex::new(None),
        }
    }

    /// The keys as the API server serves them, for those who check tokens without it.
    pub fn jwks_json(&self) -> Option<String> {
        self.keys().map(|keys| keys.json().to_owned())
    }

    fn keys(&self) -> Option<Arc<Jwks>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose token this is. A key that is not known is fetched, at most twice a minute.
    pub async fn verify(&self, token: Option<&str>) -> Result<Identity, TrustError> {
        let token = token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| TrustError::Missing {
                audience: self.audience.clone(),
            })?;
        let refused = |error: jsonwebtoken::errors::Error| TrustError::Refused(error.to_string());
        if token.len() > MAX_TOKEN {
            return Err(TrustError::Refused("too long".to_owned()));
        }
        let header = decode_header(token).map_err(refused)?;
        let kid = header
            .kid
            .ok_or_else(|| TrustError::Refused("it names no key".to_owned()))?;
        if self.keys().is_none_or(|keys| keys.find(&kid).is_none()) {
            self.fetch(RATE).await;
        }
        let keys = self.keys().ok_or(TrustError::NoKeys)?;
        let key = keys
            .find(&kid)
            .ok_or_else(|| TrustError::Refused("no key of this cluster signed it".to_owned()))?;
        // The key decides the algorithm, never the token.
        let mut validation = Validation::new(key.algorithm());
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        let claims = decode::<Claims>(token, key.decoding(), &validation)
            .map_err(refused)?
            .claims;
        Ok(Identity {
            subject: claims.sub,
            pod: claims.kubernetes.pod.name,
            pod_uid: claims.kubernetes.pod.uid,
            node: claims.kubernetes.node.name,
        })
    }

    /// Fetches keys now and then until `stop`.
    pub async fn keep_fresh(&self, stop: CancellationToken) {
        loop {
            self.fetch(Duration::ZERO).await;
            let wait = if self.keys().is_some() { REFRESH } else { RATE };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// One fetch, unless one was made less than `rate` ago. Failure leaves the known keys.
    async fn fetch(&self, rate: Duration) {
        let Some(client) = &self.client else { return };
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < rate) {
            return;
        }
        *fetched = Some(Instant::now());
        let request = match http::Request::get(JWKS_PATH).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the request for keys cannot be made"
                );
                return;
            }
        };
        match timeout(FETCH, client.request_text(request)).await {
            Ok(Ok(text)) => self.adopt(&text).await,
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                path = JWKS_PATH,
                "keys were not fetched, the known ones stay"
            ),
            Err(_) => tracing::warn!(
                path = JWKS_PATH,
                "the API server did not send keys in time, the known ones stay"
            ),
        }
    }

    async fn adopt(&self, text: &str) {
        let keys = match Jwks::parse(text) {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "fetched keys cannot be used, the known ones stay"
                );
                return;
            }
        };
        let changed = self.keys().is_none_or(|known| known.json() != keys.json());
        if !changed {
            return;
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        if let Err(error) = store(&self.file, text).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "keys were not written to the cache folder; a restart would need the API server"
            );
        }
    }
}

async fn store(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let temporary = file.with_extension("json.new");
    tokio::fs::write(&temporary, text).await?;
    tokio::fs::rename(&temporary, file).await
}

#[cfg(test)]
mod tests;
