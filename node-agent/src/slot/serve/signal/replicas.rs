//! Decide: which replicas of a source are watched. Pure.

use std::{collections::BTreeSet, net::SocketAddr};

/// More than two replicas are nobody's; a third may be on its way.
const MOST: usize = 3;

/// What to watch after a name was looked up. What is known stays while names are not resolved: a replica keeps its address
/// through restarts, and an exam must not depend on DNS.
pub fn watched(known: &BTreeSet<SocketAddr>, found: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    if found.is_empty() {
        return known.clone();
    }
    let stays = known.intersection(found);
    stays.chain(found.difference(known)).take(MOST).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> BTreeSet<SocketAddr> {
        last.iter().map(|last| ([10, 0, 0, *last], 9400).into()).collect()
    }

    #[test]
    fn replicas_come_and_go_with_their_names() {
        assert_eq!(watched(&addresses(&[]), &addresses(&[1, 2])), addresses(&[1, 2]));
        assert_eq!(watched(&addresses(&[1, 2]), &addresses(&[2, 3])), addresses(&[2, 3]));
    }

    #[test]
    fn without_names_the_replicas_known_are_watched_on() {
        assert_eq!(watched(&addresses(&[1, 2]), &addresses(&[])), addresses(&[1, 2]));
    }

    #[test]
    fn a_name_of_many_addresses_costs_no_more_than_three_and_moves_nobody() {
        let found = addresses(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(watched(&addresses(&[6]), &found), addresses(&[1, 2, 6]));
    }
}
