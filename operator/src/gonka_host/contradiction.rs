//! Box 3: facts about a host that cannot all be true. Pure.

use super::observed::Observed;

/// Blocks DAPI may be ahead of what a quorum of endpoints agrees on. Endpoints that fall behind alone make facts stale much sooner.
const MOST_AHEAD: i64 = 60;

/// What contradicts what, for people; absent when nothing does.
///
/// DAPI follows the host's own node. It cannot know blocks that a quorum of endpoints does not have and goes on not having: one
/// of them is on another chain, or on a fork of it.
pub fn found(observed: &Observed) -> Option<String> {
    let facts = &observed.facts;
    let height = observed.dapi_height.value?;
    let known = facts.quorum && !facts.is_stale(observed.now_ms);
    (known && height > facts.height.saturating_add(MOST_AHEAD)).then(|| {
        format!(
            "DAPI is at height {height}, and a quorum of endpoints that goes on agrees on {}: one of them is on another chain; what \
             may wait is held until they agree; if the endpoints are right annotate the GonkaHost with {}=REASON",
            facts.height,
            crds::labels::REARM
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::observed::Reading;
    use super::super::tests::world;
    use super::*;

    #[test]
    fn a_dapi_that_knows_blocks_nobody_has_contradicts_the_endpoints() {
        let mut observed = world::observed(1);
        observed.facts.quorum = true;
        for (height, contradicts) in [(500, false), (560, false), (561, true), (i64::MAX, true), (1, false)] {
            observed.dapi_height = Reading::known(height);
            assert_eq!(found(&observed).is_some(), contradicts, "{height}");
        }
        observed.dapi_height = Reading::known(1_000);
        observed.facts.quorum = false;
        assert_eq!(
            found(&observed),
            None,
            "without a quorum nothing is known to contradict"
        );
        observed.facts.quorum = true;
        observed.now_ms += 60_000;
        assert_eq!(
            found(&observed),
            None,
            "endpoints that stand still are stale, and that is told elsewhere"
        );
        observed.dapi_height = Reading::default();
        assert_eq!(found(&observed), None);
    }
}
