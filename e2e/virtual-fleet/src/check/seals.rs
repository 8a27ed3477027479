//! What people set aside for a while: broken glass and breakers are as they were when their time is over, if anybody can see to it.

use network_simulator::virtual_time::door::Door;
use operator::protection::decide::Seal as Kinds;

use super::Rule;
use crate::ground::Ground;
use crate::store::{Id, Kind};

/// After its time it is mended within so long.
const MENDED_WITHIN_MS: i64 = 60_000;
/// Between two looks while all is well.
const LOOK_MS: i64 = 15_000;
/// Kinds of objects that have a glass; a host has a breaker too.
const KINDS: [Kind; 7] = [
    Kind::Pod,
    Kind::Service,
    Kind::Node,
    Kind::GpuNode,
    Kind::ModelDeployment,
    Kind::GonkaHost,
    Kind::SprintSchedule,
];

/// An object, the annotation that sets something of it aside, and what it says: whoever does it again begins another.
pub type Seal = (Id, &'static str, String);

impl Ground {
    /// Looks at everything that may be set aside. `well`: the operator works and nothing it needs is broken; time counts from then,
    /// and of an object of which a watch lost an event from the list that shows it.
    pub fn check_seals(&mut self, door: &Door<'_>, well: bool, allowed_ms: i64) {
        let now_ms = Self::now(door);
        if well && now_ms - self.checks.seals_ms < LOOK_MS {
            return;
        }
        self.checks.seals_ms = now_ms;
        let annotations = [Kinds::Glass, Kinds::Breaker].map(Kinds::annotations);
        let mut open: Vec<Seal> = Vec::new();
        for kind in KINDS {
            for (id, object) in self.store.list(kind) {
                let metadata = &object["metadata"];
                let Some(present) = metadata["annotations"].as_object() else {
                    continue;
                };
                let leaving = !metadata["deletionTimestamp"].is_null();
                for key in annotations.iter().flat_map(|(why, until)| [*why, *until]) {
                    if let Some(value) = present.get(key).filter(|_| !leaving) {
                        open.push((id.clone(), key, value.to_string()));
                    }
                }
            }
        }
        let known = self.checks.set_aside.len();
        self.checks.set_aside.retain(|seal, _| open.contains(seal));
        self.checks.machines.mended += (known - self.checks.set_aside.len()) as u64;
        for seal in open {
            let since = self.checks.set_aside.entry(seal.clone()).or_insert(now_ms);
            if !well || self.checks.unheard.contains(&seal.0) {
                // It has its whole time again: a leader that comes back, or lists what a watch did not tell, gives one that had none
                // yet its end.
                *since = now_ms;
            } else if now_ms - *since > allowed_ms + MENDED_WITHIN_MS {
                let what = format!("{} has {} for {} s", seal.0, seal.1, (now_ms - *since) / 1000);
                self.checks.violated(now_ms, Rule::Seal, what);
            }
        }
    }
}
