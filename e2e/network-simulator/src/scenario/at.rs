//! Moments and durations of scenario steps.
//!
//! | text | meaning |
//! |---|---|
//! | `height 70` | when block 70 appears |
//! | `epoch 2 +5 blocks` | 5 blocks after the height at which epoch 2 takes effect |
//! | `epoch 2 P+3s` | 3 seconds after the Sprint of epoch 2 starts |
//! | `P-5s`, `P+4 blocks` | at every Sprint |

use crate::stages::Lengths;
use std::str::FromStr;
use thiserror::Error;

/// What a moment is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Height(i64),
    Effective(u64),
    Sprint(Option<u64>),
}

/// A distance in time or in blocks, possibly negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Blocks(i64),
    Millis(i64),
}

/// When a step is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    anchor: Anchor,
    offset: Span,
}

/// A text that is no moment or duration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("{0:?} is no moment: write height 70, epoch 2 +5 blocks, epoch 2 P+3s or P-5s")]
    Moment(String),
    #[error("{0:?} is no duration: write 30s, 500ms or 4 blocks")]
    Span(String),
}

impl Span {
    /// In milliseconds at a given block time.
    pub fn millis(self, block_millis: u64) -> i64 {
        match self {
            Self::Blocks(blocks) => blocks.saturating_mul(block_millis as i64),
            Self::Millis(millis) => millis,
        }
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Span(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '+' && c != '-')
            .unwrap_or(trimmed.len());
        let number: i64 = trimmed[..digits].parse().map_err(|_| wrong())?;
        match trimmed[digits..].trim() {
            "ms" => Ok(Self::Millis(number)),
            "s" => Ok(Self::Millis(number.checked_mul(1000).ok_or_else(wrong)?)),
            "block" | "blocks" => Ok(Self::Blocks(number)),
            _ => Err(wrong()),
        }
    }
}

impl At {
    /// The block at which this moment is due and the wait after it in milliseconds; nothing when the moment does not
    /// belong to the epoch of this block. Asked once per block.
    pub fn due(&self, height: i64, lengths: &Lengths, block_millis: u64) -> Option<u64> {
        let anchor = match self.anchor {
            Anchor::Height(at) => at,
            Anchor::Effective(epoch) => lengths.stages(epoch).set_new_validators,
            Anchor::Sprint(Some(epoch)) => lengths.poc_start(epoch),
            Anchor::Sprint(None) => self.nearest_sprint(height, lengths, block_millis),
        };
        let (blocks, wait) = self.split(block_millis);
        (anchor + blocks == height).then_some(wait)
    }

    /// The last block below a height at which this moment is due.
    pub fn last_before(&self, end: i64, lengths: &Lengths, block_millis: u64) -> Option<i64> {
        let (blocks, _) = self.split(block_millis);
        let anchor = match self.anchor {
            Anchor::Height(at) => at,
            Anchor::Effective(epoch) => lengths.stages(epoch).set_new_validators,
            Anchor::Sprint(Some(epoch)) => lengths.poc_start(epoch),
            Anchor::Sprint(None) => {
                let epoch = lengths.latest_epoch(end.saturating_sub(blocks).saturating_sub(1));
                (epoch > 0).then(|| lengths.poc_start(epoch))?
            }
        };
        Some(anchor.saturating_add(blocks)).filter(|due| *due < end)
    }

    fn nearest_sprint(&self, height: i64, lengths: &Lengths, block_millis: u64) -> i64 {
        let (blocks, _) = self.split(block_millis);
        let epoch = lengths.latest_epoch(height - blocks);
        // Epoch 0 has no Sprint.
        if epoch == 0 {
            i64::MIN / 2
        } else {
            lengths.poc_start(epoch)
        }
    }

    /// Whole blocks from the anchor, then milliseconds: a block is the last thing known for sure before a moment.
    fn split(&self, block_millis: u64) -> (i64, u64) {
        match self.offset {
            Span::Blocks(blocks) => (blocks, 0),
            Span::Millis(millis) => {
                let block = block_millis.max(1) as i64;
                let blocks = millis.div_euclid(block).min(0);
                (blocks, (millis - blocks * block) as u64)
            }
        }
    }
}

impl FromStr for At {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Moment(text.to_owned());
        let text_trimmed = text.trim();
        let none = Span::Blocks(0);
        if let Some(height) = text_trimmed.strip_prefix("height") {
            let height = height.trim().parse().map_err(|_| wrong())?;
            return Ok(Self {
                anchor: Anchor::Height(height),
                offset: none,
            });
        }
        let (epoch, rest) = match text_trimmed.strip_prefix("epoch") {
            Some(rest) => {
                let rest = rest.trim_start();
                let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let epoch: u64 = rest[..digits].parse().map_err(|_| wrong())?;
                (Some(epoch), rest[digits..].trim_start())
            }
            None => (None, text_trimmed),
        };
        let (anchor, offset) = match (rest.strip_prefix('P'), epoch) {
            (Some(offset), epoch) => (Anchor::Sprint(epoch), offset),
            (None, Some(epoch)) => (Anchor::Effective(epoch), rest),
            (None, None) => return Err(wrong()),
        };
        let offset = match offset.trim() {
            "" => none,
            offset if offset.starts_with(['+', '-']) => offset.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        Ok(Self { anchor, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const LENGTHS: Lengths = Lengths {
        epoch_length: 84,
        epoch_shift: 23,
        poc_stage_duration: 12,
        poc_exchange_duration: 0,
        poc_validation_delay: 3,
        poc_validation_duration: 16,
        set_new_validators_delay: 4,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 10,
    };

    #[rstest]
    #[case("height 70", &[(70, 0)])]
    #[case("epoch 2 +5 blocks", &[(185, 0)])]
    #[case("epoch 2", &[(180, 0)])]
    #[case("epoch 2 P+3s", &[(145, 3000)])]
    #[case("epoch 1 P - 5s", &[])]
    #[case("P-5s", &[(56, 0), (140, 0)])]
    #[case("P-1500ms", &[(59, 500), (143, 500)])]
    #[case("P+4 blocks", &[(65, 0), (149, 0)])]
    fn a_moment_is_due_at_its_blocks_only(#[case] text: &str, #[case] expected: &[(i64, u64)]) {
        let Ok(at) = text.parse::<At>() else {
            assert!(expected.is_empty(), "{text} does not parse");
            return;
        };
        let due: Vec<(i64, u64)> = (1..220)
            .filter_map(|height| at.due(height, &LENGTHS, 1000).map(|wait| (height, wait)))
            .collect();
        assert_eq!(due, expected);
        let last = at.last_before(220, &LENGTHS, 1000);
        assert_eq!(last, expected.last().map(|(height, _)| *height));
    }

    #[rstest]
    #[case("tomorrow")]
    #[case("epoch two +5 blocks")]
    #[case("P*2")]
    #[case("height x")]
    fn other_texts_are_refused(#[case] text: &str) {
        assert_eq!(text.parse::<At>(), Err(Error::Moment(text.to_owned())));
    }

    #[test]
    fn durations_have_three_units() {
        assert_eq!("30s".parse(), Ok(Span::Millis(30_000)));
        assert_eq!("500ms".parse(), Ok(Span::Millis(500)));
        assert_eq!("4 blocks".parse::<Span>().map(|span| span.millis(250)), Ok(1000));
        assert!("4".parse::<Span>().is_err());
    }
}
