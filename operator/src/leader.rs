//! Leader election by a Lease: one replica writes to the API server. A lost lease ends the process; a new one starts clean.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Error as KubeError};

/// Why leadership could not be had or kept.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The lease was not renewed in time, or another replica holds it.
    #[error("leadership of {lease} is lost; the process ends and starts again as a follower")]
    Lost {
        /// Name of the lease.
        lease: String,
    },
}

/// What to do about a lease as observed.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Take or renew it with this spec.
    Write(Box<LeaseSpec>),
    /// Another replica holds it.
    Wait,
}

/// The election of one replica.
#[derive(Clone)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Election")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Election {
    /// An election for the lease `name`; `identity` is this replica.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, seconds: u32) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(u64::from(seconds.max(3))),
        }
    }

    /// Returns once this replica leads. Never fails: without an API server there is simply no leader.
    pub async fn acquire(&self) {
        let pause = self.duration / 3;
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "lease was not taken"),
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews until the lease is lost.
    pub async fn hold(&self) -> Error {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(self.duration / 3).await;
            // A write that outlives the lease could be applied after somebody else took over.
            let patience = self.duration.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(patience, self.attempt()).await {
                Ok(Ok(true)) => renewed = tokio::time::Instant::now(),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "lease was not renewed");
                    if renewed.elapsed() >= self.duration {
                        break;
                    }
                }
                Err(_elapsed) => break,
            }
        }
        Error::Lost {
            lease: self.name.clone(),
        }
    }

    /// Gives the lease back, so that another replica need not wait for it to run out.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(&self.name).await else {
            return;
        };
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(&self.identity)
        {
            spec.holder_identity = Some(String::new());
            let _ended = self.leases.replace(&self.name, &PostParams::default(), &lease).await;
        }
    }

    async fn attempt(&self) -> Result<bool, KubeError> {
        let observed = self.leases.get_opt(&self.name).await?;
        let now = Timestamp::now();
        let spec = observed.as_ref().and_then(|lease| lease.spec.as_ref());
        let Step::Write(spec) = decide(spec, &self.identity, self.duration, now) else {
            return Ok(false);
        };
        let metadata = observed.as_ref().map_or_else(
            || ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata.clone(),
        );
        let lease = Lease {
            metadata,
            spec: Some(*spec),
        };
        let written = if observed.is_some() {
            // The resourceVersion observed makes this fail when somebody else was quicker.
            self.leases.replace(&self.name, &PostParams::default(), &lease).await
        } else {
            self.leases.create(&PostParams::default(), &lease).await
        };
        match written {
            Ok(_) => Ok(true),
            Err(KubeError::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn decide(observed: Option<&LeaseSpec>, identity: &str, duration: Duration, now: Timestamp) -> Step {
    let holder = observed
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    let ours = holder == identity;
    let expired = observed.is_none_or(|spec| {
        let seconds = i64::from(spec.lease_duration_seconds.unwrap_or_default());
        spec.renew_time
            .as_ref()
            .is_none_or(|renewed| now.as_second() - renewed.0.as_second() > seconds)
    });
    if !ours && !holder.is_empty() && !expired {
        return Step::Wait;
    }
    let transitions = observed.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    let acquired = observed.and_then(|spec| spec.acquire_time.clone()).filter(|_| ours);
    Step::Write(Box::new(LeaseSpec {
        acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
        lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn lease(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(at(renewed))),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        }
    }

    fn written(step: Step) -> LeaseSpec {
        match step {
            Step::Write(spec) => *spec,
            Step::Wait => panic!("expected a write"),
        }
    }

    #[test]
    fn waits_while_another_replica_renews() {
        assert_eq!(
            decide(Some(&lease("b", 100)), "a", Duration::from_secs(15), at(110)),
            Step::Wait
        );
    }

    #[test]
    fn takes_a_lease_that_ran_out_or_was_given_back_and_counts_it() {
        for spec in [lease("b", 100), lease("", 119)] {
            let spec = written(decide(Some(&spec), "a", Duration::from_secs(15), at(120)));
            assert_eq!(spec.holder_identity.as_deref(), Some("a"));
            assert_eq!(spec.lease_transitions, Some(5));
        }
    }

    #[test]
    fn renews_its_own_without_counting_a_transition() {
        let spec = written(decide(Some(&lease("a", 100)), "a", Duration::from_secs(15), at(105)));
        assert_eq!(spec.lease_transitions, Some(4));
        assert_eq!(spec.renew_time, Some(MicroTime(at(105))));
    }

    #[test]
    fn makes_a_lease_where_there_is_none() {
        assert_eq!(
            written(decide(None, "a", Duration::from_secs(15), at(5))).lease_transitions,
            Some(1)
        );
    }
}
