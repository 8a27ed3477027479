//! A book of numbers: per node which stretches of its nonces were delivered. What a node delivers twice counts once, as
//! it does where the artifacts are there; an exam of millions takes a few words per node.

use super::Counts;
use crate::{identity, ledger::Commit};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, ops::Range};

/// Nonces of one node in one callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub node_num: u32,
    /// Replica group within the node, from 0: groups of a node have nonces of their own.
    pub group: u32,
    /// Places in the group's sequence, from 0.
    pub places: Range<u64>,
}

/// What one group of a node delivered.
#[derive(Debug, Clone, Default)]
struct Lane {
    /// Apart, in order.
    stretches: Vec<Range<u64>>,
    accepted: u64,
    submitted: u64,
    committed: u64,
}

impl Lane {
    /// Adds a stretch, says how many places of it were new.
    fn add(&mut self, places: Range<u64>) -> u64 {
        if places.is_empty() {
            return 0;
        }
        let first = self.stretches.partition_point(|known| known.end < places.start);
        let after = self.stretches.partition_point(|known| known.start <= places.end);
        let touched = self.stretches.get(first..after).unwrap_or_default();
        let known: u64 = touched.iter().map(|known| known.end - known.start).sum();
        let start = touched
            .first()
            .map_or(places.start, |known| known.start.min(places.start));
        let end = touched.last().map_or(places.end, |known| known.end.max(places.end));
        self.stretches.splice(first..after, std::iter::once(start..end));
        let fresh = end - start - known;
        self.accepted += fresh;
        fresh
    }
}

/// Stretches in place of artifacts.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    lanes: BTreeMap<(u32, u32), Lane>,
    accepted: u64,
    submitted: u64,
    pending: bool,
    commits: Vec<Commit>,
}

impl Counted {
    /// Takes a stretch, says how many nonces of it were new.
    pub fn count(&mut self, batch: &Batch) -> u64 {
        let lane = self.lanes.entry((batch.node_num, batch.group)).or_default();
        let fresh = lane.add(batch.places.clone());
        self.accepted += fresh;
        fresh
    }

    pub fn submit(&mut self) {
        if self.accepted > self.submitted {
            self.submitted = self.accepted;
            self.pending = true;
            self.lanes.values_mut().for_each(|lane| lane.submitted = lane.accepted);
        }
    }

    pub fn include(&mut self, model: &str, height: i64) {
        if !std::mem::take(&mut self.pending) {
            return;
        }
        self.lanes.values_mut().for_each(|lane| lane.committed = lane.submitted);
        self.commits.push(Commit {
            height,
            model: model.to_owned(),
            count: u32::try_from(self.submitted).unwrap_or(u32::MAX),
            root: hex::encode(self.root(|lane| lane.committed)),
        });
    }

    pub fn drop_pending(&mut self) {
        self.pending = false;
    }

    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    pub fn delivered(&self, node_num: u32) -> u64 {
        self.lanes
            .range((node_num, 0)..=(node_num, u32::MAX))
            .map(|(_, lane)| lane.accepted)
            .sum()
    }

    pub fn state(&self) -> (u32, [u8; 32]) {
        let count = u32::try_from(self.accepted).unwrap_or(u32::MAX);
        (count, self.root(|lane| lane.accepted))
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for ((node_num, _), lane) in &self.lanes {
            let count = counts.entry(*node_num).or_default();
            count.0 += lane.accepted;
            count.1 += lane.committed;
        }
        counts
    }

    /// Stands for the tree's root: it differs when a node's count does.
    fn root(&self, of: impl Fn(&Lane) -> u64) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(identity::COUNTED_ROOT);
        for ((node_num, group), lane) in &self.lanes {
            hasher.update(node_num.to_be_bytes());
            hasher.update(group.to_be_bytes());
            hasher.update(of(lane).to_be_bytes());
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn batch(node_num: u32, places: Range<u64>) -> Batch {
        Batch {
            node_num,
            group: 0,
            places,
        }
    }

    #[rstest]
    #[case(&[(0, 5), (5, 9)], &[(0, 9)])]
    #[case(&[(0, 5), (0, 5)], &[(0, 5)])]
    #[case(&[(0, 5), (7, 9), (3, 8)], &[(0, 9)])]
    #[case(&[(7, 9), (0, 5)], &[(0, 5), (7, 9)])]
    #[case(&[(0, 9), (2, 4), (9, 9)], &[(0, 9)])]
    #[case(&[(4, 6), (0, 1), (8, 9), (0, 10)], &[(0, 10)])]
    fn stretches_grow_together_and_count_once(#[case] added: &[(u64, u64)], #[case] expected: &[(u64, u64)]) {
        let mut lane = Lane::default();
        let fresh: u64 = added.iter().map(|(start, end)| lane.add(*start..*end)).sum();
        let stretches: Vec<(u64, u64)> = lane.stretches.iter().map(|known| (known.start, known.end)).collect();
        assert_eq!(stretches, expected);
        let length: u64 = expected.iter().map(|(start, end)| end - start).sum();
        assert_eq!((fresh, lane.accepted), (length, length));
    }

    #[test]
    fn it_keeps_the_books_as_the_one_with_artifacts_does() {
        let mut numbers = Counted::default();
        let mut vectors = super::super::listed::Listed::default();
        let deliver =
            |numbers: &mut Counted, vectors: &mut super::super::listed::Listed, node: u32, places: Range<u64>| {
                numbers.count(&batch(node, places.clone()));
                for place in places {
                    vectors.accept(node as i32 + 3 * place as i32, node, vec![1; 24], 61);
                }
            };
        let both = |numbers: &mut Counted, vectors: &mut super::super::listed::Listed, act: &str, height| match act {
            "submit" => (numbers.submit(), vectors.submit()),
            "include" => (numbers.include("m", height), vectors.include("m", height)),
            _ => (numbers.drop_pending(), vectors.drop_pending()),
        };
        deliver(&mut numbers, &mut vectors, 1, 0..5);
        both(&mut numbers, &mut vectors, "submit", 0);
        deliver(&mut numbers, &mut vectors, 2, 0..4);
        both(&mut numbers, &mut vectors, "include", 62);
        deliver(&mut numbers, &mut vectors, 1, 3..8);
        both(&mut numbers, &mut vectors, "submit", 0);
        both(&mut numbers, &mut vectors, "drop", 0);
        both(&mut numbers, &mut vectors, "include", 63);
        let commits = |commits: &[Commit]| {
            commits
                .iter()
                .map(|commit| (commit.height, commit.count))
                .collect::<Vec<_>>()
        };
        assert_eq!(commits(numbers.commits()), commits(vectors.commits()));
        assert_eq!(numbers.counts(), vectors.counts());
        assert_eq!(numbers.counts(), [(1, (8, 5)), (2, (4, 0))].into());
        assert_eq!(numbers.state().0, vectors.state().0);
    }
}
