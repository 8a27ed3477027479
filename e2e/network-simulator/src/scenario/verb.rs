//! Faults and commands, as scenario steps and the control API say them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{AsRefStr, Display, EnumString, VariantNames};

/// Most blocks made at once.
const MAX_BURST: u32 = 100;
const MAX_PERCENT: u32 = 100_000;
const MAX_OFF_BY: u32 = 1000;

/// What can be done to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Display, AsRefStr, EnumString, VariantNames)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Verb {
    /// Refuse connections.
    Stop,
    /// Undo every fault of the target.
    Start,
    /// Stop, and start again after `for` (two blocks unless given).
    Restart,
    /// Accept requests and never answer.
    Stall,
    /// Answer at `bytesPerSecond`.
    Slow,
    /// Answer every request with `status`.
    Answer,
    /// Serve other blocks than the rest of the network from the next height on.
    Fork,
    /// See no block above `height`; below the newest one the height goes back.
    HaltAt,
    /// Make so many `blocks` at once (two unless given).
    Burst,
    /// Replace `field` by `value` wherever it occurs in an answer.
    Lie,
    /// Shift every time by `ms`.
    Skew,
    /// Announce a confirmation at the next block.
    TriggerConfirmation,
    /// Let `share` of the voting power vote against the target host in the next exam.
    VoteInvalid,
    /// Lose what the target's DAPI keeps on disk.
    LoseDatabase,
    /// Lose `percent` of the requests to the target.
    Drop,
    /// Show heights `blocks` too high.
    Jump,
    /// Go back by so many `blocks` and on from there.
    Rollback,
    /// Be of another chain, whose id is `value`.
    ChainId,
    /// Prices at `percent` of the usual ones.
    Price,
    /// Start only `percent` of the target host's nodes in its next exam.
    PartialStart,
    /// Let a simulated host vote `value`: honest, invalid or absent.
    Vote,
    /// Generate at `percent` of the usual speed: a simulated host from its next exam on, a node (`node/ID`) at once.
    Weight,
}

/// One command with its arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Arguments {
    /// `rpc/2`, `rest/2`, `endpoint/2` (both), `dapi`, `dapi/admin`, `chain`, or a host's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Undone after so long, for example `30s`, `500ms` or `4 blocks`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Lets a confirmation start where the chain's own rule forbids it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

impl Arguments {
    fn names_voting(&self) -> bool {
        let value = self.value.clone().unwrap_or_default();
        serde_json::from_value::<super::Voting>(value).is_ok()
    }

    /// What is missing or senseless for this verb, as `field: message`.
    pub fn problems(&self, verb: Verb) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut needs = |present: bool, message: &str| {
            if !present {
                wrong.push(message.to_owned());
            }
        };
        match verb {
            Verb::Slow => needs(
                self.bytes_per_second.is_some_and(|rate| rate > 0),
                "bytesPerSecond: must be given, above 0",
            ),
            Verb::Answer => {
                needs(
                    self.status.is_some_and(|status| (200..600).contains(&status)),
                    "status: must be given, 200 to 599",
                );
            }
            Verb::HaltAt => needs(
                self.height.is_some_and(|height| height > 0),
                "height: must be given, above 0",
            ),
            Verb::Burst => needs(
                self.blocks.is_none_or(|blocks| (1..=MAX_BURST).contains(&blocks)),
                "blocks: must be 1 to 100",
            ),
            Verb::Lie => needs(
                self.field.is_some() && self.value.is_some(),
                "field, value: both must be given",
            ),
            Verb::Skew => needs(self.ms.is_some(), "ms: must be given"),
            Verb::Weight | Verb::Price => needs(
                self.percent.is_some_and(|percent| percent <= MAX_PERCENT),
                "percent: must be given, 0 to 100000",
            ),
            Verb::Drop | Verb::PartialStart => needs(
                self.percent.is_some_and(|percent| percent <= 100),
                "percent: must be given, 0 to 100",
            ),
            Verb::Jump | Verb::Rollback => needs(
                self.blocks.is_some_and(|blocks| (1..=MAX_OFF_BY).contains(&blocks)),
                "blocks: must be given, 1 to 1000",
            ),
            Verb::ChainId => needs(
                self.value.as_ref().is_some_and(Value::is_string),
                "value: must be given, a text",
            ),
            Verb::Vote => needs(self.names_voting(), "value: must be given: honest, invalid or absent"),
            Verb::VoteInvalid => {
                needs(
                    self.share.is_some_and(|share| (0.0..=1.0).contains(&share)),
                    "share: must be given, 0 to 1",
                );
            }
            Verb::Stop
            | Verb::Start
            | Verb::Restart
            | Verb::Stall
            | Verb::Fork
            | Verb::TriggerConfirmation
            | Verb::LoseDatabase => {}
        }
        if verb != Verb::TriggerConfirmation && self.target.is_empty() {
            wrong.push("target: must be given".to_owned());
        }
        wrong
    }
}
