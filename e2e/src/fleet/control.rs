//! The simulator's control door: state, requests, faults.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::until;

/// A client of the control door.
#[derive(Clone, Debug)]
pub struct Control {
    http: reqwest::Client,
    base: String,
}

impl Control {
    /// `base` is `http://<address>:9999`.
    pub fn new(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()
            .context("no HTTP client")?;
        Ok(Self {
            http,
            base: base.to_owned(),
        })
    }

    /// Waits until it answers.
    pub async fn wait_up(&self, limit: Duration) -> Result<()> {
        until("the network's control door", limit, async || {
            Ok(self.state().await.map(|_| ()).map_err(|error| format!("{error:#}")))
        })
        .await
    }

    /// Height, epoch, stage, hosts, nodes, exams.
    pub async fn state(&self) -> Result<Value> {
        self.get("v1/state").await
    }

    /// Every request to the DAPI since the beginning.
    pub async fn requests(&self) -> Result<Value> {
        self.get("v1/requests?since=0").await
    }

    /// The ledger as it stands.
    pub async fn ledger(&self) -> Result<Value> {
        self.get("v1/ledger").await
    }

    /// The chain's newest height.
    pub async fn height(&self) -> Result<i64> {
        self.state().await?["height"]
            .as_i64()
            .context("the network's state has no height")
    }

    /// Waits until the chain has reached `height`.
    pub async fn wait_height(&self, height: i64, limit: Duration) -> Result<i64> {
        until(&format!("height {height}"), limit, async || {
            let now = self.height().await?;
            Ok(if now >= height {
                Ok(now)
            } else {
                Err(format!("height is {now}"))
            })
        })
        .await
    }

    /// Makes the network misbehave.
    pub async fn fault(&self, fault: &Value) -> Result<()> {
        let response = self
            .http
            .post(format!("{}/v1/fault", self.base))
            .json(fault)
            .send()
            .await
            .context("the network does not answer")?;
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        ensure!(status.is_success(), "the network refused {fault}: {status} {text}");
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let response = self
            .http
            .get(format!("{}/{path}", self.base))
            .send()
            .await
            .context("the network does not answer")?;
        response
            .error_for_status()
            .context("the network refused")?
            .json()
            .await
            .context("the network's answer is not JSON")
    }
}
