//! The newest block a quorum agrees on, and the pace that follows from it.

use std::collections::BTreeMap;

use super::{Memory, Observed, Tip};
use crate::chain::answers::Block;

/// Blocks back from the tip that the first pace is measured over.
pub(super) const PACE_BLOCKS: i64 = 20;
/// How far agreement may seem to fall back before it is believed that the chain was reset.
const RESET: i64 = 16;

/// The block a quorum reports at `height`, with more votes than any other there.
pub(super) fn agreed_at<'a>(observed: &Observed<'a>, height: i64) -> Option<&'a Block> {
    winner(observed, height).map(|(block, _)| block)
}

fn winner<'a>(observed: &Observed<'a>, height: i64) -> Option<(&'a Block, usize)> {
    let blocks = || observed.counting().filter_map(|(_, view)| view.block(height));
    let mut leader: Option<(&Block, usize)> = None;
    let mut tied = false;
    for block in blocks() {
        let votes = blocks().filter(|other| other.hash == block.hash).count();
        match leader {
            Some((known, most)) if votes < most || known.hash == block.hash => {}
            Some((_, most)) if votes == most => tied = true,
            _ => (leader, tied) = (Some((block, votes)), false),
        }
    }
    leader.filter(|(_, votes)| !tied && *votes >= observed.quorum())
}

/// Whether endpoints report different blocks above the agreed one, and none of them has a quorum.
pub(super) fn conflict(observed: &Observed<'_>, above: i64) -> bool {
    let mut hashes: BTreeMap<i64, &str> = BTreeMap::new();
    let mut split = false;
    for (_, view) in observed.counting() {
        for (height, block) in view.recent.range(above + 1..) {
            let first = hashes.entry(*height).or_insert(&block.hash);
            split |= *first != block.hash;
        }
    }
    split
}

/// Moves the tip on, and the pace with it.
pub(super) fn advance(memory: &mut Memory, observed: &Observed<'_>) {
    learn_pace(memory, observed);
    let mut heights: Vec<i64> = observed
        .counting()
        .flat_map(|(_, view)| view.recent.keys().copied())
        .collect();
    heights.sort_unstable();
    heights.dedup();
    let newest = heights
        .iter()
        .rev()
        .find_map(|height| winner(observed, *height).map(|found| (*height, found)));
    let Some((height, (block, votes))) = newest else {
        return;
    };
    let agreeing = u32::try_from(votes).unwrap_or(u32::MAX);
    match &mut memory.tip {
        Some(tip) if tip.height == height && tip.hash == block.hash => tip.agreeing = agreeing,
        // An endpoint that restarts forgets its newest blocks for a moment; the chain did not lose them.
        Some(tip) if height < tip.height && tip.height - height < RESET => {}
        previous => {
            if let Some(tip) = previous.as_ref().filter(|tip| tip.height < height) {
                memory.pace = memory.pace.advanced(height - tip.height, block.time_ms - tip.time_ms);
            }
            *previous = Some(Tip {
                height,
                hash: block.hash.clone(),
                time_ms: block.time_ms,
                observed_ms: observed.now_ms,
                agreeing,
            });
        }
    }
}

/// A first pace from two agreed blocks far apart, rather than from the next two.
fn learn_pace(memory: &mut Memory, observed: &Observed<'_>) {
    if memory.pace.samples > 0 {
        return;
    }
    let (Some(from), Some(tip)) = (memory.pace_from, &memory.tip) else {
        return;
    };
    if let Some(block) = agreed_at(observed, from) {
        memory.pace = memory.pace.advanced(tip.height - from, tip.time_ms - block.time_ms);
    }
}
