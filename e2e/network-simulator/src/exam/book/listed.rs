//! A book whose artifacts exist: every vector is kept, commitments are roots of the tree over them.

use super::Counts;
use crate::ledger::{ArtifactLine, Commit};
use kernels::{artifact, commitment::SumTree};
use std::collections::BTreeMap;

/// An accepted artifact.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub nonce: i32,
    pub node_num: u32,
    pub vector: Vec<u8>,
    /// Newest block when it was accepted.
    pub height: i64,
    /// Block of the first commitment that covers it.
    pub commit_height: Option<i64>,
}

/// A commitment on its way into a block.
#[derive(Debug, Clone)]
struct Pending {
    covers: usize,
    root: [u8; 32],
}

/// Accepted artifacts in order of arrival and what was committed of them.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    accepted: Vec<Accepted>,
    /// How many of them each node delivered.
    delivered: BTreeMap<u32, u64>,
    tree: SumTree,
    submitted: usize,
    pending: Option<Pending>,
    commits: Vec<Commit>,
}

impl Listed {
    /// Takes an artifact; a nonce counts once.
    pub fn accept(&mut self, nonce: i32, node_num: u32, vector: Vec<u8>, height: i64) -> bool {
        if !self.tree.insert(nonce, &vector) {
            return false;
        }
        *self.delivered.entry(node_num).or_default() += 1;
        self.accepted.push(Accepted {
            nonce,
            node_num,
            vector,
            height,
            commit_height: None,
        });
        true
    }

    /// Sends a commitment to everything accepted so far, unless the last one already covers it.
    pub fn submit(&mut self) {
        if self.accepted.len() > self.submitted {
            self.submitted = self.accepted.len();
            self.pending = Some(Pending {
                covers: self.submitted,
                root: self.tree.root(),
            });
        }
    }

    /// The block at `height` takes what is on its way. Of several commitments in one block the last one stands.
    pub fn include(&mut self, model: &str, height: i64) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        for accepted in self.accepted[..pending.covers].iter_mut().rev() {
            if accepted.commit_height.is_some() {
                break;
            }
            accepted.commit_height = Some(height);
        }
        self.commits.push(Commit {
            height,
            model: model.to_owned(),
            count: pending.covers as u32,
            root: hex::encode(pending.root),
        });
    }

    /// A commitment that arrives outside its window is refused and gone.
    pub fn drop_pending(&mut self) {
        self.pending = None;
    }

    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    /// Accepted artifacts of a node.
    pub fn delivered(&self, node_num: u32) -> u64 {
        self.delivered.get(&node_num).copied().unwrap_or_default()
    }

    pub fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// Count and root of everything accepted, committed or not.
    pub fn state(&self) -> (u32, [u8; 32]) {
        (self.tree.count(), self.tree.root())
    }

    /// Committed artifacts by nonce: what validators draw their samples from.
    pub fn committed_by_nonce(&self) -> Vec<&Accepted> {
        let mut covered: Vec<&Accepted> = self
            .accepted
            .iter()
            .filter(|item| item.commit_height.is_some())
            .collect();
        covered.sort_by_key(|item| item.nonce.cast_unsigned());
        covered
    }

    /// Accepted and committed per node number.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for item in &self.accepted {
            let count = counts.entry(item.node_num).or_default();
            count.0 += 1;
            count.1 += u64::from(item.commit_height.is_some());
        }
        counts
    }

    /// As the ledger's artifacts file has them.
    pub fn lines(&self) -> impl Iterator<Item = ArtifactLine> {
        self.accepted.iter().map(|item| ArtifactLine {
            nonce: item.nonce,
            node_num: item.node_num,
            vector_b64: artifact::to_base64(&item.vector),
            height: item.height,
            in_commit: item.commit_height.is_some(),
            commit_height: item.commit_height,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(nonces: std::ops::Range<i32>, height: i64) -> Listed {
        let mut book = Listed::default();
        for nonce in nonces {
            assert!(book.accept(nonce, 1, vec![nonce as u8; 24], height));
        }
        book
    }

    #[test]
    fn what_comes_after_the_last_commit_in_a_block_is_the_tail() {
        let mut book = book(0..5, 61);
        book.submit();
        book.include("m", 62);
        for nonce in 5..8 {
            book.accept(nonce, 2, vec![0; 24], 63);
        }
        book.submit();
        book.drop_pending();
        book.include("m", 74);
        assert_eq!(book.commits()[0].count, 5);
        assert_eq!(book.counts(), [(1, (5, 5)), (2, (3, 0))].into());
        assert_eq!(book.state().0, 8);
        let heights: Vec<Option<i64>> = book.accepted().iter().map(|item| item.commit_height).collect();
        assert_eq!(heights[..6], [Some(62), Some(62), Some(62), Some(62), Some(62), None]);
    }

    #[test]
    fn a_nonce_counts_once_and_nothing_new_is_not_committed_again() {
        let mut book = book(0..3, 61);
        assert!(!book.accept(1, 2, vec![9; 24], 61));
        book.submit();
        book.include("m", 62);
        book.submit();
        book.include("m", 63);
        assert_eq!(book.commits().len(), 1);
    }

    #[test]
    fn each_commit_is_the_root_of_what_it_covers() {
        let mut book = book(0..3, 61);
        book.submit();
        book.accept(9, 1, vec![1; 24], 61);
        book.include("m", 62);
        let mut tree = SumTree::new();
        for nonce in 0..3 {
            tree.insert(nonce, &[nonce as u8; 24]);
        }
        assert_eq!(book.commits()[0].root, hex::encode(tree.root()));
        assert_eq!(book.commits()[0].count, 3);
    }
}
