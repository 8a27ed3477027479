//! How FleetSignal's replicas prove who they are: one Secret, which the leader writes and every replica serves from.
//!
//! ```text
//! leader:        observe (the Secret, now) → decide ([`decide`], dates alone) → apply ([`make`], one write)
//! every replica: Secret ──► [`Keeper`] ──► what is served, and what clients are to believe
//!                  cache folder ▲│ (a replica starts from it without the API server)
//! ```
//!
//! Nothing is dropped because of the time alone, and what cannot be used never takes the place of what can.

pub mod decide;
pub mod held;
mod keeper;
pub mod make;
pub mod proof;

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;

use crate::apply;
use crate::chain::now_ms;
use crate::change::{Change, Object};
use crate::context::Context;

pub use keeper::{Keeper, Served, Settings, server_config};

/// Field manager and metric label.
const CONTROLLER: &str = "fleet-signal";
/// Between two looks at dates that move in weeks.
const PERIOD: Duration = Duration::from_secs(60);

/// Why a pass failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The Secret could not be read.
    #[error("FleetSignal's Secret {name} could not be read")]
    Observe {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The Secret is not as the operator writes it.
    #[error(
        "FleetSignal's Secret {name} is not the operator's; it is left as it is. Delete it, and a new authority begins"
    )]
    Foreign {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: held::Shape,
    },
    /// No certificate could be made.
    #[error("FleetSignal's Secret {name} cannot be brought up to date. Delete it, and a new authority begins")]
    Make {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: make::Error,
    },
    /// The Secret could not be written.
    #[error("FleetSignal's Secret {name} was not written")]
    Apply {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: apply::Error,
    },
}

impl Error {
    /// Label of metrics.
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

/// Keeps the Secret up to date, on the leader until cancelled. A provided one is somebody else's to write.
pub async fn run(context: Context) {
    let failures = context.metrics.failures(CONTROLLER);
    loop {
        let pause = if context.certificate.is_provided() || run_pass(&context).await {
            failures.over(CONTROLLER);
            PERIOD
        } else {
            crate::backoff::wait(CONTROLLER, failures.another(CONTROLLER)).min(PERIOD)
        };
        tokio::time::sleep(pause).await;
    }
}

async fn run_pass(context: &Context) -> bool {
    let metrics = &context.metrics;
    match metrics.timed(CONTROLLER, Error::category, pass(context)).await {
        Ok(applied) => {
            metrics.wrote(CONTROLLER, applied.writes);
            true
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                category = error.category(),
                "FleetSignal's certificates were not looked after"
            );
            false
        }
    }
}

/// One observe → decide → apply.
pub async fn pass(context: &Context) -> Result<apply::Applied, Error> {
    let keeper = &context.certificate;
    let (namespace, name) = keeper.secret();
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let of = || name.to_owned();
    let before = secrets.get_opt(name).await.map_err(|source| Error::Observe {
        name: of(),
        source: Box::new(source),
    })?;
    let held = before.as_ref().map_or(Ok(None), held::Held::of);
    let held = held.map_err(|source| Error::Foreign { name: of(), source })?;
    let (after, steps) =
        make::bring_up(held, keeper.name(), now_ms() / 1000).map_err(|source| Error::Make { name: of(), source })?;
    let Some(after) = after.filter(|_| !steps.is_empty()) else {
        return Ok(apply::Applied::default());
    };
    // Made anew or exactly as it was read: of two leaders that overlap, one fails.
    let object = Object::of(&after.secret(namespace, name, before.as_ref()));
    let change = match before {
        None => Change::Create(object),
        Some(_) => Change::Apply(object),
    };
    let applied = apply::apply(
        &context.client,
        &context.recorder(),
        &crds::labels::field_manager(CONTROLLER),
        &[change],
    )
    .await
    .map_err(|source| Error::Apply { name: of(), source })?;
    tracing::info!(
        ?steps,
        secret = name,
        "FleetSignal's certificates were brought up to date"
    );
    if let Some(pems) = after.pems() {
        keeper.adopt(pems).await;
    }
    Ok(applied)
}

#[cfg(test)]
mod tests;
