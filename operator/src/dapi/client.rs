//! Box 2 and 4: HTTP to one DAPI. Bounded in time and size, follows no redirect, counts every request and write.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Method, Url};
use serde_json::Value;

use super::answers::{self, ArtifactState, Latest, NodeSpec, Registered, SetupReport};
use crate::chain::shapes::ShapeError;
use crate::metrics::Metrics;

/// Largest answer that is read; 4,096 nodes fit.
const MAX_BYTES: usize = 16 << 20;
/// Largest error body that is read.
const MAX_ERROR_BYTES: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a DAPI is and how to be let in.
#[derive(Clone, Default)]
pub struct Endpoint {
    /// Admin API, without the path.
    pub admin_url: String,
    /// Public API, without the path.
    pub public_url: String,
    /// Bearer token for the admin API.
    pub token: Option<String>,
    /// PEM certificates that sign the servers' certificates; the system's roots when absent.
    pub ca_bundle: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("admin_url", &self.admin_url)
            .field("public_url", &self.public_url)
            .field("token", &self.token.as_ref().map(|_| "<hidden>"))
            .finish_non_exhaustive()
    }
}

/// Why DAPI did not do what it was asked. Messages carry the URL and the next step.
#[derive(Clone, Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The client cannot be made from these settings.
    #[error("no client for {url} can be made: {detail}")]
    Settings {
        /// What was to be reached.
        url: String,
        /// Why not.
        detail: String,
    },
    /// No answer.
    #[error("{url} did not answer ({detail}); check that DAPI runs and that this cluster reaches that address")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What failed.
        detail: String,
    },
    /// An answer that says no.
    #[error("{method} {url} was answered {status}: {said}")]
    Refused {
        /// Method.
        method: String,
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the body says.
        said: String,
    },
    /// An answer that is too large or not JSON.
    #[error("{url} answered something that is not a DAPI answer ({detail}); check that the URL is DAPI's")]
    Unreadable {
        /// What was asked.
        url: String,
        /// What failed.
        detail: String,
    },
    /// An answer of a shape this version does not know.
    #[error("{url} answered in a shape this version does not know; nothing is changed there until it does")]
    Shape {
        /// What was asked.
        url: String,
        /// Which member.
        #[source]
        source: ShapeError,
    },
}

