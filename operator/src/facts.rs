//! Box 2, observe: what the chain says, as one plain value. Made by [`crate::chain`], read by everybody, changed by nobody.

use crds::references::{ExamKind, Stage, Window};
use crds::sprint_schedule::{ChainParameters, EndpointState, StageHeights, UpgradePlan};
use serde::{Deserialize, Serialize};

/// What a quorum of endpoints agrees on at one height. Everything that is not known is absent or `Unknown`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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
    /// Network-wide window.
    pub window: Window,
    /// Last Green height; absent outside Green.
    pub green_until_height: Option<i64>,
    /// Pace of blocks.
    pub pace: Pace,
    /// Each endpoint of the spec.
    pub endpoints: Vec<EndpointFact>,
    /// What keeps these facts from being whole, for people; empty when nothing does.
    pub problems: Vec<String>,
}

/// An exam that is announced or running.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// Mean time between blocks, milliseconds; 0 = not known.
    pub block_millis: f64,
    /// Standard deviation, milliseconds.
    pub spread_millis: f64,
}

/// What one endpoint is good for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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
            error_ms: (2.58 * self.pace.spread_millis * blocks.abs().sqrt()) as i64,
        })
    }

    /// Milliseconds from `now_ms` until `height` is expected; negative when it is past.
    pub fn millis_until(&self, height: i64, now_ms: i64) -> Option<i64> {
        self.predict(height).map(|prediction| prediction.time_ms - now_ms)
    }

    /// Start of the Sprint that comes next, or of the one that runs.
    pub fn next_poc_start(&self) -> Option<i64> {
        let heights = self.heights.as_ref()?;
        Some(
            if self.height < heights.generation_end_height && self.height <= heights.poc_start_height {
                heights.poc_start_height
            } else {
                heights.next_poc_start_height
            },
        )
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
