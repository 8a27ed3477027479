//! The sparse Merkle sum tree: proofs verify, anything changed in them does not, and the root is a function of the
//! set of artifacts.

use kernels::commitment::{INITIAL_DEPTH, Proof, ProofStep, SumTree};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

type Leaves = BTreeMap<i32, Vec<u8>>;

fn build(leaves: impl IntoIterator<Item = (i32, Vec<u8>)>) -> SumTree {
    let mut tree = SumTree::new();
    for (nonce, vector) in leaves {
        assert!(tree.insert(nonce, &vector));
    }
    tree
}

/// Small nonces mostly, some that deepen the tree.
fn leaves() -> impl Strategy<Value = Leaves> {
    let nonce = prop_oneof![4 => 0..200_i32, 1 => 0..1 << 24, 1 => 0..=i32::MAX, 1 => i32::MIN..0];
    prop::collection::btree_map(nonce, prop::collection::vec(any::<u8>(), 0..30), 1..24)
}

/// The definition, level by level over all occupied places: shares no code with the tree.
fn root_by_definition(leaves: &Leaves) -> [u8; 32] {
    let hash = |parts: &[&[u8]]| parts.iter().fold(Sha256::new(), Digest::chain_update).finalize().into();
    let depth = leaves
        .keys()
        .map(|nonce| 32 - nonce.cast_unsigned().leading_zeros())
        .max()
        .unwrap_or(0)
        .max(24);
    let mut level: BTreeMap<u32, ([u8; 32], u32)> = leaves
        .iter()
        .map(|(nonce, vector)| (nonce.cast_unsigned(), (hash(&[&[0], &nonce.to_le_bytes(), vector]), 1)))
        .collect();
    let mut empty: [u8; 32] = hash(&[&[0]]);
    for _ in 0..depth {
        let mut above = BTreeMap::new();
        for place in level.keys().map(|place| place >> 1) {
            let child = |place: u32| level.get(&place).copied().unwrap_or((empty, 0));
            let (left, right) = (child(place << 1), child(place << 1 | 1));
            let count = left.1 + right.1;
            above.insert(place, (hash(&[&[1], &left.0, &right.0, &count.to_le_bytes()]), count));
        }
        empty = hash(&[&[1], &empty, &empty, &0_u32.to_le_bytes()]);
        level = above;
    }
    level.get(&0).map_or(empty, |root| root.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_root_is_that_of_the_definition(leaves in leaves()) {
        prop_assert_eq!(build(leaves.clone()).root(), root_by_definition(&leaves));
    }

    #[test]
    fn the_root_does_not_depend_on_the_order(shuffled in leaves().prop_flat_map(|leaves| Just(leaves.into_iter().collect::<Vec<_>>()).prop_shuffle())) {
        let sorted: Leaves = shuffled.iter().cloned().collect();
        let tree = build(shuffled);
        prop_assert_eq!(tree.root(), build(sorted.clone()).root());
        prop_assert_eq!(tree.count() as usize, sorted.len());
    }

    #[test]
    fn every_artifact_has_a_proof_at_its_dense_index(leaves in leaves()) {
        let tree = build(leaves.clone());
        for (&nonce, vector) in &leaves {
            let proof = tree.prove(nonce).expect("in the tree");
            prop_assert!(proof.verify(tree.root(), tree.count(), nonce, vector));
            let index = proof.dense_index(nonce).expect("counts add up");
            prop_assert_eq!(tree.nonce_at(index), Some(nonce));
            let wire = proof.to_elements();
            prop_assert_eq!(Proof::from_elements(wire.iter().map(|element| &element[..])), Some(proof));
        }
        prop_assert_eq!(tree.nonce_at(tree.count()), None);
    }

    #[test]
    fn any_flipped_bit_breaks_the_proof(leaves in leaves(), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let tree = build(leaves.clone());
        let (&nonce, vector) = leaves.iter().nth(which.index(leaves.len())).expect("there");
        let elements = tree.prove(nonce).expect("in the tree").to_elements();
        let mut bytes = elements.concat();
        let step = elements[0].len();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let broken = Proof::from_elements(bytes.chunks_exact(step)).expect("still well-formed");
        prop_assert!(!broken.verify(tree.root(), tree.count(), nonce, vector));
    }

    #[test]
    fn another_root_count_nonce_or_vector_is_refused(leaves in leaves(), bit in 0..256_usize) {
        let tree = build(leaves.clone());
        let (&nonce, vector) = leaves.iter().next().expect("not empty");
        let proof = tree.prove(nonce).expect("in the tree");
        let mut root = tree.root();
        root[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!proof.verify(root, tree.count(), nonce, vector));
        prop_assert!(!proof.verify(tree.root(), tree.count() + 1, nonce, vector));
        prop_assert!(!proof.verify(tree.root(), tree.count(), nonce ^ (1 << (bit % 32)), vector));
        let mut longer = vector.clone();
        longer.push(0);
        prop_assert!(!proof.verify(tree.root(), tree.count(), nonce, &longer));
    }

    #[test]
    fn a_duplicate_changes_nothing(leaves in leaves(), which in any::<prop::sample::Index>()) {
        let mut tree = build(leaves.clone());
        let before = (tree.root(), tree.count());
        let &nonce = leaves.keys().nth(which.index(leaves.len())).expect("there");
        prop_assert!(!tree.insert(nonce, b"another vector"));
        prop_assert_eq!((tree.root(), tree.count()), before);
    }
}

#[test]
fn the_tree_deepens_with_its_nonces_and_keeps_old_artifacts_provable() {
    let mut tree = build([(5, b"five".to_vec())]);
    assert_eq!(tree.depth(), INITIAL_DEPTH);
    for (nonce, depth) in [(1 << 24, 25), (1 << 28, 29), (i32::MAX, 31), (-1, 32)] {
        assert!(tree.insert(nonce, b"late"));
        assert_eq!(tree.depth(), depth);
        for (nonce, vector) in [(5, &b"five"[..]), (nonce, b"late")] {
            let proof = tree.prove(nonce).expect("in the tree");
            assert_eq!(proof.steps().len(), depth);
            assert!(proof.verify(tree.root(), tree.count(), nonce, vector));
        }
    }
}

#[test]
fn an_empty_tree_has_a_root_and_no_proofs() {
    let tree = SumTree::default();
    assert_eq!(tree.root(), root_by_definition(&Leaves::new()));
    assert_eq!((tree.count(), tree.prove(0)), (0, None));
    let mut deepened = SumTree::new();
    assert!(deepened.insert(i32::MAX, b"first"));
    assert_eq!(
        deepened.root(),
        root_by_definition(&Leaves::from([(i32::MAX, b"first".to_vec())]))
    );
}

#[test]
fn proofs_of_impossible_depth_or_count_are_refused() {
    let tree = build([(1, b"one".to_vec()), (2, b"two".to_vec())]);
    let steps = tree.prove(1).expect("in the tree").steps().to_vec();
    let verify = |steps: Vec<ProofStep>| Proof::from_steps(steps).is_some_and(|p| p.verify(tree.root(), 2, 1, b"one"));
    assert!(verify(steps.clone()));
    assert!(!verify(Vec::new()));
    assert!(!verify(steps[1..].to_vec()));
    assert!(!verify(steps.iter().copied().chain(steps.iter().copied()).collect()));
    let mut overflowing = steps;
    overflowing[0].count = u32::MAX;
    assert!(!verify(overflowing));
    assert_eq!(Proof::from_elements([&[0_u8; 35][..]]), None);
    assert_eq!(Proof::from_elements([&[0_u8; 36][..]; 33]), None);
}