impl Error {
    /// Label of metrics and category of failures.
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

/// Client of one DAPI.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    http: reqwest::Client,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Whether a client can be made for this endpoint: URLs and certificates.
pub fn check_endpoint(endpoint: &Endpoint) -> Result<(), Error> {
    base(&endpoint.admin_url)?;
    base(&endpoint.public_url)?;
    roots(endpoint).map(|_| ())
}

fn base(url: &str) -> Result<Url, Error> {
    let settings = |detail: String| Error::Settings {
        url: url.to_owned(),
        detail,
    };
    let parsed = Url::parse(url).map_err(|error| settings(error.to_string()))?;
    if parsed.cannot_be_a_base() || parsed.host_str().is_none() {
        return Err(settings("it names no host".to_owned()));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(Error::Settings {
            url: "the URL".to_owned(),
            detail: "it carries credentials; put them into a Secret and name it in adminAuthSecretRef".to_owned(),
        });
    }
    Ok(parsed)
}

fn roots(endpoint: &Endpoint) -> Result<Option<Vec<Certificate>>, Error> {
    let Some(bundle) = &endpoint.ca_bundle else {
        return Ok(None);
    };
    let settings = |detail: String| Error::Settings {
        url: endpoint.admin_url.clone(),
        detail,
    };
    let certificates = Certificate::from_pem_bundle(bundle.as_bytes())
        .map_err(|error| settings(format!("caBundle holds no readable PEM certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(settings("caBundle holds no PEM certificate".to_owned()));
    }
    Ok(Some(certificates))
}

impl Client {
    /// A client of `endpoint`.
    pub fn new(endpoint: Endpoint, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let settings = |detail: String| Error::Settings {
            url: endpoint.admin_url.clone(),
            detail,
        };
        let https = [&endpoint.admin_url, &endpoint.public_url]
            .into_iter()
            .any(|url| url.starts_with("https://"));
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let builder = match roots(&endpoint)? {
            Some(certificates) => builder.tls_certs_only(certificates),
            // Plain HTTP must work where there are no system roots at all.
            None if !https => builder.tls_certs_only([]),
            None => builder,
        };
        let http = builder.build().map_err(|error| settings(describe(&error)))?;
        Ok(Self {
            endpoint,
            http,
            metrics,
        })
    }

    /// Where this client goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// All nodes, sorted by id.
    pub async fn nodes(&self) -> Result<Vec<Registered>, Error> {
        let url = self.admin(&["nodes"])?;
        read(&url, &self.get(url.clone(), true).await?, answers::nodes)
    }

    /// Adds a node. An id that exists is updated.
    pub async fn post_node(&self, node: &NodeSpec) -> Result<(), Error> {
        let url = self.admin(&["nodes"])?;
        self.write(Method::POST, url, node).await
    }

    /// Updates a node. The id in the body decides; the path carries the same.
    pub async fn put_node(&self, node: &NodeSpec) -> Result<(), Error> {
        let url = self.admin(&["nodes", &node.id])?;
        self.write(Method::PUT, url, node).await
    }

    /// The setup report; DAPI makes a new one at most once a minute.
    pub async fn setup_report(&self) -> Result<SetupReport, Error> {
        let url = self.admin(&["setup", "report"])?;
        read(&url, &self.get(url.clone(), true).await?, answers::setup_report)
    }

    /// Where DAPI itself stands.
    pub async fn latest(&self) -> Result<Latest, Error> {
        let url = self.public(&["v1", "epochs", "latest"])?;
        read(&url, &self.get(url.clone(), false).await?, answers::latest)
    }

    /// The account DAPI signs for.
    pub async fn identity(&self) -> Result<String, Error> {
        let url = self.public(&["v1", "identity"])?;
        read(&url, &self.get(url.clone(), false).await?, answers::identity)
    }

    /// What DAPI accepted of a model in the exam that is known by `height`; absent when it knows of none.
    pub async fn artifact_state(&self, height: i64, model: &str) -> Result<Option<ArtifactState>, Error> {
        let mut url = self.public(&["v1", "poc", "artifacts", "state"])?;
        url.query_pairs_mut()
            .append_pair("height", &height.to_string())
            .append_pair("model_id", model);
        match self.get(url.clone(), false).await {
            Ok(answer) => read(&url, &answer, answers::artifact_state).map(Some),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn admin(&self, path: &[&str]) -> Result<Url, Error> {
        join(&self.endpoint.admin_url, &["admin", "v1"], path)
    }

    fn public(&self, path: &[&str]) -> Result<Url, Error> {
        join(&self.endpoint.public_url, &[], path)
    }

    async fn get(&self, url: Url, admin: bool) -> Result<Value, Error> {
        let body = self.send(Method::GET, &url, None, admin).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Unreadable {
            url: url.to_string(),
            detail: error.to_string(),
        })
    }

    async fn write(&self, method: Method, url: Url, node: &NodeSpec) -> Result<(), Error> {
        let body = serde_json::to_vec(node).map_err(|error| Error::Settings {
            url: url.to_string(),
            detail: error.to_string(),
        })?;
        self.metrics.external_writes_total.with_label_values(&["dapi"]).inc();
        self.send(method, &url, Some(body), true).await.map(|_| ())
    }

    async fn send(&self, method: Method, url: &Url, body: Option<Vec<u8>>, admin: bool) -> Result<Vec<u8>, Error> {
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(token) = self.endpoint.token.as_ref().filter(|_| admin) {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        let response = request.send().await;
        let code = response.as_ref().map_or(0, |response| response.status().as_u16());
        self.metrics
            .dapi_requests_total
            .with_label_values(&[method.as_str(), &code.to_string()])
            .inc();
        let response = response.map_err(|error| Error::Unreachable {
            url: url.to_string(),
            detail: describe(&error),
        })?;
        let success = response.status().is_success();
        let limit = if success { MAX_BYTES } else { MAX_ERROR_BYTES };
        let (body, whole) = collect(response, limit).await.map_err(|error| Error::Unreachable {
            url: url.to_string(),
            detail: describe(&error),
        })?;
        if !success {
            return Err(Error::Refused {
                method: method.to_string(),
                url: url.to_string(),
                status: code,
                said: answers::said(&body),
            });
        }
        if !whole {
            return Err(Error::Unreadable {
                url: url.to_string(),
                detail: format!("more than {limit} bytes"),
            });
        }
        Ok(body)
    }
}

/// The body up to `limit` bytes, and whether that was all of it.
async fn collect(mut response: reqwest::Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}

fn join(root: &str, prefix: &[&str], path: &[&str]) -> Result<Url, Error> {
    let mut url = base(root)?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(prefix).extend(path);
    }
    Ok(url)
}

fn read<T>(url: &Url, answer: &Value, parse: fn(&Value) -> Result<T, ShapeError>) -> Result<T, Error> {
    parse(answer).map_err(|source| Error::Shape {
        url: url.to_string(),
        source,
    })
}

/// The innermost cause is the one people can act on; the URL is told elsewhere.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
