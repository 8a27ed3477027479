//! People who want to work on a machine: they ask by `kubectl gonka maintain` or a cordon, evict what is on it, reboot it once it is
//! released, and withdraw. Every wish comes to an end.

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use network_simulator::virtual_time::door::Door;
use serde_json::{Value, json};

use super::Fleet;
use crate::agenda::Event;
use crate::check::Rule;
use crate::ground::Ground;
use crate::store::{Id, Kind, Refusal, time};
use crate::story::Happening;

/// A drain, and whoever waits for a machine, asks again after this long.
const AGAIN_MS: i64 = 5_000;
/// A reboot takes so long.
const REBOOT_MS: i64 = 20_000;
/// From a reboot until the wish is withdrawn, at least.
const SPARE_TIME_MS: i64 = 40_000;

/// A wish for a machine.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    machine: String,
    /// Since when, Unix milliseconds.
    since_ms: i64,
    /// It waits for hours of the day, or lapses: nobody can say by when it is granted.
    patient: bool,
    /// How far the work is.
    done: Done,
}

/// How far the work on a machine is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Done {
    Nothing,
    Evicted,
    Rebooted,
}

impl Fleet {
    /// Somebody wants to work on a machine from now on.
    pub(super) fn wish(&mut self, door: &mut Door<'_>, place: usize, millis: i64) {
        let since_ms = Ground::now(door);
        let Some((machine, patient)) = self.story.get(place).and_then(|moment| match &moment.what {
            Happening::Maintained {
                machine,
                lapses,
                preferred,
                ..
            } => Some((*machine, *lapses > 0 || preferred.is_some())),
            other => Some((other.wished_machine()?, false)),
        }) else {
            return;
        };
        let wish = Wish {
            machine: format!("n{machine}"),
            since_ms,
            patient,
            done: Done::Nothing,
        };
        self.wishes.insert(place, wish);
        self.ground.agenda.after(door, millis, Event::Undo { place });
    }

    /// A wish ends. True: nobody else has asked for the machine in the same way meanwhile.
    pub(super) fn withdraw(&mut self, now_ms: i64, place: usize) -> bool {
        let kind = |place: usize| {
            let what = self.story.get(place).map(|moment| &moment.what);
            matches!(what, Some(Happening::Drained { .. }))
        };
        let Some(wish) = self.wishes.remove(&place) else {
            return false;
        };
        if self.ground.is_released(&wish.machine)
            && let Some(machine) = self.ground.cluster.machines.get_mut(&wish.machine)
        {
            machine.given_back_ms = now_ms;
        }
        let mut others = self.wishes.iter();
        !others.any(|(other, open)| open.machine == wish.machine && kind(*other) == kind(place))
    }

    /// Somebody wishes to work on a machine.
    pub(super) fn is_wished_for(&self) -> bool {
        !self.wishes.is_empty()
    }

    /// `kubectl gonka maintain`.
    pub(super) fn maintain(&mut self, door: &mut Door<'_>, place: usize) {
        let now_ms = Ground::now(door);
        let Some(Happening::Maintained {
            machine,
            minutes,
            lapses,
            preferred,
            ..
        }) = self.story.get(place).map(|moment| moment.what.clone())
        else {
            return;
        };
        let hours = preferred.map(|hours| {
            let hour = |ms: i64| {
                let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
                format!("{:02}:00", at.to_zoned(TimeZone::UTC).hour())
            };
            let from_ms = now_ms + i64::from(hours) * 3_600_000;
            json!({"from": hour(from_ms), "until": hour(from_ms + 2 * 3_600_000), "timeZone": "UTC"})
        });
        let mut wish = json!({"state": "Requested", "reason": "a fan", "expectedMinutes": minutes});
        if lapses > 0 {
            wish["notAfterTime"] = json!(time(now_ms + lapses));
        }
        if let Some(hours) = hours {
            wish["preferred"] = hours;
        }
        self.set_wish(door, machine, wish);
        self.ground.agenda.after(door, 2_000, Event::Work { place });
    }

    /// `kubectl gonka maintain --done`.
    pub(super) fn wish_no_more(&mut self, door: &mut Door<'_>, machine: u32) {
        self.set_wish(door, machine, json!({"state": "None"}));
    }

    fn set_wish(&mut self, door: &mut Door<'_>, machine: u32, wish: Value) {
        let id = Id::new(Kind::GpuNode, "", &format!("n{machine}"));
        let edited = self
            .ground
            .store
            .edit(&id, |gpu_node| gpu_node["spec"]["maintenance"] = wish);
        if edited.is_ok() {
            self.ground.tell(door);
        }
    }

