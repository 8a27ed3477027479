//! Decide: artifacts on their way to DAPI. What is sent when, what is tried again, what is given up. Pure; the clock
//! is an argument. The order is the engines' order, so a prefix of it is always what has left.

use std::collections::VecDeque;

/// Most artifacts in one callback: a body of about a quarter of a megabyte.
const MAX_POST: usize = 5_000;
/// Pause after the first transient failure; doubles to the longest. A window lasts minutes, so nothing is given up in it.
const FIRST_PAUSE_MS: i64 = 250;
const LONGEST_PAUSE_MS: i64 = 4_000;
/// Pause after "not in phase": the window opens and closes by the block.
const OUT_OF_PHASE_MS: i64 = 1_000;
/// In a hurry callbacks follow one another this closely: `docs/delivery.md` says what it is worth and what it costs.
const HURRY_MS: i64 = 250;
/// In a hurry no pause is longer.
const HURRIED_PAUSE_MS: i64 = 500;
/// After so many refusals of one artifact by itself the next one is tried: if that is taken, it was the artifact and not
/// DAPI's present state.
const SUSPICIOUS: u32 = 3;

/// One artifact that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which replica group computed it.
    pub group: u32,
    /// Index of its group's enumeration from which a successor that lacks it would have to go on.
    pub from_index: u64,
    /// The nonce.
    pub nonce: i32,
    /// The vector as the callback carries it.
    pub vector_b64: String,
}

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Below 400.
    Accepted,
    /// 503: before or after the window.
    OutOfPhase,
    /// Another 5xx, a timeout, a connection that failed.
    Transient,
    /// Another 4xx. DAPI looks at its node's number and its own stage before it looks at artifacts, and says so of either
    /// when it has just been restarted or has lost its database: what is refused now may well be taken later.
    Refused,
}

impl Outcome {
    /// Reads a status code.
    pub fn of_status(status: u16) -> Self {
        match status {
            0..400 => Self::Accepted,
            503 => Self::OutOfPhase,
            408 | 425 | 429 | 500.. => Self::Transient,
            400..500 => Self::Refused,
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send this many of the oldest.
    Send(usize),
    /// Look again at this time, Unix milliseconds.
    WaitUntil(i64),
    /// Nothing to send, or one callback is under way.
    Idle,
}

/// The queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    queue: VecDeque<Entry>,
    limit: usize,
    in_flight: usize,
    /// Start of the last callback; a first one is due as if one had been sent an interval before its time.
    last_sent_ms: Option<i64>,
    created_ms: i64,
    /// End and length of the pause after a failure.
    hold: Option<(i64, i64)>,
    failures: u32,
    /// Most artifacts in the next callback: halved by a refusal, so that one bad artifact does not hold up the others.
    most: usize,
    /// Refusals of the oldest artifact by itself.
    alone: u32,
    /// The next callback carries the second oldest.
    trial: bool,
    /// Of what left the queue last, those at its front that were given up.
    given_up: usize,
}

impl Outbox {
    /// An empty queue for at most `limit` artifacts.
    pub fn new(limit: usize, now_ms: i64) -> Self {
        Self {
            queue: VecDeque::new(),
            limit,
            in_flight: 0,
            last_sent_ms: None,
            created_ms: now_ms,
            hold: None,
            failures: 0,
            most: MAX_POST,
            alone: 0,
            trial: false,
            given_up: 0,
        }
    }

    /// Adds; answers how many of the oldest had to go for it.
    pub fn push(&mut self, entries: impl IntoIterator<Item = Entry>) -> u64 {
        self.queue.extend(entries);
        let excess = self.queue.len().saturating_sub(self.limit.max(self.in_flight));
        // What is in flight may yet be accepted: it stays, the oldest behind it go.
        self.queue.drain(self.in_flight..self.in_flight + excess);
        excess as u64
    }

    /// When to send what.
    pub fn decide(&self, now_ms: i64, interval_ms: i64) -> Step {
        self.decide_within(now_ms, interval_ms, LONGEST_PAUSE_MS)
    }

    /// The same near the end of the window.
    pub fn decide_hurried(&self, now_ms: i64, interval_ms: i64) -> Step {
        self.decide_within(now_ms, interval_ms.min(HURRY_MS), HURRIED_PAUSE_MS)
    }

