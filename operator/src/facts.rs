//! Box 2, observe: what the chain says, as one plain value. Made by [`crate::chain`], read by everybody, changed by nobody.

use crds::references::{ExamKind, Stage, Window};
use crds::sprint_schedule::{ChainParameters, EndpointState, StageHeights, UpgradePlan};
use serde::{Deserialize, Serialize};

use crate::chain::answers::Vote;

/// What a quorum of endpoints agrees on at one height. Everything that is not known is absent or `Unknown`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Facts {
    /// Name of the SprintSchedule these facts are for.
    pub schedule: String,
    /// Chain id of the spec; every counted endpoint reports it.
    pub chain_id: String,
    /// Newest height a quorum agrees on; 0 = none yet.
    pub height: i64,
    /// Hash of that block, case kept.
    pub block_hash: String,
    /// Time in the block's header, Unix milliseconds.
    pub block_time_ms: i64,
    /// When this replica saw the block, Unix milliseconds.
    pub observed_ms: i64,
    /// Endpoints that report this height and hash.
    pub agreeing: u32,
    /// Whether a quorum of endpoints stands behind these facts now.
    pub quorum: bool,
    /// Where the epoch stands.
    pub stage: Stage,
    /// Index of the epoch.
    pub epoch: i64,
    /// Stage heights of the current epoch; absent while parameters or anchor are unknown.
    pub heights: Option<StageHeights>,
    /// Parameters of this epoch.
    pub parameters: Option<ChainParameters>,
    /// SHA-256 (hex) of the parameters; empty while unknown.
    pub parameters_hash: String,
    /// The exam that is announced or running.
    pub exam: Option<Exam>,
    /// The chain's upgrade plan.
    pub upgrade: Option<UpgradePlan>,
    /// Upgrades that are voted on, the nearest first.
    pub votes: Vec<Vote>,
    /// Network-wide window.
    pub window: Window,
    /// Last Green height; absent outside Green.
    pub green_until_height: Option<i64>,
    /// First height of the next Green window; absent in Green and while it cannot be told.
    pub next_green_height: Option<i64>,
    /// Pace of blocks.
    pub pace: Pace,
    /// Each endpoint of the spec.
    pub endpoints: Vec<EndpointFact>,
    /// What keeps these facts from being whole, for people; empty when nothing does.
    pub problems: Vec<String>,
}

/// An exam that is announced or running.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Exam {
    /// Sprint or Confirmation.
    pub kind: ExamKind,
    /// Block that announced it; the start itself in a Sprint.
    pub trigger_height: i64,
    /// First height of generation.
    pub generation_start_height: i64,
    /// Last height of generation.
    pub generation_end_height: i64,
    /// First height of validation, when `stop` is sent.
    pub validation_start_height: i64,
    /// The exam's block hash as received, case kept; empty until known.
    pub seed: String,
    /// DAPI node ids the network leaves on inference.
    pub preserved_node_ids: Vec<String>,
}

/// Pace of blocks: moving averages.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pace {
    /// Mean time between blocks, milliseconds; 0 = not known.
    pub block_millis: f64,
    /// Standard deviation, milliseconds.
    pub spread_millis: f64,
}

/// What one endpoint is good for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointFact {
    /// Name in the spec.
    pub name: String,
    /// State.
    pub state: EndpointState,
    /// Newest height it reported; 0 = none.
    pub height: i64,
    /// What failed, for people; empty when up.
    pub message: String,
    /// Unix milliseconds of its last change of state.
    pub since_ms: i64,
}

/// When a height is expected.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Prediction {
    /// Unix milliseconds.
    pub time_ms: i64,
    /// Half width of the 99 % interval, milliseconds.
    pub error_ms: i64,
}

/// Standard deviations on each side that hold 99 % of a normal distribution.
const DEVIATIONS: f64 = 2.58;

