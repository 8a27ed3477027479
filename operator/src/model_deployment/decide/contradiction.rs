//! Facts about slots that cannot all be true: then the breaker holds what may wait, until a person has looked.

use std::collections::BTreeMap;

use crds::conditions::{ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::world::Assignment;
use crate::gate;
use crate::model_deployment::observed::{Link, Live, Observed};

/// How long a slot must have held what the API server does not know: watches may be late.
const PATIENCE_MILLIS: i64 = 30_000;

/// What contradicts what, for people; absent when nothing does. `slots` are what slices say.
///
/// A generation is written into the slice before any slot is told of it. A slot that holds a higher one than its slice says is
/// from a time which the API server has forgotten: it was restored from a backup, and its pods and slices are those of then. Not
/// when this process told it so: then it is our watch that is late, for as long as the API server is away.
fn found(seen: &Observed, slots: &BTreeMap<i32, Assignment>) -> Option<String> {
    seen.pods.iter().find_map(|(name, pod)| {
        let live = seen.live.get(&pod.uid)?;
        let ours = live.told.as_ref().is_some_and(|told| told.generation >= live.generation);
        let heard = live.link == Link::Connected && live.slot >= 0 && !ours;
        let for_long = seen.now_ms - live.held_since_ms >= PATIENCE_MILLIS;
        let written = written(slots, live.slot);
        (heard && for_long && live.generation > written).then(|| {
            format!(
                "{name} holds slot {} with generation {} and its EndpointSlice says {written}: the API server's objects are older than \
                 the slots; was it restored from a backup? What may wait is held until a person has looked and annotates the \
                 GonkaHost with {}=REASON",
                live.slot,
                live.generation,
                crds::labels::REARM
            )
        })
    })
}

/// What contradicts what, or did, as long as no person has looked: slots are put right at once, and then nothing shows any more
/// that the objects are of another time.
pub fn unanswered(seen: &Observed, slots: &BTreeMap<i32, Assignment>) -> Option<String> {
    if seen.host.as_ref().is_some_and(gate::host::armed) {
        return None;
    }
    found(seen, slots).or_else(|| {
        let conditions = seen.deployment.status.iter().flat_map(|status| &status.conditions);
        let told = |condition: &&Condition| {
            condition.type_ == ConditionType::Stalled.to_string()
                && condition.reason == Reason::ObjectsOlder.to_string()
        };
        conditions
            .into_iter()
            .find(told)
            .map(|condition| condition.message.clone())
    })
}

/// When a slot will have held for long enough what its slice does not know, Unix milliseconds.
pub fn edges<'a>(seen: &'a Observed, slots: &'a BTreeMap<i32, Assignment>) -> impl Iterator<Item = i64> + 'a {
    let above = |live: &&Live| live.slot >= 0 && live.generation > written(slots, live.slot);
    let held = seen.live.values().filter(above);
    held.map(|live| live.held_since_ms + PATIENCE_MILLIS)
}

fn written(slots: &BTreeMap<i32, Assignment>, slot: i32) -> i64 {
    slots.get(&slot).map_or(0, |slot| slot.generation)
}