    fn decide_within(&self, now_ms: i64, interval_ms: i64, longest_pause_ms: i64) -> Step {
        if self.queue.is_empty() || self.in_flight > 0 {
            return Step::Idle;
        }
        let paced = match self.last_sent_ms {
            // The first artifacts leave within a second: they prove the path while there is time to mend it.
            None => self.created_ms + interval_ms.min(1_000),
            Some(_) if self.failures == 0 && self.queue.len() >= self.most => now_ms,
            Some(sent) => sent + interval_ms,
        };
        let held = self
            .hold
            .map_or(now_ms, |(until, pause)| until - pause + pause.min(longest_pause_ms));
        let due = paced.max(held);
        // A due time beyond any pause was set by a clock that has been set back since.
        if now_ms >= due || due - now_ms > interval_ms.max(longest_pause_ms) {
            Step::Send(if self.trial { 2 } else { self.most }.min(self.queue.len()))
        } else {
            Step::WaitUntil(due)
        }
    }

    /// Marks the oldest `count` as on their way.
    pub fn begin(&mut self, count: usize, now_ms: i64) -> impl Iterator<Item = &Entry> {
        self.in_flight = count.min(self.queue.len());
        self.last_sent_ms = Some(now_ms);
        self.queue.range(usize::from(self.trial)..self.in_flight)
    }

    /// Notes how it went; answers how many have left the queue (accepted or given up), to be taken off by [`Self::pop`].
    pub fn finish(&mut self, outcome: Outcome, now_ms: i64) -> usize {
        let count = std::mem::take(&mut self.in_flight);
        let was_trial = std::mem::take(&mut self.trial);
        self.given_up = 0;
        match outcome {
            Outcome::Accepted => {
                (self.failures, self.alone, self.hold) = (0, 0, None);
                self.given_up = usize::from(was_trial);
                self.most = self.most.saturating_mul(2).min(MAX_POST);
                return count;
            }
            Outcome::OutOfPhase => {
                self.trial = was_trial;
                self.pause(OUT_OF_PHASE_MS, now_ms);
                return 0;
            }
            Outcome::Refused => {
                self.most = (count / 2).max(1);
                self.alone = if count == 1 { self.alone + 1 } else { 0 };
                self.trial = self.alone >= SUSPICIOUS && self.queue.len() > 1;
            }
            Outcome::Transient => self.trial = was_trial,
        }
        self.pause(pause_ms(self.failures), now_ms);
        self.failures = self.failures.saturating_add(1);
        0
    }

    /// Of what [`Self::finish`] let go last, how many were given up.
    pub fn given_up(&self) -> usize {
        self.given_up
    }

    fn pause(&mut self, length_ms: i64, now_ms: i64) {
        self.hold = Some((now_ms + length_ms, length_ms));
    }

    /// Takes the oldest `count` off.
    pub fn pop(&mut self, count: usize) {
        self.queue.drain(..count.min(self.queue.len()));
        self.in_flight = 0;
    }

