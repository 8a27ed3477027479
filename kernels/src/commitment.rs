//! What a host commits to on chain (`docs/poc-v2.md`, section 8): a sparse Merkle sum tree over its artifacts.
//!
//! A leaf's place is its nonce, so a nonce can be in the tree only once and the root does not depend on the order of
//! insertion. Every node counts the leaves below it; the root's count is what the host is weighed by.

mod proof;

pub use proof::{Proof, ProofStep};

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Depth of a tree whose nonces all fit 24 bits.
pub const INITIAL_DEPTH: usize = 24;
/// Depth at which every 32-bit nonce has a place.
pub const MAX_DEPTH: usize = 32;

/// SHA-256.
pub type Hash = [u8; 32];

/// No child: the subtree is empty.
const EMPTY: usize = usize::MAX;

/// A sparse Merkle sum tree that keeps all its nodes: insertion and proof cost one path, the root nothing.
#[derive(Debug, Clone)]
pub struct SumTree {
    depth: usize,
    root: usize,
    nodes: Vec<Node>,
    nonces: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
struct Node {
    hash: Hash,
    count: u32,
    children: [usize; 2],
}

impl Default for SumTree {
    fn default() -> Self {
        Self::new()
    }
}

impl SumTree {
    /// An empty tree.
    pub fn new() -> Self {
        Self {
            depth: INITIAL_DEPTH,
            root: EMPTY,
            nodes: Vec::new(),
            nonces: BTreeSet::new(),
        }
    }

    /// Adds an artifact. False, and nothing changes, when the nonce is already there. A nonce that does not fit the
    /// depth deepens the tree; a negative one is read as its 32-bit pattern, as the network does.
    pub fn insert(&mut self, nonce: i32, vector: &[u8]) -> bool {
        let place = nonce.cast_unsigned();
        if !self.nonces.insert(place) {
            return false;
        }
        self.deepen((u32::BITS - place.leading_zeros()) as usize);
        let mut path = Vec::with_capacity(self.depth);
        let mut at = self.root;
        for level in (0..self.depth).rev() {
            let side = (place >> level & 1) as usize;
            path.push((at, side));
            at = self.child(at, side);
        }
        self.nodes.push(Node {
            hash: leaf_hash(nonce, vector),
            count: 1,
            children: [EMPTY; 2],
        });
        let mut below = self.nodes.len() - 1;
        for (height, (at, side)) in (1..).zip(path.into_iter().rev()) {
            below = self.replace_child(at, side, below, height);
        }
        self.root = below;
        true
    }

    /// Hash of the root; that of an empty tree of the initial depth while nothing was inserted.
    pub fn root(&self) -> Hash {
        self.hash(self.root, self.depth)
    }

    /// Number of artifacts.
    pub fn count(&self) -> u32 {
        self.nonces.len() as u32
    }

    /// Levels between the root and the leaves: 24, or as many bits as the largest nonce has.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the nonce is in the tree.
    pub fn contains(&self, nonce: i32) -> bool {
        self.nonces.contains(&nonce.cast_unsigned())
    }

    /// The nonce at a dense index, counting leaves from the smallest place: what the network's sampling asks for.
    pub fn nonce_at(&self, index: u32) -> Option<i32> {
        self.nonces.iter().nth(index as usize).map(|place| place.cast_signed())
    }

    /// Proof that the nonce is in the tree.
    pub fn prove(&self, nonce: i32) -> Option<Proof> {
        let place = nonce.cast_unsigned();
        if !self.nonces.contains(&place) {
            return None;
        }
        let mut steps = Vec::with_capacity(self.depth);
        let mut at = self.root;
        for height in (0..self.depth).rev() {
            let side = (place >> height & 1) as usize;
            let sibling = self.child(at, 1 - side);
            steps.push(ProofStep {
                hash: self.hash(sibling, height),
                count: self.count_of(sibling),
            });
            at = self.child(at, side);
        }
        Some(Proof { steps })
    }

    fn deepen(&mut self, bits: usize) {
        while self.depth < bits.min(MAX_DEPTH) {
            self.depth += 1;
            if self.root != EMPTY {
                self.root = self.replace_child(EMPTY, 0, self.root, self.depth);
            }
        }
    }

    /// Puts `below` under the node `at` (made if it does not exist), which stands `height` levels above the leaves.
    fn replace_child(&mut self, at: usize, side: usize, below: usize, height: usize) -> usize {
        let mut children = self.nodes.get(at).map_or([EMPTY; 2], |node| node.children);
        children[side] = below;
        let count = self.count_of(children[0]) + self.count_of(children[1]);
        let hash = node_hash(
            &self.hash(children[0], height - 1),
            &self.hash(children[1], height - 1),
            count,
        );
        let node = Node { hash, count, children };
        if let Some(existing) = self.nodes.get_mut(at) {
            *existing = node;
            at
        } else {
            self.nodes.push(node);
            self.nodes.len() - 1
        }
    }

    fn child(&self, at: usize, side: usize) -> usize {
        self.nodes.get(at).map_or(EMPTY, |node| node.children[side])
    }

    fn count_of(&self, at: usize) -> u32 {
        self.nodes.get(at).map_or(0, |node| node.count)
    }

    fn hash(&self, at: usize, height: usize) -> Hash {
        self.nodes.get(at).map_or_else(|| empty_hash(height), |node| node.hash)
    }
}

/// Hash of a leaf: nonce as four little-endian bytes, then the vector's bytes.
pub fn leaf_hash(nonce: i32, vector: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(nonce.to_le_bytes())
        .chain_update(vector)
        .finalize()
        .into()
}

fn node_hash(left: &Hash, right: &Hash, count: u32) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .chain_update(count.to_le_bytes())
        .finalize()
        .into()
}

/// Hash of an empty subtree of the given height.
fn empty_hash(height: usize) -> Hash {
    static TABLE: std::sync::LazyLock<[Hash; MAX_DEPTH + 1]> = std::sync::LazyLock::new(|| {
        let mut table = [Sha256::digest([0]).into(); MAX_DEPTH + 1];
        for height in 1..table.len() {
            table[height] = node_hash(&table[height - 1], &table[height - 1], 0);
        }
        table
    });
    TABLE[height]
}
