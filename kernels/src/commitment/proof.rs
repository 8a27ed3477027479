//! Proof that an artifact is under a committed root (`docs/poc-v2.md`, section 8).

use super::{Hash, INITIAL_DEPTH, MAX_DEPTH, leaf_hash, node_hash};

/// The siblings along a path, from the root down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub(super) steps: Vec<ProofStep>,
}

/// One sibling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofStep {
    /// Hash of the sibling subtree.
    pub hash: Hash,
    /// Leaves in it.
    pub count: u32,
}

const STEP_BYTES: usize = 36;

impl Proof {
    /// Whether `vector` is the artifact of `nonce` in the tree with this root and count.
    pub fn verify(&self, root: [u8; 32], count: u32, nonce: i32, vector: &[u8]) -> bool {
        let place = nonce.cast_unsigned();
        let depth = self.steps.len();
        let bits = (u32::BITS - place.leading_zeros()) as usize;
        if !(INITIAL_DEPTH..=MAX_DEPTH).contains(&depth) || bits > depth {
            return false;
        }
        let mut hash = leaf_hash(nonce, vector);
        let mut total = 1_u32;
        for (height, step) in self.steps.iter().rev().enumerate() {
            let Some(sum) = total.checked_add(step.count) else {
                return false;
            };
            total = sum;
            hash = if place >> height & 1 == 1 {
                node_hash(&step.hash, &hash, total)
            } else {
                node_hash(&hash, &step.hash, total)
            };
        }
        total == count && hash == root
    }

    /// Position of the leaf among all leaves in ascending order of place: what a sampled index refers to.
    pub fn dense_index(&self, nonce: i32) -> Option<u32> {
        let place = nonce.cast_unsigned();
        let left = self
            .steps
            .iter()
            .rev()
            .enumerate()
            .filter(|(height, _)| place >> height & 1 == 1);
        left.map(|(_, step)| step.count).try_fold(0_u32, u32::checked_add)
    }

    /// The siblings, from the root down.
    pub fn steps(&self) -> &[ProofStep] {
        &self.steps
    }

    /// A proof from its siblings, at most one per level.
    pub fn from_steps(steps: Vec<ProofStep>) -> Option<Self> {
        (steps.len() <= MAX_DEPTH).then_some(Self { steps })
    }

    /// Wire form of the steps: 32 bytes of sibling hash and its count as four little-endian bytes, each.
    pub fn to_elements(&self) -> Vec<[u8; STEP_BYTES]> {
        self.steps
            .iter()
            .map(|step| {
                let mut bytes = [0; STEP_BYTES];
                bytes[..32].copy_from_slice(&step.hash);
                bytes[32..].copy_from_slice(&step.count.to_le_bytes());
                bytes
            })
            .collect()
    }

    /// Reads the wire form; nothing when there are too many elements or one has the wrong length.
    pub fn from_elements<'a>(elements: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut steps = Vec::new();
        for element in elements {
            let bytes: &[u8; STEP_BYTES] = element.try_into().ok()?;
            let (hash, count) = bytes.split_first_chunk::<32>()?;
            steps.push(ProofStep {
                hash: *hash,
                count: u32::from_le_bytes(count.try_into().ok()?),
            });
            if steps.len() > MAX_DEPTH {
                return None;
            }
        }
        Some(Self { steps })
    }
}
