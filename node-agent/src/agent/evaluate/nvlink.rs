//! Rule `NvLinkDown`: links to the switches that are not up. XID 74 says when one breaks under load.

use super::{Found, Subject};

/// Every link must reach a switch. A GPU of which none does is not in a switched board.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let Some(links) = subject.slow().and_then(|slow| slow.nvlinks) else {
        return;
    };
    if links.connected > 0 && links.connected < links.present {
        found.push(Found::degraded(
            "NvLinkDown",
            format!("{} of {} NVLinks reach a switch", links.connected, links.present),
        ));
    }
}
