//! The whole product on a cluster of the harness: GPUs, charts, a network, the objects of `examples/`. Used by the demo and by tests.

pub mod conditions;
pub mod control;
pub mod evidence;
pub mod gpus;
pub mod install;
pub mod ledger;
pub mod metrics;
pub mod objects;
pub mod prober;
pub mod product;
pub mod report;
pub mod yardstick;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// The repository's root.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Asks again until the answer is there; an error after `limit` says what was awaited and what the last answer was.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let missing = match ask().await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(missing)) => missing,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > limit {
            bail!("{what} did not come true within {} s: {missing}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
