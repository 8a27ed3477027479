//! FleetSignal's client: facts about the chain, early. The slot works without it, only less well informed.

pub mod client;
pub mod replicas;
pub mod secure;

use proto::v1::{ExamNotice, Frame, StageHeights};

/// Blocks come no faster than this, on any network.
const FASTEST_BLOCK_MS: i64 = 100;
/// What was believed is forgotten when nothing plausible followed for so long.
const STALE_MS: i64 = 60_000;
/// Blocks a first look at a new source may be ahead beyond what time allows.
const SLACK_BLOCKS: i64 = 3;

/// What is believed of the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Newest height.
    pub height: i64,
    /// Its hash.
    pub block_hash: String,
    /// When it was told last, Unix milliseconds of this machine.
    pub seen_ms: i64,
    /// When it was told first.
    pub since_ms: i64,
    /// Whether an earlier frame made this height plausible. A first frame is believed, but ends nothing.
    pub confirmed: bool,
    /// An exam announced or running.
    pub exam: Option<ExamNotice>,
    /// Heights of the epoch.
    pub heights: Option<StageHeights>,
    /// Height and time of the first frame of this series: the pace of blocks is measured from it.
    pub first: (i64, i64),
}

impl View {
    /// Milliseconds between two blocks, once enough were seen.
    pub fn block_ms(&self) -> Option<i64> {
        let (blocks, took_ms) = (self.height - self.first.0, self.since_ms - self.first.1);
        (blocks >= PACE_BLOCKS && took_ms >= blocks).then(|| took_ms / blocks)
    }

    /// When a coming block is expected. While the chain is heard to stand still, the time stands off.
    pub fn expected_ms(&self, height: i64) -> Option<i64> {
        let block_ms = self.block_ms()?;
        let late_ms = (self.seen_ms - self.since_ms - block_ms).max(0);
        Some(self.since_ms + (height - self.height) * block_ms + late_ms)
    }

    /// Moves with a clock that was set.
    pub fn shift(&mut self, by_ms: i64) {
        self.seen_ms += by_ms;
        self.since_ms += by_ms;
        self.first.1 += by_ms;
    }

    /// Where the chain should be by now at the pace it had: frames may stop coming in the middle of an exam.
    pub fn expected_height(&self, now_ms: i64) -> i64 {
        let coming = self
            .block_ms()
            .map_or(0, |block_ms| (now_ms - self.seen_ms).max(0) / block_ms);
        self.height + coming
    }
}

/// Blocks from which their pace is told.
const PACE_BLOCKS: i64 = 5;

/// Takes a frame in, or does not: only growing heights are believed, and none that grew faster than blocks can. A false
/// frame must not be able to end a round.
pub fn accept(before: Option<&View>, frame: Frame, chain_id: &str, now_ms: i64) -> Option<View> {
    if frame.height <= 0 || (!chain_id.is_empty() && frame.chain_id != chain_id) {
        return None;
    }
    let before = before.filter(|before| now_ms - before.seen_ms <= STALE_MS);
    if let Some(before) = before {
        let possible = before.height + SLACK_BLOCKS + (now_ms - before.seen_ms).max(0) / FASTEST_BLOCK_MS;
        let same_block = frame.height == before.height && frame.block_hash == before.block_hash;
        if frame.height > possible || (frame.height <= before.height && !same_block) {
            return None;
        }
    }
    Some(View {
        height: frame.height,
        block_hash: frame.block_hash,
        seen_ms: now_ms,
        since_ms: before
            .filter(|before| before.height == frame.height)
            .map_or(now_ms, |before| before.since_ms),
        confirmed: before.is_some(),
        exam: frame.exam,
        heights: frame.heights,
        first: before.map_or((frame.height, now_ms), |before| before.first),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(height: i64, hash: &str) -> Frame {
        Frame {
            chain_id: "gonka-test".into(),
            height,
            block_hash: hash.into(),
            ..Frame::default()
        }
    }

    fn view(height: i64) -> View {
        accept(None, frame(height, "A"), "gonka-test", 1_000).unwrap()
    }

    #[test]
    fn the_chain_goes_on_at_its_pace_while_nobody_tells() {
        let mut before = view(100);
        for (height, now_ms) in [(103, 16_000), (110, 51_000)] {
            before = accept(Some(&before), frame(height, "B"), "gonka-test", now_ms).unwrap();
        }
        assert_eq!(before.expected_height(51_000), 110);
        assert_eq!(before.expected_height(55_900), 110);
        assert_eq!(before.expected_height(56_100), 111);
        assert_eq!(before.expected_height(101_000), 120);
        assert_eq!(before.expected_height(0), 110, "a clock that went back");
        assert_eq!(view(100).expected_height(60_000), 100, "one frame tells no pace");
    }

    #[test]
    fn a_coming_block_is_expected_later_while_the_chain_is_heard_to_stand_still() {
        let mut now = view(100);
        assert_eq!(now.expected_ms(120), None, "one frame tells no pace");
        for step in 1..=10 {
            let height = 100 + step;
            now = accept(Some(&now), frame(height, &height.to_string()), "", 1_000 + step * 1_000).unwrap();
        }
        assert_eq!((now.block_ms(), now.expected_ms(115)), (Some(1_000), Some(16_000)));
        for beat in [16_000, 21_000, 26_000] {
            now = accept(Some(&now), frame(110, "110"), "", beat).unwrap();
        }
        assert_eq!((now.block_ms(), now.since_ms), (Some(1_000), 11_000));
        assert_eq!(
            now.expected_ms(115),
            Some(30_000),
            "the next block at once, four more after it"
        );
        now = accept(Some(&now), frame(111, "111"), "", 40_000).unwrap();
        now = accept(Some(&now), frame(112, "112"), "", 40_000).unwrap();
        assert_eq!(now.height, 112, "two blocks at once");
        assert!(accept(Some(&now), frame(105, "105"), "", 41_000).is_none(), "the past");
        now.shift(-5_000);
        assert_eq!((now.since_ms, now.block_ms()), (35_000, Some(3_250)));
    }

    #[test]
    fn only_growing_heights_of_the_right_chain_are_believed() {
        let before = view(100);
        let accepted = |height, hash, now| accept(Some(&before), frame(height, hash), "gonka-test", now).is_some();
        assert!(accepted(101, "B", 6_000));
        assert!(accepted(100, "A", 6_000), "the same block may bring news of an exam");
        assert!(!accepted(100, "B", 6_000));
        assert!(!accepted(99, "A", 6_000));
        assert!(accept(None, frame(5, "A"), "other", 0).is_none());
        assert!(accept(None, frame(5, "A"), "", 0).is_some());
        assert!(accept(None, frame(0, "A"), "", 0).is_none());
    }

    #[test]
    fn a_height_that_no_chain_can_have_reached_is_not_believed() {
        let before = view(100);
        let accepted = |height, now| accept(Some(&before), frame(height, "B"), "", now).is_some();
        assert!(accepted(103, 1_000) && !accepted(104, 1_000));
        assert!(accepted(113, 2_000) && !accepted(114, 2_000));
        assert!(!accepted(i64::MAX, 61_000));
    }

    #[test]
    fn a_false_first_height_ends_nothing_and_is_forgotten_in_time() {
        let first = view(1_000_000);
        assert!(!first.confirmed);
        assert!(accept(Some(&first), frame(101, "B"), "", 61_000).is_none());
        let later = accept(Some(&first), frame(101, "B"), "", 61_001).unwrap();
        assert!(!later.confirmed);
        assert!(accept(Some(&later), frame(102, "C"), "", 62_000).unwrap().confirmed);
    }
}
