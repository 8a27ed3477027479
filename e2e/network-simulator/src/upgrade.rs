//! Upgrades of the network by plan: proposed, voted on, carried out. A plan is certain only once the vote has passed; at its height
//! the chain stands until its nodes run the new release.
//!
//! Everything but the standing still is a function of the height, so an endpoint that is behind shows what it could know.

use crate::{network::Network, release::Version, scenario::verb::Arguments};
use serde_json::{Value, json};
use strum::VariantArray as _;

/// Blocks of voting unless the verb says how many.
const VOTING_BLOCKS: i64 = 10;
/// Blocks that the chain stands at the height of a plan unless the verb says how long.
const STANDING_BLOCKS: u64 = 3;

/// A proposal to upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub name: String,
    /// First height that the new release makes.
    pub height: i64,
    pub proposed: i64,
    /// First height at which the vote is over.
    pub voted: i64,
    pub passes: bool,
    /// So long the chain stands.
    standing_ms: u64,
    /// When it goes on; known from the moment it stands.
    resumes_ms: Option<u64>,
}

/// All that were ever proposed, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Upgrades(Vec<Proposal>);

/// What a proposal has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Voting,
    Rejected,
    Passed,
}

impl Proposal {
    pub fn standing(&self, height: i64) -> Standing {
        match (height < self.voted, self.passes) {
            (true, _) => Standing::Voting,
            (false, true) => Standing::Passed,
            (false, false) => Standing::Rejected,
        }
    }

    fn shown(&self) -> Value {
        json!({
            "name": self.name, "time": "0001-01-01T00:00:00Z", "height": self.height.to_string(), "info": "{}",
            "upgraded_client_state": null,
        })
    }
}

impl Upgrades {
    /// The passed plan that is still to come at this height.
    pub fn planned(&self, height: i64) -> Option<&Proposal> {
        let coming = |proposal: &&Proposal| proposal.standing(height) == Standing::Passed && proposal.height > height;
        self.0.iter().rfind(coming)
    }

    /// The newest upgrade carried out by this height.
    pub fn done(&self, height: i64) -> Option<&Proposal> {
        let done = |proposal: &&Proposal| proposal.passes && proposal.height <= height;
        self.0.iter().filter(done).max_by_key(|proposal| proposal.height)
    }

    /// Release that runs at this height, when an upgrade brought another than the first.
    pub fn release(&self, height: i64) -> Option<Version> {
        let name = &self.done(height)?.name;
        Version::VARIANTS
            .iter()
            .copied()
            .find(|known| known.to_string() == *name)
    }

    /// Whether a confirmation may be announced as far as upgrades go: none so close to one, before or after.
    pub fn protects(&self, height: i64, window: i64) -> bool {
        let near = |proposal: &Proposal| (height - proposal.height).abs() <= window;
        self.planned(height).is_some_and(near) || self.done(height).is_some_and(near)
    }

    /// Whether the chain stands before this height, now.
    pub fn stands_before(&mut self, height: i64, now_ms: u64) -> bool {
        let due = |proposal: &&mut Proposal| proposal.passes && proposal.height == height;
        let Some(proposal) = self.0.iter_mut().find(due) else {
            return false;
        };
        let resumes = *proposal.resumes_ms.get_or_insert(now_ms + proposal.standing_ms);
        now_ms < resumes
    }

    /// As `GET /cosmos/upgrade/v1beta1/current_plan` shows it.
    pub fn current_plan(&self, height: i64) -> Value {
        json!({"plan": self.planned(height).map(Proposal::shown)})
    }

    /// As `GET …/last_upgrade_height` shows it.
    pub fn last_height(&self, height: i64) -> Value {
        let done = self.done(height).map_or(0, |proposal| proposal.height);
        json!({"last_upgrade_height": done.to_string(), "found": done > 0})
    }

    /// As `GET /cosmos/gov/v1/proposals?proposal_status=` shows them.
    pub fn proposals(&self, height: i64, status: Option<&str>) -> Value {
        let row = |(id, proposal): (usize, &Proposal)| {
            let (number, name) = match proposal.standing(height) {
                Standing::Voting => ("2", "PROPOSAL_STATUS_VOTING_PERIOD"),
                Standing::Passed => ("3", "PROPOSAL_STATUS_PASSED"),
                Standing::Rejected => ("4", "PROPOSAL_STATUS_REJECTED"),
            };
            let asked = status.is_none_or(|asked| asked == number || asked == name);
            asked.then(|| {
                json!({
                    "id": (id + 1).to_string(),
                    "status": name,
                    "title": format!("Upgrade to {}", proposal.name),
                    "messages": [{"@type": "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade", "plan": proposal.shown()}],
                })
            })
        };
        let known = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, proposal)| proposal.proposed <= height);
        let rows: Vec<Value> = known.filter_map(row).collect();
        json!({"pagination": {"next_key": null, "total": rows.len().to_string()}, "proposals": rows})
    }
}

