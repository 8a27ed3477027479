//! Box 3: when to write. Pure but for what it remembers: time comes in as a value.
//!
//! A change of verdict is written at once; any other change at most every ten seconds; nothing when nothing changed. After
//! a refusal the pauses double from one second to half a minute, each a little different per node, so that five thousand
//! agents do not come back together.

use std::hash::{Hash as _, Hasher as _};

use crds::GpuNodeStatus;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

const WRITE_EVERY_MILLIS: i64 = 10_000;
const READ_SPEC_EVERY_MILLIS: i64 = 300_000;
const FIRST_PAUSE_MILLIS: i64 = 1_000;
const LONGEST_PAUSE_MILLIS: i64 = 30_000;
/// How often the same refusal is logged: with each doubling, then every so many attempts.
const LOG_EVERY: u32 = 20;

/// What to do now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// Write the status.
    Write,
    /// Write nothing, but read the spec.
    ReadSpec,
    /// Nothing before this time, unless the status changes.
    Wait(Timestamp),
}

/// What was written, and when.
#[derive(Debug)]
pub struct Pace {
    seed: u64,
    written: Option<GpuNodeStatus>,
    written_at: Option<Timestamp>,
    read_at: Option<Timestamp>,
    uid: Option<String>,
    refusals: u32,
    not_before: Option<Timestamp>,
}

impl Pace {
    /// Of a node; its name spreads the pauses.
    pub fn new(node_name: &str) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        node_name.hash(&mut hasher);
        Self {
            seed: hasher.finish(),
            written: None,
            written_at: None,
            read_at: None,
            uid: None,
            refusals: 0,
            not_before: None,
        }
    }

    /// Decides.
    pub fn next(&self, desired: Option<&GpuNodeStatus>, now: Timestamp) -> Next {
        let Some(desired) = desired else {
            return Next::Wait(after(now, WRITE_EVERY_MILLIS));
        };
        if let Some(not_before) = self.not_before.filter(|time| now < *time) {
            return Next::Wait(not_before);
        }
        let (Some(written), Some(written_at)) = (&self.written, self.written_at) else {
            return Next::Write;
        };
        if written != desired {
            let due = after(written_at, WRITE_EVERY_MILLIS);
            if now >= due || verdict(written) != verdict(desired) {
                return Next::Write;
            }
            return Next::Wait(due);
        }
        let due = after(
            self.read_at.unwrap_or(written_at),
            READ_SPEC_EVERY_MILLIS + self.spread(),
        );
        if now >= due { Next::ReadSpec } else { Next::Wait(due) }
    }

    /// The status was written, to the object of this UID.
    pub fn written(&mut self, status: GpuNodeStatus, uid: Option<String>, now: Timestamp) {
        self.written = Some(status);
        self.written_at = Some(now);
        self.uid = uid;
        self.answered(now);
    }

    /// The spec was read. An object of another UID was made anew and holds no status of ours.
    pub fn spec_read(&mut self, uid: Option<&str>, now: Timestamp) {
        if uid != self.uid.as_deref() {
            self.written = None;
        }
        self.answered(now);
    }

    fn answered(&mut self, now: Timestamp) {
        self.read_at = Some(now);
        self.refusals = 0;
        self.not_before = None;
    }

    /// There is no object: whatever was written is gone with it. True when it is worth a line in the log.
    pub fn absent(&mut self, now: Timestamp) -> bool {
        self.written = None;
        self.refused(now)
    }

    /// Nothing was written. True when it is worth a line in the log.
    pub fn refused(&mut self, now: Timestamp) -> bool {
        self.refusals = self.refusals.saturating_add(1);
        let doubled = FIRST_PAUSE_MILLIS << (self.refusals - 1).min(5);
        let pause = doubled.min(LONGEST_PAUSE_MILLIS);
        self.not_before = Some(after(now, pause + self.spread() % (pause / 5 + 1)));
        self.refusals <= 5 || self.refusals.is_multiple_of(LOG_EVERY)
    }

    /// Milliseconds below 60,000 that differ between nodes and between attempts.
    fn spread(&self) -> i64 {
        let mixed = self
            .seed
            .wrapping_add(u64::from(self.refusals).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        (mixed >> 16) as i64 % 60_000
    }
}

fn after(time: Timestamp, millis: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_millis(millis)).unwrap_or(time)
}

