//! One GET for JSON, bounded in time and size. Errors name no URL: endpoints may carry secrets in theirs.

use std::time::Duration;

use serde_json::Value;

use super::shapes::ShapeError;
use super::view::Failure;

/// Largest answer that is read.
const MAX_BYTES: usize = 8 << 20;

/// GET `url` as JSON, whatever its content type says.
pub async fn get(http: &reqwest::Client, url: &str, timeout: Duration) -> Result<Value, Failure> {
    let unreachable = |error: reqwest::Error| Failure::Unreachable(root(&error.without_url()));
    let mut response = http.get(url).timeout(timeout).send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(Failure::Unreachable(format!("status {}", response.status().as_u16())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(Failure::Shape(format!("an answer of more than {MAX_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|_| Failure::Shape("an answer that is not JSON".to_owned()))
}

/// The innermost cause: `connection refused` says more than `error sending request`.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error.to_string())
    }
}
