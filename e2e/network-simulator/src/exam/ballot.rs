//! Votes on one host in one exam. Validators are their place among the network's hosts, so that a hundred of them
//! voting on each other cost no texts.

/// A vote in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    pub validator: usize,
    /// Size of the recomputed sample, or -1.
    pub value: i64,
    pub power: u64,
}

/// Votes in blocks and on their way there.
#[derive(Debug, Clone, Default)]
pub struct Ballot {
    counted: Vec<Vote>,
    pending: Vec<(usize, i64)>,
    /// By validator: whether a vote of it is in either list.
    cast: Vec<bool>,
    /// Whether one of it is in a block.
    sealed: Vec<bool>,
}

fn mark(marks: &mut Vec<bool>, index: usize) -> bool {
    if marks.len() <= index {
        marks.resize(index + 1, false);
    }
    std::mem::replace(&mut marks[index], true)
}

impl Ballot {
    /// A vote for the next block.
    pub fn cast(&mut self, validator: usize, value: i64) {
        mark(&mut self.cast, validator);
        self.pending.push((validator, value));
    }

    pub fn has(&self, validator: usize) -> bool {
        self.cast.get(validator).copied().unwrap_or_default()
    }

    /// How many have voted.
    pub fn voters(&self) -> usize {
        self.cast.iter().filter(|cast| **cast).count()
    }

    /// A block takes what is on its way; of a validator's votes the first one in a block stands.
    pub fn include(&mut self, powers: &[u64]) {
        for (validator, value) in std::mem::take(&mut self.pending) {
            if !mark(&mut self.sealed, validator) {
                let power = powers.get(validator).copied().unwrap_or_default();
                self.counted.push(Vote {
                    validator,
                    value,
                    power,
                });
            }
        }
    }

    pub fn counted(&self) -> &[Vote] {
        &self.counted
    }

    /// Voting power for the host, or against it.
    pub fn power(&self, valid: bool) -> u64 {
        let side = self.counted.iter().filter(|vote| (vote.value > 0) == valid);
        side.map(|vote| vote.power).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_vote_of_a_validator_in_a_block_stands() {
        let mut ballot = Ballot::default();
        ballot.cast(2, 40);
        ballot.cast(0, -1);
        assert!(ballot.has(2) && ballot.has(0) && !ballot.has(1) && !ballot.has(9));
        ballot.include(&[3, 5, 7]);
        ballot.cast(2, -1);
        ballot.include(&[3, 5, 7]);
        assert_eq!((ballot.power(true), ballot.power(false)), (7, 3));
        assert_eq!(ballot.counted().len(), 2);
    }
}
