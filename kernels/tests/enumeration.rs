//! Nonces of different groups and nodes never meet, and together leave nothing out.

use kernels::nonces::Enumeration;
use proptest::prelude::*;
use std::collections::BTreeSet;

proptest! {
    #[test]
    fn groups_and_nodes_are_disjoint_and_complete(
        first_node in 0_i64..3,
        nodes in 1_i64..7,
        groups in 1_i64..9,
        rounds in 1_u64..20,
    ) {
        let mut seen = BTreeSet::new();
        for node in first_node..first_node + nodes {
            for group in 0..groups {
                let sequence = Enumeration::new(node, nodes, group, groups).expect("valid");
                for index in 0..rounds {
                    let nonce = sequence.nonce(index).expect("small");
                    prop_assert!(seen.insert(nonce), "nonce {} twice", nonce);
                }
            }
        }
        let count = nodes * groups * rounds as i64;
        prop_assert_eq!(seen, (first_node..first_node + count).collect::<BTreeSet<_>>());
    }

    #[test]
    fn every_nonce_fits_32_bits_and_the_count_is_exact(
        node in 0_i64..i64::from(i32::MAX),
        nodes in 1_i64..i64::MAX,
        groups in 1_i64..1000,
        index in any::<u64>(),
    ) {
        let sequence = Enumeration::new(node, nodes, 0, groups).expect("the first nonce fits");
        let last = sequence.nonce(sequence.len() - 1).expect("the last one is there");
        prop_assert!((0..=i64::from(i32::MAX)).contains(&last));
        prop_assert_eq!(sequence.nonce(sequence.len()), None);
        prop_assert_eq!(sequence.nonce(index).is_some(), index < sequence.len());
    }

    #[test]
    fn no_numbers_make_it_panic(node in any::<i64>(), nodes in any::<i64>(), group in any::<i64>(), groups in any::<i64>()) {
        if let Ok(sequence) = Enumeration::new(node, nodes, group, groups) {
            prop_assert!(sequence.nonce(0).is_some());
            prop_assert!(!sequence.is_empty());
        }
    }

    #[test]
    fn survives_serialisation(node in 0_i64..9, nodes in 1_i64..9, groups in 1_i64..9) {
        let sequence = Enumeration::new(node, nodes, groups - 1, groups).expect("valid");
        let text = serde_json::to_string(&sequence).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Enumeration>(&text).expect("read back"), sequence);
    }
}