/// The part of a status that must not wait: which conditions hold, and the health of each GPU.
fn verdict(status: &GpuNodeStatus) -> Vec<(&str, &str)> {
    let conditions = status.conditions.iter();
    let gpus = status.gpus.iter();
    conditions
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .chain(gpus.map(|gpu| (gpu.uuid.as_str(), gpu.health.into())))
        .collect()
}

#[cfg(test)]
mod tests {
    use crds::gpu_node::{Gpu, GpuHealth};

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn status(health: GpuHealth, driver: &str) -> GpuNodeStatus {
        GpuNodeStatus {
            driver_version: Some(driver.to_owned()),
            gpus: vec![Gpu {
                health,
                ..Gpu::default()
            }],
            ..GpuNodeStatus::default()
        }
    }

    #[test]
    fn nothing_is_written_before_there_is_something_to_say() {
        assert!(matches!(Pace::new("n1").next(None, at(0)), Next::Wait(_)));
    }

    #[test]
    fn an_unchanged_status_is_written_once_and_the_spec_is_read_now_and_then() {
        let mut pace = Pace::new("n1");
        let same = status(GpuHealth::Healthy, "570");
        assert_eq!(pace.next(Some(&same), at(0)), Next::Write);
        pace.written(same.clone(), None, at(0));
        let Next::Wait(due) = pace.next(Some(&same), at(1)) else {
            panic!("a second write of the same status")
        };
        assert!(due >= at(READ_SPEC_EVERY_MILLIS) && due < at(READ_SPEC_EVERY_MILLIS + 60_000));
        assert_eq!(pace.next(Some(&same), due), Next::ReadSpec);
        pace.spec_read(None, due);
        assert!(matches!(pace.next(Some(&same), due), Next::Wait(_)));
    }

    #[test]
    fn an_object_that_was_deleted_or_made_anew_is_written_again() {
        let same = status(GpuHealth::Healthy, "570");
        let uid = |text: &str| Some(text.to_owned());
        let mut pace = Pace::new("n1");
        pace.written(same.clone(), uid("a"), at(0));
        pace.spec_read(uid("b").as_deref(), at(1));
        assert_eq!(pace.next(Some(&same), at(1)), Next::Write);
        pace.written(same.clone(), uid("b"), at(2));
        pace.absent(at(3));
        assert!(matches!(pace.next(Some(&same), at(3)), Next::Wait(_)));
        assert_eq!(pace.next(Some(&same), at(60_000)), Next::Write);
    }

    #[test]
    fn a_change_waits_ten_seconds_but_a_verdict_does_not() {
        let mut pace = Pace::new("n1");
        pace.written(status(GpuHealth::Healthy, "570"), None, at(0));
        let other_driver = status(GpuHealth::Healthy, "580");
        assert_eq!(pace.next(Some(&other_driver), at(1_000)), Next::Wait(at(10_000)));
        assert_eq!(pace.next(Some(&other_driver), at(10_000)), Next::Write);
        let sick = status(GpuHealth::Unhealthy, "570");
        assert_eq!(pace.next(Some(&sick), at(1_000)), Next::Write);
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_end_with_success() {
        let mut pace = Pace::new("n1");
        let wanted = status(GpuHealth::Healthy, "570");
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pace.refused(at(0));
            let Next::Wait(due) = pace.next(Some(&wanted), at(0)) else {
                panic!("no pause after a refusal")
            };
            pauses.push(due.as_millisecond() - at(0).as_millisecond());
        }
        for (index, pause) in pauses.iter().enumerate() {
            let base = (1_000_i64 << index.min(5)).min(30_000);
            assert!((base..=base + base / 5 + 1).contains(pause), "{pauses:?}");
        }
        pace.written(wanted.clone(), None, at(100_000));
        assert_eq!(
            pace.next(Some(&status(GpuHealth::Unhealthy, "570")), at(100_001)),
            Next::Write
        );
    }

    #[test]
    fn nodes_do_not_come_back_together() {
        let due = |name: &str| {
            let mut pace = Pace::new(name);
            for _ in 0..6 {
                pace.refused(at(0));
            }
            pace.not_before
        };
        let mut all: Vec<_> = (0..50).map(|number| due(&format!("n{number}"))).collect();
        all.sort();
        all.dedup();
        assert!(all.len() > 40);
    }
}