/// The verb: an upgrade is proposed at the newest block.
pub fn propose(net: &mut Network, arguments: &Arguments) -> Result<(), String> {
    let height = net.height();
    let voted = height + arguments.blocks.map_or(VOTING_BLOCKS, i64::from);
    let target = arguments.height.ok_or("height: must be given")?;
    if target <= voted {
        return Err(format!("height: {target} comes before the vote is over, at {voted}"));
    }
    let standing_ms = match arguments.ms {
        Some(ms) => u64::try_from(ms).map_err(|_| "ms: must not be negative".to_owned())?,
        None => STANDING_BLOCKS * net.scenario.network.block_millis,
    };
    net.upgrades.0.push(Proposal {
        name: arguments.name.clone().unwrap_or_else(|| format!("at-{target}")),
        height: target,
        proposed: height,
        voted,
        passes: arguments.passes.unwrap_or(true),
        standing_ms,
        resumes_ms: None,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Command,
        scenario::verb::Verb,
        testing::{self, SCENARIO},
        verbs,
    };

    fn proposed(arguments: Value) -> Network {
        let mut net = testing::network_of(SCENARIO);
        testing::run_to(&mut net, 100);
        let arguments = serde_json::from_value(arguments).expect("arguments");
        let command = Command {
            verb: Verb::ProposeUpgrade,
            arguments,
        };
        verbs::apply(&mut net, &command).expect("applies");
        net
    }

    #[test]
    fn a_plan_is_nothing_until_it_has_passed_and_nothing_when_it_is_voted_down() {
        let mut net = proposed(json!({"target": "chain", "height": 120, "blocks": 5, "name": "v0.2.15"}));
        assert_eq!(net.upgrades.current_plan(104), json!({"plan": null}));
        assert_eq!(net.upgrades.current_plan(105)["plan"]["height"], "120");
        assert_eq!(
            net.upgrades.proposals(104, Some("2"))["proposals"][0]["status"],
            "PROPOSAL_STATUS_VOTING_PERIOD"
        );
        assert_eq!(net.upgrades.proposals(99, None)["pagination"]["total"], "0");
        net.upgrades.0[0].passes = false;
        assert_eq!(net.upgrades.current_plan(105), json!({"plan": null}));
        assert_eq!(
            net.upgrades.proposals(105, None)["proposals"][0]["status"],
            "PROPOSAL_STATUS_REJECTED"
        );
        assert_eq!(
            net.upgrades.last_height(130),
            json!({"last_upgrade_height": "0", "found": false})
        );
        testing::run_to(&mut net, 125);
    }

    #[test]
    fn the_chain_stands_at_the_height_and_runs_another_release_afterwards() {
        let mut net = proposed(json!({"target": "chain", "height": 120, "name": "v0.2.16", "ms": 7000}));
        testing::run_to(&mut net, 119);
        let stood = net.now_ms;
        testing::run_to(&mut net, 120);
        assert_eq!(net.now_ms - stood, 8000, "seven seconds more than a block's one");
        assert_eq!((net.release(119), net.release(120)), (Version::V14, Version::V16));
        assert_eq!(
            net.upgrades.last_height(120),
            json!({"last_upgrade_height": "120", "found": true})
        );
        assert_eq!(net.upgrades.current_plan(120), json!({"plan": null}));
    }

    #[test]
    fn no_confirmation_is_announced_around_an_upgrade_and_grace_ends() {
        let scenario = SCENARIO
            .replace("preserve: false", "preserve: false, confirmationPerEpoch: 100")
            .replace(
                "epochs: 2, parameters: {",
                "epochs: 2, parameters: {upgrade_protection_window: 2, ",
            );
        let announced = |height: Option<i64>| {
            let mut net = testing::network_of(&scenario);
            testing::run_to(&mut net, 150);
            if let Some(height) = height {
                let arguments =
                    serde_json::from_value(json!({"target": "chain", "height": height})).expect("arguments");
                propose(&mut net, &arguments).expect("applies");
            }
            testing::run_to(&mut net, 190);
            let events = net
                .epoch(2)
                .map(|epoch| epoch.confirmations.clone())
                .unwrap_or_default();
            events.first().map(|event| event.window.stage_height)
        };
        let (first, end) = testing::network_of(&scenario).lengths().confirmation_triggers(2);
        let last = Some(first + 5).filter(|height| *height <= end);
        assert_eq!(announced(None), Some(first), "at once where the chain allows it");
        assert_eq!(announced(Some(first - 1)), Some(first + 2), "grace of two blocks");
        assert_eq!(
            announced(Some(first + 2)),
            last,
            "neither shortly before nor shortly after"
        );
        assert_eq!(announced(Some(first + 50)), Some(first));
    }

    #[test]
    fn a_plan_before_its_vote_is_over_is_refused() {
        let mut net = testing::network();
        let propose =
            |net: &mut Network, arguments: Value| propose(net, &serde_json::from_value(arguments).expect("arguments"));
        assert!(propose(&mut net, json!({"height": 10})).is_err_and(|why| why.contains("before the vote is over")));
        assert!(propose(&mut net, json!({})).is_err());
        assert!(propose(&mut net, json!({"height": 50, "ms": -1})).is_err());
    }
}
