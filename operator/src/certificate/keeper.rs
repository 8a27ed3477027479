//! What a replica serves: from the cache folder at once, from the Secret as soon as it can be read, the last good one for ever.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::fs;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::held::Pems;
use super::proof::Proof;
use crate::args::Args;
use crate::chain::now_ms;
use crate::metrics::Metrics;

/// Between two looks at the Secret.
const REFRESH: Duration = Duration::from_secs(30);
/// The same while there is nothing to serve.
const FIRST: Duration = Duration::from_secs(1);
const FETCH: Duration = Duration::from_secs(3);
/// Largest file of the cache that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Which Secret, and what it is to prove.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's namespace.
    pub namespace: String,
    /// Service of FleetSignal: `<service>.<namespace>.svc` is the name clients ask for.
    pub service: String,
    /// Name of the Secret.
    pub secret: String,
    /// Somebody else writes it.
    pub provided: bool,
    /// Folder that outlives this process, but not its pod.
    pub cache_dir: PathBuf,
}

impl From<&Args> for Settings {
    fn from(args: &Args) -> Self {
        Self {
            namespace: args.namespace.clone(),
            service: args.signal_service.clone(),
            secret: args.signal_secret.clone(),
            provided: args.signal_secret_provided,
            cache_dir: args.cache_dir.clone(),
        }
    }
}

/// What is served now. Swapped at once; connections that stand go on.
#[derive(Debug, Default)]
pub struct Served {
    now: RwLock<Option<Arc<Proof>>>,
}

impl Served {
    /// What is served.
    pub fn proof(&self) -> Option<Arc<Proof>> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves this from the next connection on.
    pub fn swap(&self, proof: Proof) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(proof));
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.proof().map(|proof| Arc::clone(&proof.key))
    }
}

/// TLS 1.3 alone, HTTP/2 alone, and no session that would outlive a certificate.
pub fn server_config(served: Arc<Served>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Keeps what is served and what clients are to believe.
pub struct Keeper {
    settings: Settings,
    name: String,
    file: PathBuf,
    client: Option<Client>,
    metrics: Arc<Metrics>,
    served: Arc<Served>,
    /// The leader's own write and the next look at it come at the same time.
    adopting: Mutex<()>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Keeper")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Starts from the cache folder. Without a client nothing is fetched.
    pub async fn load(settings: Settings, client: Option<Client>, metrics: Arc<Metrics>) -> Self {
        let keeper = Self {
            name: format!("{}.{}.svc", settings.service, settings.namespace),
            file: settings.cache_dir.join("signal-certificate.json"),
            settings,
            client,
            metrics,
            served: Arc::default(),
            adopting: Mutex::default(),
        };
        match read(&keeper.file).await {
            Ok(pems) => match Proof::read(pems, &keeper.name) {
                Ok(proof) => keeper.served.swap(proof),
                Err(error) => keeper.failed("Cache", &error, "the cached certificate cannot be used"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => keeper.failed("Cache", &error, "the cached certificate cannot be read"),
        }
        keeper.tell();
        keeper
    }

    /// For the server.
    pub fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served)
    }

    /// Certificates of the authorities that clients are to believe, PEM.
    pub fn authorities(&self) -> Option<String> {
        self.served.proof().map(|proof| proof.pems.authorities.clone())
    }

    /// Name that clients ask for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Namespace and name of the Secret.
    pub fn secret(&self) -> (&str, &str) {
        (&self.settings.namespace, &self.settings.secret)
    }

    /// Whether somebody else writes the Secret.
    pub fn is_provided(&self) -> bool {
        self.settings.provided
    }

    /// Looks at the Secret now and then until `stop`.
    pub async fn keep_fresh(&self, stop: CancellationToken) {
        loop {
            self.look().await;
            let wait = if self.served.proof().is_some() { REFRESH } else { FIRST };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Waits until there is something to serve, no longer than `limit`.
    pub async fn ready(&self, limit: Duration) -> bool {
        let served = async {
            while self.served.proof().is_none() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(limit, served).await.is_ok()
    }

    /// One look at the Secret.
    pub async fn look(&self) {
        if let Some(client) = &self.client {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), &self.settings.namespace);
            match timeout(FETCH, secrets.get_opt(&self.settings.secret)).await {
                Ok(Ok(Some(secret))) => match Pems::of(&secret) {
                    Ok(pems) => self.adopt(pems).await,
                    Err(error) => self.failed(
                        "Refused",
                        &error,
                        "FleetSignal's Secret cannot be used, the last one stays",
                    ),
                },
                Ok(Ok(None)) if self.settings.provided => {
                    let error = io::Error::from(io::ErrorKind::NotFound);
                    self.failed(
                        "Refused",
                        &error,
                        "the Secret that fleetSignal.tls.secretName names is not there",
                    );
                }
                // The leader makes it.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => self.failed("Read", &error, "FleetSignal's Secret was not read, the last one stays"),
                Err(late) => self.failed(
                    "Read",
                    &late,
                    "the API server did not send FleetSignal's Secret in time",
                ),
            }
        }
        self.tell();
    }

    /// Serves `pems` from the next connection on, unless no client would accept that.
    pub async fn adopt(&self, pems: Pems) {
        let _one_at_a_time = self.adopting.lock().await;
        if self.served.proof().is_some_and(|proof| proof.pems == pems) {
            return;
        }
        let proof = match Proof::read(pems, &self.name) {
            Ok(proof) => proof,
            Err(error) => {
                self.failed(
                    "Refused",
                    &error,
                    "FleetSignal's certificate cannot be served, the last one stays",
                );
                return;
            }
        };
        tracing::info!(
            not_after = proof.life.not_after,
            "another certificate of FleetSignal is served"
        );
        if let Err(error) = store(&self.file, &proof.pems).await {
            self.failed(
                "Cache",
                &error,
                "the certificate was not cached; a restart would need the API server",
            );
        }
        self.served.swap(proof);
        self.tell();
    }

    fn failed(&self, reason: &str, error: &(dyn std::error::Error + 'static), what: &str) {
        self.metrics
            .signal_certificate_failures_total
            .with_label_values(&[reason])
            .inc();
        tracing::warn!(error, secret = self.settings.secret, "{what}");
    }

    /// How long the certificate is good yet.
    fn tell(&self) {
        let life = self.served.proof().map(|proof| proof.life).unwrap_or_default();
        let left = if life.not_after == 0 {
            0
        } else {
            life.not_after - now_ms() / 1000
        };
        self.metrics.signal_certificate_seconds.set(left);
        self.metrics
            .signal_certificate_lifetime_seconds
            .set(life.not_after - life.not_before);
    }
}

async fn read(file: &Path) -> io::Result<Pems> {
    if fs::metadata(file).await?.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(serde_json::from_slice(&fs::read(file).await?)?)
}

/// Whole or not at all, and for nobody else's eyes.
async fn store(file: &Path, pems: &Pems) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).await?;
    }
    let temporary = file.with_extension("json.new");
    match fs::remove_file(&temporary).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut open = fs::OpenOptions::new();
    let mut written = open.write(true).create_new(true).mode(0o600).open(&temporary).await?;
    written.write_all(&serde_json::to_vec(pems)?).await?;
    written.sync_all().await?;
    fs::rename(&temporary, file).await
}