impl Pace {
    /// Blocks that take at least `millis` with 99 % confidence; absent while the pace is unknown.
    ///
    /// `n` blocks take `n·mean ± 2.58·spread·√n`; the smallest `n` whose lower bound reaches `millis` is the root of a
    /// quadratic in `√n`.
    pub fn blocks_for(&self, millis: i64) -> Option<i64> {
        if self.block_millis <= 0.0 {
            return None;
        }
        let margin = DEVIATIONS * self.spread_millis.max(0.0);
        let root = (margin + (margin * margin + 4.0 * self.block_millis * millis.max(0) as f64).sqrt())
            / (2.0 * self.block_millis);
        // The square of a root may end a hair above a whole number.
        Some(if millis <= 0 {
            0
        } else {
            (root * root - 1e-6).ceil() as i64
        })
    }
}

impl Facts {
    /// When `height` is expected, or was when it is past; absent while the pace is unknown.
    ///
    /// The error of a sum of independent intervals grows with the square root of their number; 2.58 standard deviations
    /// hold 99 % of a normal distribution.
    pub fn predict(&self, height: i64) -> Option<Prediction> {
        if self.height == 0 || self.pace.block_millis <= 0.0 {
            return None;
        }
        let blocks = (height - self.height) as f64;
        Some(Prediction {
            time_ms: self.block_time_ms + (blocks * self.pace.block_millis) as i64,
            error_ms: (DEVIATIONS * self.pace.spread_millis * blocks.abs().sqrt()) as i64,
        })
    }

    /// Milliseconds from `now_ms` until `height` is expected; negative when it is past.
    pub fn millis_until(&self, height: i64, now_ms: i64) -> Option<i64> {
        self.predict(height).map(|prediction| prediction.time_ms - now_ms)
    }

    /// Start of the Sprint that comes next, or of the one that generates now.
    pub fn next_poc_start(&self) -> Option<i64> {
        let heights = self.heights.as_ref()?;
        Some(if self.height < heights.generation_end_height {
            heights.poc_start_height
        } else {
            heights.next_poc_start_height
        })
    }

    /// Whether these facts are too old to permit anything: the chain or the reader stopped. Ten blocks, at least 30 s.
    pub fn is_stale(&self, now_ms: i64) -> bool {
        let limit = (10.0 * self.pace.block_millis).max(30_000.0) as i64;
        self.height == 0 || now_ms.saturating_sub(self.observed_ms) > limit
    }

    /// Last height from which `height` is still at least `millis` away, even if blocks come quickly; absent while the
    /// pace is unknown.
    pub fn last_height_before(&self, height: i64, millis: i64) -> Option<i64> {
        self.pace.blocks_for(millis).map(|blocks| height.saturating_sub(blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(height: i64) -> Facts {
        Facts {
            height,
            block_time_ms: 1_000_000,
            pace: Pace {
                block_millis: 5000.0,
                spread_millis: 100.0,
            },
            ..Facts::default()
        }
    }

    #[test]
    fn prediction_is_exact_at_the_known_height_and_widens_with_distance() {
        let facts = at(100);
        assert_eq!(
            facts.predict(100),
            Some(Prediction {
                time_ms: 1_000_000,
                error_ms: 0
            })
        );
        assert_eq!(
            facts.predict(200),
            Some(Prediction {
                time_ms: 1_500_000,
                error_ms: 2580
            })
        );
    }

    #[test]
    fn more_blocks_are_needed_when_their_pace_is_uneven() {
        let even = Pace {
            block_millis: 5000.0,
            spread_millis: 0.0,
        };
        let uneven = Pace {
            block_millis: 5000.0,
            spread_millis: 1000.0,
        };
        assert_eq!(even.blocks_for(600_000), Some(120));
        assert_eq!(uneven.blocks_for(600_000), Some(126));
        assert_eq!(Pace::default().blocks_for(1), None);
    }

    #[test]
    fn facts_go_stale_after_ten_blocks_but_not_before_thirty_seconds() {
        let mut facts = at(100);
        facts.observed_ms = 1_000_000;
        assert!(!facts.is_stale(1_050_000));
        assert!(facts.is_stale(1_050_001));
        facts.pace.block_millis = 1000.0;
        assert!(!facts.is_stale(1_030_000));
        assert!(facts.is_stale(1_030_001));
    }

    #[test]
    fn nothing_is_predicted_before_the_pace_is_known() {
        assert_eq!(
            Facts {
                height: 5,
                ..Facts::default()
            }
            .predict(6),
            None
        );
        assert_eq!(at(0).predict(6), None);
    }
}
