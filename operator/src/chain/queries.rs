//! REST queries on demand: the first endpoint that is up and answers, bounded in time and size.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

/// Largest answer that is read.
const MAX_BYTES: usize = 32 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a query has no answer.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum QueryError {
    /// No endpoint of the schedule is up.
    #[error("no chain endpoint is up to answer {path}")]
    NoEndpoint {
        /// The query.
        path: String,
    },
    /// Every endpoint failed; the last failure.
    #[error("no chain endpoint answered {path}: the last one said {detail}")]
    Failed {
        /// The query.
        path: String,
        /// What the last endpoint said.
        detail: String,
    },
}

/// What an endpoint says that has no such thing.
const NOT_FOUND: &str = "status 404";

impl QueryError {
    /// Every endpoint that is up said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Failed { detail, .. } if detail == NOT_FOUND)
    }
}

/// Queries against the endpoints that are up now, own ones first.
#[derive(Clone, Debug)]
pub struct Queries {
    http: reqwest::Client,
    bases: watch::Receiver<Vec<String>>,
}

impl Queries {
    /// `bases` holds REST base URLs in the order in which they are asked.
    pub fn new(http: reqwest::Client, bases: watch::Receiver<Vec<String>>) -> Self {
        Self { http, bases }
    }

    /// GET `<restURL>/productscience/inference/inference/<path>`.
    pub async fn inference(&self, path: &str) -> Result<Value, QueryError> {
        self.get(&format!("/productscience/inference/inference/{path}")).await
    }

    /// GET `<restURL><path>`; `path` begins with a slash.
    pub async fn get(&self, path: &str) -> Result<Value, QueryError> {
        let bases = self.bases.borrow().clone();
        let mut detail = None;
        for base in &bases {
            match self.get_from(base, path).await {
                Ok(value) => return Ok(value),
                Err(error) => detail = Some(error),
            }
        }
        Err(match detail {
            None => QueryError::NoEndpoint { path: path.to_owned() },
            Some(detail) => QueryError::Failed {
                path: path.to_owned(),
                detail,
            },
        })
    }

    async fn get_from(&self, base: &str, path: &str) -> Result<Value, String> {
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let mut response = self
            .http
            .get(&url)
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| error.without_url().to_string())?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| error.without_url().to_string())?
        {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(format!("more than {MAX_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}