    /// Takes everything off; answers how many that were.
    pub fn clear(&mut self) -> u64 {
        self.in_flight = 0;
        let count = self.queue.len() as u64;
        self.queue.clear();
        count
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Artifacts that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The first index of a group that has not been delivered, while something of it waits.
    pub fn undelivered_from(&self, group: u32) -> Option<u64> {
        self.queue
            .iter()
            .find(|entry| entry.group == group)
            .map(|entry| entry.from_index)
    }
}

/// Pause after a transient failure that follows `failures` others.
pub fn pause_ms(failures: u32) -> i64 {
    FIRST_PAUSE_MS
        .saturating_mul(1_i64 << failures.min(20))
        .min(LONGEST_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(nonces: std::ops::Range<i32>) -> impl Iterator<Item = Entry> {
        nonces.map(|nonce| Entry {
            group: (nonce % 2) as u32,
            from_index: nonce as u64 / 2,
            nonce,
            vector_b64: String::new(),
        })
    }

    #[test]
    fn the_first_callback_leaves_within_a_second_and_the_next_after_the_interval() {
        let mut outbox = Outbox::new(100, 0);
        assert_eq!(outbox.decide(50, 5_000), Step::Idle);
        outbox.push(entries(0..3));
        assert_eq!(outbox.decide(50, 5_000), Step::WaitUntil(1_000));
        assert_eq!(outbox.decide(50, 400), Step::WaitUntil(400));
        assert_eq!(outbox.decide(1_000, 5_000), Step::Send(3));
        let sent: Vec<_> = outbox.begin(3, 1_000).map(|entry| entry.nonce).collect();
        assert_eq!(sent, [0, 1, 2]);
        outbox.push(entries(3..5));
        assert_eq!(outbox.decide(1_001, 5_000), Step::Idle, "one callback at a time");
        assert_eq!(outbox.finish(Outcome::Accepted, 1_100), 3);
        outbox.pop(3);
        assert_eq!(outbox.decide(1_100, 5_000), Step::WaitUntil(6_000));
        assert_eq!(
            outbox.decide(1_100, 250),
            Step::WaitUntil(1_250),
            "near the end of the window"
        );
    }

    #[test]
    fn a_failed_callback_is_tried_again_with_growing_pauses_and_never_given_up() {
        let mut outbox = Outbox::new(100, 0);
        outbox.push(entries(0..3));
        let mut pauses = Vec::new();
        let mut now = 1_000;
        for _ in 0..7 {
            assert_eq!(outbox.decide(now, 1_000), Step::Send(3));
            assert_eq!(outbox.begin(3, now).count(), 3);
            assert_eq!(outbox.finish(Outcome::Transient, now), 0);
            let Step::WaitUntil(next) = outbox.decide(now, 0) else {
                panic!("a failure must be followed by a pause");
            };
            pauses.push(next - now);
            now = next.max(now + 1_000);
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 4_000, 4_000]);
        assert_eq!(outbox.len(), 3);
    }

    #[test]
    fn out_of_phase_is_met_with_patience_and_not_counted_as_failure() {
        let mut outbox = Outbox::new(100, 0);
        outbox.push(entries(0..3));
        for second in 1..20 {
            let now = second * 1_000;
            assert_eq!(outbox.decide(now, 100), Step::Send(3));
            assert_eq!(outbox.begin(3, now).count(), 3);
            assert_eq!(outbox.finish(Outcome::OutOfPhase, now), 0);
            assert_eq!(outbox.decide(now + 999, 100), Step::WaitUntil(now + 1_000));
        }
    }

    /// Delivers for a time, to a DAPI that answers as it likes; answers what was taken, what was given up, and attempts.
    fn deliver(
        outbox: &mut Outbox,
        times: std::ops::Range<i64>,
        clock: impl Fn(i64) -> i64,
        mut answer: impl FnMut(i64, &[i32]) -> Outcome,
    ) -> (Vec<i32>, Vec<i32>, usize) {
        let (mut taken, mut given_up, mut attempts) = (Vec::new(), Vec::new(), 0);
        for time in times.step_by(50) {
            let now = clock(time);
            if let Step::Send(count) = outbox.decide(now, 1_000) {
                let oldest: Vec<i32> = outbox.queue.iter().take(count).map(|entry| entry.nonce).collect();
                let nonces: Vec<i32> = outbox.begin(count, now).map(|entry| entry.nonce).collect();
                attempts += 1;
                let left = outbox.finish(answer(time, &nonces), now);
                outbox.pop(left);
                given_up.extend(&oldest[..outbox.given_up()]);
                taken.extend(&oldest[outbox.given_up()..left]);
            }
        }
        (taken, given_up, attempts)
    }

    #[test]
    fn what_is_refused_for_a_while_is_delivered_afterwards_without_a_storm() {
        let mut outbox = Outbox::new(1_000, 0);
        outbox.push(entries(0..100));
        let answer = |time, _: &[i32]| match time {
            0..82_000 => Outcome::Refused,
            82_000..84_000 => Outcome::OutOfPhase,
            84_000..90_000 => Outcome::Transient,
            _ => Outcome::Accepted,
        };
        let (taken, given_up, attempts) = deliver(&mut outbox, 1_000..96_000, |time| time, answer);
        assert_eq!((taken, given_up), ((0..100).collect(), Vec::new()));
        assert!(attempts < 40, "{attempts}");
    }

    #[test]
    fn one_artifact_that_is_never_taken_is_found_and_the_others_are_delivered() {
        let mut outbox = Outbox::new(1_000, 0);
        outbox.push(entries(0..100));
        let answer = |_, nonces: &[i32]| {
            if nonces.contains(&37) {
                Outcome::Refused
            } else {
                Outcome::Accepted
            }
        };
        let (taken, given_up, _) = deliver(&mut outbox, 1_000..120_000, |time| time, answer);
        assert_eq!(given_up, [37]);
        assert_eq!(taken.len(), 99);
    }

    #[test]
    fn a_clock_that_steps_back_and_forth_stops_no_delivery() {
        for step in [5_000, -5_000] {
            let clock = |time: i64| time + if time / 3_000 % 2 == 1 { step } else { 0 };
            let mut outbox = Outbox::new(1_000, 0);
            outbox.push(entries(0..3));
            let answer = |time: i64, _: &[i32]| {
                if time < 9_000 {
                    Outcome::Transient
                } else {
                    Outcome::Accepted
                }
            };
            let (taken, _, attempts) = deliver(&mut outbox, 1_000..16_000, clock, answer);
            assert_eq!(taken, [0, 1, 2], "{step}");
            assert!((3..20).contains(&attempts), "{attempts}");
        }
    }

    #[test]
    fn in_a_hurry_no_pause_is_long() {
        let mut outbox = Outbox::new(100, 0);
        outbox.push(entries(0..3));
        for _ in 0..6 {
            assert_eq!(outbox.begin(3, 10_000).count(), 3);
            assert_eq!(outbox.finish(Outcome::Transient, 10_000), 0);
        }
        assert_eq!(outbox.decide(10_000, 5_000), Step::WaitUntil(15_000));
        assert_eq!(outbox.decide_hurried(10_000, 5_000), Step::WaitUntil(10_500));
        assert_eq!(outbox.decide_hurried(10_500, 5_000), Step::Send(3));
    }

    #[test]
    fn the_oldest_go_when_the_memory_is_full_but_not_those_in_flight() {
        let mut outbox = Outbox::new(4, 0);
        assert_eq!(outbox.push(entries(0..4)), 0);
        assert_eq!(outbox.begin(2, 0).count(), 2);
        assert_eq!(outbox.push(entries(4..7)), 3);
        let kept: Vec<_> = outbox.queue.iter().map(|entry| entry.nonce).collect();
        assert_eq!(kept, [0, 1, 5, 6]);
    }

    #[test]
    fn a_backlog_is_worked_off_without_waiting_for_the_interval() {
        let mut outbox = Outbox::new(100_000, 0);
        outbox.push(entries(0..12_000));
        assert_eq!(outbox.begin(5_000, 1_000).count(), 5_000);
        let left = outbox.finish(Outcome::Accepted, 1_010);
        outbox.pop(left);
        assert_eq!(outbox.decide(1_010, 5_000), Step::Send(5_000));
        assert_eq!(outbox.begin(5_000, 1_010).count(), 5_000);
        let left = outbox.finish(Outcome::Accepted, 1_020);
        outbox.pop(left);
        assert_eq!(outbox.decide(1_020, 5_000), Step::WaitUntil(6_010));
    }

    #[test]
    fn a_successor_goes_on_at_what_was_not_delivered() {
        let mut outbox = Outbox::new(100, 0);
        assert_eq!(outbox.undelivered_from(1), None);
        outbox.push(entries(4..8));
        assert_eq!(outbox.undelivered_from(0), Some(2));
        assert_eq!(outbox.undelivered_from(1), Some(2));
        outbox.pop(2);
        assert_eq!(outbox.undelivered_from(0), Some(3));
    }

    #[test]
    fn status_codes_are_sorted_by_what_helps() {
        let cases = [
            (200, Outcome::Accepted),
            (204, Outcome::Accepted),
            (400, Outcome::Refused),
            (404, Outcome::Refused),
            (429, Outcome::Transient),
            (500, Outcome::Transient),
            (502, Outcome::Transient),
            (503, Outcome::OutOfPhase),
            (504, Outcome::Transient),
        ];
        for (status, outcome) in cases {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }
}
