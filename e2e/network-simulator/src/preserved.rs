//! Nodes left on inference while others are examined: a share of the network's weight, whole nodes, drawn anew for
//! every exam from the second epoch on.

use crate::{
    identity,
    network::{Network, Preserved},
    scenario::Preserve,
};
use std::collections::BTreeMap;

/// Earlier epochs have no weight to carry over.
const FIRST_EPOCH: u64 = 2;

/// A node that could be preserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub host: usize,
    pub node_id: String,
    pub weight: u64,
}

/// Draws the preserved nodes of the exam anchored at a height.
pub fn pick(net: &mut Network, anchor_height: i64) {
    let nodes = match &net.scenario.exams.preserve {
        _ if net.latest_epoch() < FIRST_EPOCH => BTreeMap::new(),
        Preserve::ByRule(false) => BTreeMap::new(),
        Preserve::ByRule(true) => {
            let hash = net
                .block(anchor_height)
                .map(|block| block.hash.clone())
                .unwrap_or_default();
            let candidates = candidates(net);
            let whole: u64 = candidates.iter().map(|candidate| candidate.weight).sum();
            draw(
                candidates,
                net.scenario.parameters.poc_slot_allocation.floor_of(whole),
                &hash,
            )
        }
        Preserve::Ids(ids) => {
            let mut chosen: BTreeMap<usize, Vec<String>> = BTreeMap::new();
            for candidate in candidates(net)
                .into_iter()
                .filter(|candidate| ids.contains(&candidate.node_id))
            {
                chosen.entry(candidate.host).or_default().push(candidate.node_id);
            }
            chosen
        }
    };
    net.preserved = Preserved { anchor_height, nodes };
}

fn candidates(net: &Network) -> Vec<Candidate> {
    let Some(epoch) = net.epoch(net.effective_epoch()) else {
        return Vec::new();
    };
    let of_seat = |(host, seat): (&usize, &crate::network::Seat)| {
        let host = *host;
        let known: Vec<Candidate> = seat
            .nodes
            .iter()
            .map(|node| Candidate {
                host,
                node_id: node.node_id.clone(),
                weight: node.poc_weight,
            })
            .collect();
        known
    };
    epoch.seats.iter().flat_map(of_seat).collect()
}

/// Whole nodes in random order until the target is reached; a host keeps at least one node in the exam.
pub fn draw(mut candidates: Vec<Candidate>, target: u64, hash: &str) -> BTreeMap<usize, Vec<String>> {
    let mut left: BTreeMap<usize, usize> = BTreeMap::new();
    for candidate in &candidates {
        *left.entry(candidate.host).or_default() += 1;
    }
    identity::shuffle(&mut candidates, &["preserved", hash]);
    let (mut chosen, mut weight): (BTreeMap<usize, Vec<String>>, u64) = (BTreeMap::new(), 0);
    for candidate in candidates {
        let others = left.get_mut(&candidate.host).filter(|others| **others > 1);
        if let Some(others) = others
            && weight < target
        {
            *others -= 1;
            weight += candidate.weight;
            chosen.entry(candidate.host).or_default().push(candidate.node_id);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(host: usize, node_id: &str, weight: u64) -> Candidate {
        Candidate {
            host,
            node_id: node_id.to_owned(),
            weight,
        }
    }

    #[test]
    fn whole_nodes_are_taken_until_the_target_is_reached() {
        // The recorded network: 10 % asked for, a node of 38 % taken.
        let chosen = draw(vec![candidate(0, "a", 96), candidate(0, "b", 60)], 15, "C0DE");
        assert_eq!(chosen[&0].len(), 1);
    }

    #[test]
    fn no_host_is_preserved_as_a_whole() {
        let chosen = draw(
            vec![candidate(0, "a", 5), candidate(1, "b", 5), candidate(1, "c", 5)],
            100,
            "C0DE",
        );
        assert!(!chosen.contains_key(&0));
        assert_eq!(chosen[&1].len(), 1);
    }

    #[test]
    fn another_hash_draws_others_and_no_target_draws_nobody() {
        let nodes = || {
            (0..40)
                .map(|index| candidate(index / 4, &index.to_string(), 10))
                .collect::<Vec<_>>()
        };
        assert_ne!(draw(nodes(), 40, "A"), draw(nodes(), 40, "B"));
        assert!(draw(nodes(), 0, "A").is_empty());
    }
}