    /// A drain asks for the eviction of what runs on its machine: nothing of ours may go that is not released.
    pub(super) fn evict(&mut self, door: &mut Door<'_>, place: usize) {
        let Some(machine) = self.wishes.get(&place).map(|wish| wish.machine.clone()) else {
            return;
        };
        self.ground.agenda.after(door, AGAIN_MS, Event::Evict { place });
        if self.ground.api_answers() {
            self.evict_all(door, &machine);
        }
    }

    fn evict_all(&mut self, door: &mut Door<'_>, machine: &str) {
        let now_ms = Ground::now(door);
        let here = self.ground.cluster.pods.values();
        let here = here.filter(|life| life.machine == machine && !life.ending);
        let pods: Vec<Id> = here.map(|life| life.id.clone()).collect();
        for id in pods {
            let before = self.ground.pods_by_machine();
            match self.ground.store.evict(&id, now_ms) {
                Err(Refusal::Budget(_)) => self.ground.checks.evictions += 1,
                Err(_) => {}
                Ok(()) => {
                    self.ground.checks.machines.evicted += 1;
                    let uid = self.ground.store.get(&id).map(|pod| pod["metadata"]["uid"].clone());
                    let mut here = before.get(machine).into_iter().flatten();
                    let holds = here.any(|(here, holds)| *holds && uid.as_ref().is_some_and(|uid| uid == here));
                    if holds || !self.ground.is_released(machine) {
                        let what = format!("{} was evicted (holds a slot: {holds})", id.name);
                        self.ground.checks.violated(now_ms, Rule::Release, what);
                    }
                    self.ground.note(door, &format!("{} is evicted", id.name));
                    self.ground.tell(door);
                }
            }
        }
    }

    /// Whoever asked for a machine looks whether it is released: then it is emptied, and rebooted.
    pub(super) fn work(&mut self, door: &mut Door<'_>, place: usize) {
        let now_ms = Ground::now(door);
        let Some(wish) = self.wishes.get(&place).cloned() else {
            return;
        };
        self.ground.agenda.after(door, AGAIN_MS, Event::Work { place });
        let lasts = self.story.get(place).map_or(0, |moment| moment.what.millis());
        let in_time = wish.since_ms + lasts - now_ms >= REBOOT_MS + SPARE_TIME_MS;
        if !self.ground.api_answers() || !self.ground.is_released(&wish.machine) || !in_time {
            return;
        }
        let done = match wish.done {
            Done::Nothing => {
                self.evict_all(door, &wish.machine);
                Done::Evicted
            }
            Done::Evicted => {
                self.reboot(door, &wish.machine);
                Done::Rebooted
            }
            Done::Rebooted => return,
        };
        if let Some(wish) = self.wishes.get_mut(&place) {
            wish.done = done;
        }
    }

    fn reboot(&mut self, door: &mut Door<'_>, machine: &str) {
        let now_ms = Ground::now(door);
        let pods = self.ground.pods_by_machine();
        if pods.get(machine).into_iter().flatten().any(|(_, holds)| *holds) {
            let what = format!("{machine} is rebooted with a slot on it");
            self.ground.checks.violated(now_ms, Rule::Release, what);
        }
        self.ground.checks.machines.rebooted += 1;
        self.ground.note(door, &format!("{machine} is rebooted"));
        let here = self.on_machine(machine);
        self.ground.power_cut(door, machine);
        self.hush(door, here, false);
        let event = Event::Booted {
            machine: machine.to_owned(),
        };
        self.ground.agenda.after(door, REBOOT_MS, event);
    }

    /// In calm a wish is granted within two epochs: the exam under way and the next one are waited for, and no third.
    pub(super) fn check_wishes(&mut self, door: &Door<'_>) {
        let now_ms = Ground::now(door);
        let mut open = self.wishes.values();
        let (Some(wish), None) = (open.next(), open.next()) else {
            return;
        };
        let patience_ms = 2 * door.net().lengths().epoch_length * self.ground.block_ms;
        let since_ms = wish.since_ms.max(self.disturbed_ms).max(self.operator.started_ms);
        let late = now_ms - since_ms > patience_ms && !wish.patient;
        if !late || !self.is_well() || !self.is_whole() || self.ground.is_released(&wish.machine) {
            return;
        }
        let what = format!(
            "{} was asked for at {} ms and is {:?}",
            wish.machine,
            wish.since_ms - self.ground.checks.started_ms,
            self.ground.stage_of(&wish.machine)
        );
        self.ground.checks.violated(now_ms, Rule::Wish, what);
    }

    /// Nothing is broken, so that the operator can do what it is meant to.
    pub(super) fn is_well(&self) -> bool {
        let faults = &self.ground.faults;
        self.lasting == 0
            && faults.api_down == 0
            && faults.writes.is_empty()
            && faults.watch.is_none()
            && faults.stale_lists.is_none()
            && self.operator.is_well()
    }
}
