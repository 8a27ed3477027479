//! What one endpoint said last, and how news change it. Plain values.

use std::collections::BTreeMap;

use crds::sprint_schedule::UpgradePlan;

use super::answers::{Block, Clock, Preserved, Vote};

/// Blocks kept per endpoint; one that told another block than the quorum is distrusted for as long.
const RECENT: usize = 24;
/// Older blocks kept on request.
const PINNED: usize = 4;
/// Blocks by which notices may be ahead of a poll's answer.
const OVERTAKEN: i64 = 5;
/// Failures in a row after which an endpoint counts as failing.
const FAILING: u32 = 2;

/// Where an endpoint failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// CometBFT RPC.
    Rpc,
    /// Cosmos REST.
    Rest,
}

/// Why a request has no usable answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No answer, or an error status.
    #[error("{0}")]
    Unreachable(String),
    /// An answer of a shape this version does not know.
    #[error("{0}")]
    Shape(String),
}

/// Something an endpoint said.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Its newest block, from a poll or a notice.
    Tip {
        /// The block.
        block: Block,
        /// It says of itself that it is behind; absent in a notice.
        catching_up: Option<bool>,
    },
    /// An older block that was asked for.
    Older(Block),
    /// Its clock.
    Clock(Box<Clock>),
    /// Preserved nodes; absent when there is no snapshot.
    Preserved(Option<Preserved>),
    /// Planned upgrade and height of the last one.
    Upgrade {
        /// The plan.
        plan: Option<UpgradePlan>,
        /// Height of the last upgrade.
        last: Option<i64>,
        /// Upgrades that are voted on; absent when that was not told.
        votes: Option<Vec<Vote>>,
    },
    /// A request failed.
    Failed(Door, Failure),
}

/// Health of one door.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DoorHealth {
    /// Failures in a row.
    pub failures: u32,
    /// The last failure.
    pub failure: Option<Failure>,
    /// It answered at least once.
    pub answered: bool,
}

/// What one endpoint said last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Chain it serves; empty until known.
    pub chain_id: String,
    /// It says of itself that it is behind.
    pub catching_up: bool,
    /// Newest blocks by height.
    pub recent: BTreeMap<i64, Block>,
    /// Older blocks that were asked for.
    pub pinned: BTreeMap<i64, Block>,
    /// Its clock.
    pub clock: Option<Clock>,
    /// Preserved nodes.
    pub preserved: Option<Preserved>,
    /// Planned upgrade; outer absent until read.
    pub plan: Option<Option<UpgradePlan>>,
    /// Height of the last upgrade.
    pub last_upgrade: Option<i64>,
    /// Upgrades that are voted on.
    pub votes: Vec<Vote>,
    /// CometBFT RPC.
    pub rpc: DoorHealth,
    /// Cosmos REST.
    pub rest: DoorHealth,
}

impl DoorHealth {
    fn succeeded(&mut self) {
        *self = Self {
            answered: true,
            ..Self::default()
        };
    }

    fn failed(&mut self, failure: Failure) {
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(failure);
    }

    /// The failure, once it is one: a single lost request is none.
    pub fn failing(&self) -> Option<&Failure> {
        self.failure
            .as_ref()
            .filter(|failure| self.failures >= FAILING || matches!(failure, Failure::Shape(_)))
    }
}

impl View {
    /// Takes one piece of news in.
    pub fn apply(&mut self, news: News) {
        match news {
            News::Tip { block, catching_up } => self.tip(block, catching_up),
            News::Older(block) => {
                self.pinned.insert(block.height, block);
                while self.pinned.len() > PINNED {
                    self.pinned.pop_first();
                }
            }
            News::Clock(clock) => {
                self.clock = Some(*clock);
                self.rest.succeeded();
            }
            News::Preserved(preserved) => self.preserved = preserved,
            News::Upgrade { plan, last, votes } => {
                self.plan = Some(plan);
                self.last_upgrade = last;
                if let Some(votes) = votes {
                    self.votes = votes;
                }
            }
            News::Failed(Door::Rpc, failure) => self.rpc.failed(failure),
            News::Failed(Door::Rest, failure) => self.rest.failed(failure),
        }
    }

    fn tip(&mut self, block: Block, catching_up: Option<bool>) {
        if let Some(catching_up) = catching_up {
            self.catching_up = catching_up;
            self.rpc.succeeded();
            // A poll is the truth: a chain that was reset, or a false notice, does not linger. A notice that overtook
            // the poll by a few blocks does.
            if self
                .newest()
                .is_some_and(|newest| newest.height - block.height > OVERTAKEN)
            {
                self.recent.clear();
            }
        }
        if self.chain_id != block.chain_id {
            self.recent.clear();
            self.pinned.clear();
            self.chain_id.clone_from(&block.chain_id);
        }
        self.recent.insert(block.height, block);
        while self.recent.len() > RECENT {
            self.recent.pop_first();
        }
    }

    /// Its newest block.
    pub fn newest(&self) -> Option<&Block> {
        self.recent.last_key_value().map(|(_, block)| block)
    }

    /// A block it reported.
    pub fn block(&self, height: i64) -> Option<&Block> {
        self.recent.get(&height).or_else(|| self.pinned.get(&height))
    }

    /// Whether its blocks count for `chain_id`.
    pub fn counts(&self, chain_id: &str) -> bool {
        self.chain_id == chain_id && self.rpc.failing().is_none()
    }

    /// Its clock, when its REST door works.
    pub fn live_clock(&self) -> Option<&Clock> {
        self.clock.as_ref().filter(|_| self.rest.failing().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: i64) -> Block {
        Block {
            chain_id: "c".into(),
            height,
            ..Block::default()
        }
    }

    fn polled(height: i64) -> News {
        News::Tip {
            block: block(height),
            catching_up: Some(false),
        }
    }

    #[test]
    fn one_lost_request_is_no_failure_but_a_strange_shape_is() {
        let mut view = View::default();
        view.apply(News::Failed(Door::Rpc, Failure::Unreachable("timeout".into())));
        assert_eq!(view.rpc.failing(), None);
        view.apply(News::Failed(Door::Rpc, Failure::Unreachable("timeout".into())));
        assert!(view.rpc.failing().is_some());
        view.apply(polled(5));
        assert_eq!(view.rpc.failing(), None);
        view.apply(News::Failed(Door::Rest, Failure::Shape("odd".into())));
        assert!(view.rest.failing().is_some());
    }

    #[test]
    fn a_poll_corrects_a_notice_that_ran_ahead() {
        let mut view = View::default();
        view.apply(News::Tip {
            block: block(900),
            catching_up: None,
        });
        view.apply(polled(5));
        assert_eq!(view.newest().map(|block| block.height), Some(5));
    }

    #[test]
    fn memory_is_bounded() {
        let mut view = View::default();
        for height in 1..1000 {
            view.apply(polled(height));
            view.apply(News::Older(block(height)));
        }
        assert_eq!((view.recent.len(), view.pinned.len()), (RECENT, PINNED));
    }
}
