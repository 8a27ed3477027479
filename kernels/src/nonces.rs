//! Which nonces a replica computes, in which order (`docs/poc-v2.md`, section 6).
//!
//! The nonces of a host are dealt out twice: over its nodes (`node_count`), then over the replica groups of a node
//! (`groups`). The network cuts nonces to 32 bits and votes against gaps: start at index 0, leave nothing out.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why four numbers do not describe an enumeration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The number of nodes is below one.
    #[error("node_count is {0}: it must be at least 1")]
    NodeCount(i64),
    /// The node number is negative.
    #[error("node_id is {0}: it must not be negative")]
    NodeId(i64),
    /// The group is not one of the groups.
    #[error("group {group} of {groups}: it must be at least 0 and below the number of groups")]
    Group {
        /// The group asked for.
        group: i64,
        /// How many there are.
        groups: i64,
    },
    /// No nonce of this enumeration fits 32 bits.
    #[error("the first nonce of node {node_id}, group {group} is above the largest 32-bit integer")]
    Empty {
        /// The node number.
        node_id: i64,
        /// The group.
        group: i64,
    },
}

/// The arithmetic sequence `node_id + group * node_count + index * groups * node_count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Numbers", into = "Numbers")]
pub struct Enumeration {
    first: i64,
    step: i64,
    numbers: Numbers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    node_id: i64,
    node_count: i64,
    group: i64,
    groups: i64,
}

impl Enumeration {
    /// `node_id` may equal or exceed `node_count`: the network numbers nodes from 1, and in validation requests
    /// counts only the capable ones. Sequences of different nodes are disjoint when the node numbers differ modulo
    /// `node_count`.
    pub fn new(node_id: i64, node_count: i64, group: i64, groups: i64) -> Result<Self, Error> {
        if node_count < 1 {
            return Err(Error::NodeCount(node_count));
        }
        if node_id < 0 {
            return Err(Error::NodeId(node_id));
        }
        if group < 0 || group >= groups {
            return Err(Error::Group { group, groups });
        }
        let first = i128::from(node_id) + i128::from(group) * i128::from(node_count);
        if first > i128::from(i32::MAX) {
            return Err(Error::Empty { node_id, group });
        }
        // A step beyond 32 bits means a single nonce; its exact value no longer matters.
        let step = (i128::from(groups) * i128::from(node_count)).min(i128::from(i64::MAX));
        Ok(Self {
            first: first as i64,
            step: step as i64,
            numbers: Numbers {
                node_id,
                node_count,
                group,
                groups,
            },
        })
    }

    /// The nonce at `index` (0, 1, 2, ...), or nothing once nonces no longer fit a signed 32-bit integer.
    pub fn nonce(&self, index: u64) -> Option<i64> {
        let nonce = i128::from(self.first) + i128::from(index) * i128::from(self.step);
        i32::try_from(nonce).ok().map(i64::from)
    }

    /// How many nonces there are.
    pub fn len(&self) -> u64 {
        ((i64::from(i32::MAX) - self.first) / self.step) as u64 + 1
    }

    /// Never: an enumeration without a nonce is refused by [`Enumeration::new`].
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Node number in the request.
    pub fn node_id(&self) -> i64 {
        self.numbers.node_id
    }

    /// Number of nodes of the host, as the request states it.
    pub fn node_count(&self) -> i64 {
        self.numbers.node_count
    }

    /// This replica group, from 0.
    pub fn group(&self) -> i64 {
        self.numbers.group
    }

    /// Number of replica groups on the node.
    pub fn groups(&self) -> i64 {
        self.numbers.groups
    }
}

impl TryFrom<Numbers> for Enumeration {
    type Error = Error;

    fn try_from(
        Numbers {
            node_id,
            node_count,
            group,
            groups,
        }: Numbers,
    ) -> Result<Self, Error> {
        Self::new(node_id, node_count, group, groups)
    }
}

impl From<Enumeration> for Numbers {
    fn from(enumeration: Enumeration) -> Self {
        enumeration.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_recorded_request_of_node_1_of_4() {
        let sequence = Enumeration::new(1, 4, 0, 1).expect("valid");
        let first: Vec<_> = (0..4).filter_map(|index| sequence.nonce(index)).collect();
        assert_eq!(first, [1, 5, 9, 13]);
    }

    #[test]
    fn ends_at_the_largest_32_bit_nonce() {
        let sequence = Enumeration::new(0, 1, 1, 2).expect("valid");
        assert_eq!(sequence.nonce(sequence.len() - 1), Some(i64::from(i32::MAX)));
        assert_eq!(sequence.nonce(sequence.len()), None);
        assert_eq!(sequence.nonce(u64::MAX), None);
    }

    #[test]
    fn refuses_numbers_that_describe_nothing() {
        assert_eq!(Enumeration::new(0, 0, 0, 1), Err(Error::NodeCount(0)));
        assert_eq!(Enumeration::new(-1, 1, 0, 1), Err(Error::NodeId(-1)));
        assert_eq!(Enumeration::new(0, 1, 1, 1), Err(Error::Group { group: 1, groups: 1 }));
        assert_eq!(Enumeration::new(0, 1, 0, 0), Err(Error::Group { group: 0, groups: 0 }));
        assert_eq!(
            Enumeration::new(i64::MAX, 1, 0, 1),
            Err(Error::Empty {
                node_id: i64::MAX,
                group: 0
            })
        );
        let huge = Enumeration::new(0, i64::MAX, 0, i64::MAX).expect("one nonce");
        assert_eq!((huge.nonce(0), huge.nonce(1), huge.len()), (Some(0), None, 1));
    }
}
