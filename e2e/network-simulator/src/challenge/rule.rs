//! Rules of a challenge as functions of numbers: slices, what is expected of them, what they come to.

use std::ops::Range;

/// What challenges are like in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// A segment is cut into slices of so many blocks; each wants a commitment.
    pub slice_blocks: i64,
    /// What is shorter is approved without a look.
    pub shortest_blocks: i64,
    /// The bounty, in thousandths of the target's reward.
    pub bounty_permille: u64,
    /// Challenges at a time.
    pub most: usize,
}

impl Rule {
    /// Heights of the slices of a segment that are judged: all whole ones, and what is left when it is long enough.
    pub fn slices(&self, segment: Range<i64>) -> Vec<Range<i64>> {
        let starts = (segment.start..segment.end).step_by(self.slice_blocks.max(1) as usize);
        let slices = starts.map(|start| start..(start + self.slice_blocks).min(segment.end));
        slices
            .filter(|slice| {
                let blocks = slice.end - slice.start;
                blocks == self.slice_blocks || blocks >= self.shortest_blocks
            })
            .collect()
    }

    /// Whether anything of a segment is judged.
    pub fn is_punishable(&self, segment: &Range<i64>) -> bool {
        segment.end - segment.start >= self.shortest_blocks
    }
}

/// Artifacts that a slice is expected to bring, of a host whose Sprint brought `sprint_count` in `sprint_blocks`.
pub fn expected(sprint_count: u64, sprint_blocks: i64, slice: &Range<i64>) -> u64 {
    let blocks = (slice.end - slice.start).unsigned_abs();
    (u128::from(sprint_count) * u128::from(blocks) / u128::from(sprint_blocks.max(1).unsigned_abs())) as u64
}

/// Artifacts committed in a slice, of a list of commitments as height and sum so far; nothing when none fell into it.
pub fn committed(commits: &[(i64, u64)], slice: &Range<i64>) -> Option<u64> {
    let before = commits.iter().rfind(|(height, _)| *height < slice.start);
    let last = commits.iter().rfind(|(height, _)| slice.contains(height))?;
    Some(last.1 - before.map_or(0, |(_, sum)| *sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        slice_blocks: 500,
        shortest_blocks: 300,
        bounty_permille: 100,
        most: 4,
    };

    #[test]
    fn whole_slices_count_and_the_rest_of_three_hundred_blocks() {
        assert_eq!(RULE.slices(100..1300), [100..600, 600..1100]);
        assert_eq!(RULE.slices(100..1400), [100..600, 600..1100, 1100..1400]);
        assert_eq!(RULE.slices(100..399), []);
        assert!(RULE.is_punishable(&(100..400)) && !RULE.is_punishable(&(100..399)));
    }

    #[test]
    fn a_slice_is_held_against_the_sprint_and_wants_a_commitment_of_its_own() {
        assert_eq!(expected(3500, 35, &(100..600)), 50_000);
        let commits = [(150, 10), (590, 70), (1100, 90)];
        assert_eq!(committed(&commits, &(100..600)), Some(70));
        assert_eq!(
            committed(&commits, &(600..1100)),
            None,
            "block 1100 is the next slice's"
        );
        assert_eq!(committed(&commits, &(1100..1600)), Some(20));
    }
}
