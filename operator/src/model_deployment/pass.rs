//! What goes on around one decision, as functions of values: which doors to watch, when a decision would come too early, when
//! to look again.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::decide::{self, Desired};
use super::observed::{Link, Observed};
use crate::slot_door::Target;

/// Wakes within this time are one.
pub const DEBOUNCE: Duration = Duration::from_millis(50);
/// Longest wait after failures: an exam has seconds.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A new leader has heard nobody yet, which is not the same as nobody answering: so long it waits for first words.
pub const FIRST_WORDS: Duration = Duration::from_secs(2);
/// Between looks while it waits; a report wakes it too.
pub const LISTENING: Duration = Duration::from_millis(100);

/// When to look again though nothing happens.
pub fn again(desired: &Desired, resync_seconds: u64) -> Duration {
    let resync = Duration::from_secs(resync_seconds.max(1));
    desired
        .again_after_ms
        .and_then(|millis| u64::try_from(millis.max(100)).ok())
        .map_or(resync, |millis| resync.min(Duration::from_millis(millis)))
}

/// Whether a pod with an address has neither answered nor failed to yet.
pub fn awaits_words(observed: &Observed, link: impl Fn(&str) -> Option<Link>) -> bool {
    let mut pods = observed.pods.values().filter(|pod| !pod.address.is_empty());
    pods.any(|pod| link(&pod.uid).is_none_or(|link| link == Link::Connecting))
}

/// Which doors are to be watched, and what their pods hold.
pub fn targets(observed: &Observed) -> Vec<Target> {
    let mut holds: BTreeMap<String, (i32, i64)> = BTreeMap::new();
    for slice in observed.slices.values() {
        let assignment = decide::assignment(slice);
        let slot = slice
            .labels()
            .get(crds::labels::SLOT)
            .and_then(|slot| slot.parse::<i32>().ok());
        if let (Some(holder), Some(slot)) = (assignment.holder, slot) {
            holds.insert(holder.uid, (slot, assignment.generation));
        }
    }
    let deployment = ObjectRef::from_obj(&observed.deployment);
    observed
        .pods
        .values()
        .filter(|pod| !pod.address.is_empty())
        .map(|pod| {
            let held = holds.get(&pod.uid).copied();
            Target {
                pod_uid: pod.uid.clone(),
                address: pod.address.clone(),
                deployment: deployment.clone(),
                deployment_uid: if pod.made_for.is_empty() {
                    observed.uid().to_owned()
                } else {
                    pod.made_for.clone()
                },
                node_id: held.map(|(slot, _)| observed.node_id(slot)),
                slot: held.map_or(-1, |(slot, _)| slot),
                generation: held.map_or(0, |(_, generation)| generation),
            }
        })
        .collect()
}
