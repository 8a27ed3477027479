//! Decide: whether a request of the operator is meant for this pod, now. Pure.
//!
//! A generation grows with every assignment of a slot. A pod that was cut off and comes back still holds its old one:
//! whoever has seen a higher generation refuses the lower.

use proto::v1::SlotKey;
use std::collections::BTreeMap;
use thiserror::Error;

/// Who this pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// UID of the pod.
    pub pod_uid: String,
    /// UID of its ModelDeployment; empty = any.
    pub deployment_uid: String,
}

/// Highest generation seen per slot of a deployment.
pub type Seen = BTreeMap<(String, i32), i64>;

/// Why a request is not for this pod.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No key at all.
    #[error("the request names no slot key")]
    NoKey,
    /// Addressed to another pod; addresses are given away.
    #[error("this is pod {own}, not pod {asked}: read its address again")]
    OtherPod {
        /// This pod.
        own: String,
        /// The pod meant.
        asked: String,
    },
    /// Addressed to a pod of another deployment.
    #[error("this pod belongs to deployment {own}, not to {asked}")]
    OtherDeployment {
        /// This pod's.
        own: String,
        /// The one meant.
        asked: String,
    },
    /// A higher generation was seen.
    #[error("generation {asked} of slot {slot} is over: generation seen is {seen}")]
    Stale {
        /// The slot.
        slot: i32,
        /// Highest seen.
        seen: i64,
        /// The one asked with.
        asked: i64,
    },
}

/// Whether the request is addressed to this pod: enough to read.
pub fn check_pod<'a>(identity: &Identity, key: Option<&'a SlotKey>) -> Result<&'a SlotKey, Refusal> {
    let key = key.ok_or(Refusal::NoKey)?;
    if key.pod_uid != identity.pod_uid {
        return Err(Refusal::OtherPod {
            own: identity.pod_uid.clone(),
            asked: key.pod_uid.clone(),
        });
    }
    if !identity.deployment_uid.is_empty() && key.deployment_uid != identity.deployment_uid {
        return Err(Refusal::OtherDeployment {
            own: identity.deployment_uid.clone(),
            asked: key.deployment_uid.clone(),
        });
    }
    Ok(key)
}

/// Whether it may also change the assignment.
pub fn check<'a>(identity: &Identity, seen: &Seen, key: Option<&'a SlotKey>) -> Result<&'a SlotKey, Refusal> {
    let key = check_pod(identity, key)?;
    let highest = seen.get(&(key.deployment_uid.clone(), key.slot)).copied().unwrap_or(0);
    if key.generation < highest {
        return Err(Refusal::Stale {
            slot: key.slot,
            seen: highest,
            asked: key.generation,
        });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            pod_uid: "pod-a".into(),
            deployment_uid: "gmd".into(),
        }
    }

    fn key(slot: i32, generation: i64) -> SlotKey {
        SlotKey {
            deployment_uid: "gmd".into(),
            slot,
            pod_uid: "pod-a".into(),
            generation,
        }
    }

    #[test]
    fn a_lower_generation_is_refused_with_the_one_seen() {
        let seen = Seen::from([(("gmd".into(), 0), 7)]);
        assert!(check(&identity(), &seen, Some(&key(0, 7))).is_ok());
        assert!(check(&identity(), &seen, Some(&key(0, 8))).is_ok());
        let refusal = check(&identity(), &seen, Some(&key(0, 6))).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::Stale {
                slot: 0,
                seen: 7,
                asked: 6
            }
        );
        assert!(refusal.to_string().contains("generation seen is 7"));
    }

    #[test]
    fn slots_are_counted_apart() {
        let seen = Seen::from([(("gmd".into(), 0), 7)]);
        assert!(check(&identity(), &seen, Some(&key(1, 1))).is_ok());
    }

    #[test]
    fn another_pod_or_deployment_is_never_served() {
        let other_pod = SlotKey {
            pod_uid: "pod-b".into(),
            ..key(0, 9)
        };
        assert!(matches!(
            check(&identity(), &Seen::new(), Some(&other_pod)),
            Err(Refusal::OtherPod { .. })
        ));
        let other_deployment = SlotKey {
            deployment_uid: "other".into(),
            ..key(0, 9)
        };
        assert!(matches!(
            check_pod(&identity(), Some(&other_deployment)),
            Err(Refusal::OtherDeployment { .. })
        ));
        let anyone = Identity {
            deployment_uid: String::new(),
            ..identity()
        };
        assert!(check_pod(&anyone, Some(&other_deployment)).is_ok());
        assert_eq!(check_pod(&identity(), None), Err(Refusal::NoKey));
    }
}
