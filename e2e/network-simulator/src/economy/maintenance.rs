//! Maintenance reservations: a window booked ahead, paid with credit that claimed epochs earn, in which nobody counts what a host
//! does not sign or does not answer.

use std::ops::RangeInclusive;

/// The chain's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub enabled: bool,
    /// Blocks from now on that a window must be away at least.
    pub lead_blocks: i64,
    pub longest_blocks: i64,
    /// Hosts that may be away at once.
    pub concurrent: u64,
    /// And their part of the power, in basis points; 0: any.
    pub concurrent_power_bps: u64,
    pub credit_cap_blocks: u64,
    /// Credit of a claimed epoch.
    pub earned_blocks: u64,
}

/// A booked window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub id: u64,
    pub start: i64,
    pub blocks: i64,
}

impl Reservation {
    /// Heights that it covers.
    pub fn heights(&self) -> RangeInclusive<i64> {
        self.start..=self.start + self.blocks - 1
    }

    /// Whether it shares a height with these.
    pub fn meets(&self, heights: &RangeInclusive<i64>) -> bool {
        let own = self.heights();
        own.start() <= heights.end() && heights.start() <= own.end()
    }
}

/// A host's credit and windows: at most one runs and one is to come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// The chain has a record of it.
    pub known: bool,
    pub credit_blocks: u64,
    pub scheduled: Option<Reservation>,
    pub active: Option<Reservation>,
    /// First and last epoch of the newest window that has begun; 0: none.
    pub epochs: (u64, u64),
}

/// What of others stands against a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crowd {
    pub count: u64,
    pub power: u64,
    /// Of who asks.
    pub own_power: u64,
    pub total_power: u64,
}

impl Maintenance {
    /// Why a window cannot be booked at a height; `critical` are the heights at which the network needs everybody.
    pub fn refusal(
        &self,
        rule: &Rule,
        height: i64,
        wanted: &Reservation,
        critical: &[(RangeInclusive<i64>, &'static str)],
        crowd: Crowd,
    ) -> Option<&'static str> {
        if !rule.enabled {
            return Some("maintenance windows are disabled");
        }
        if wanted.blocks <= 0 {
            return Some("duration_blocks must be positive");
        }
        if wanted.blocks > rule.longest_blocks {
            return Some("duration exceeds maximum maintenance window blocks");
        }
        if wanted.start < height + rule.lead_blocks {
            return Some("start height does not satisfy minimum scheduling lead time");
        }
        if self.scheduled.is_some() {
            return Some("participant already has a scheduled maintenance window");
        }
        if self.credit_blocks < wanted.blocks.unsigned_abs() {
            return Some("insufficient maintenance credit");
        }
        if let Some((_, what)) = critical.iter().find(|(heights, _)| wanted.meets(heights)) {
            return Some(what);
        }
        if crowd.count >= rule.concurrent {
            return Some("too many participants are in maintenance at once");
        }
        let most = u128::from(crowd.total_power) * u128::from(rule.concurrent_power_bps) / 10_000;
        let power = u128::from(crowd.power) + u128::from(crowd.own_power);
        if rule.concurrent_power_bps > 0 && crowd.total_power > 0 && power > most {
            return Some("too much power is in maintenance at once");
        }
        if self.active.is_some_and(|active| wanted.meets(&active.heights())) {
            return Some("maintenance window overlaps one that is active");
        }
        None
    }

    /// Books a window that nothing speaks against.
    pub fn book(&mut self, wanted: Reservation) {
        self.known = true;
        self.credit_blocks = self.credit_blocks.saturating_sub(wanted.blocks.unsigned_abs());
        self.scheduled = Some(wanted);
    }

    /// Gives a window back before it has begun, with its credit.
    pub fn cancel(&mut self, rule: &Rule) -> Result<(), String> {
        let window = self.scheduled.take().ok_or("no maintenance window is scheduled")?;
        self.add_credit(window.blocks.unsigned_abs(), rule);
        Ok(())
    }

    /// Windows begin and end with the blocks.
    pub fn on_block(&mut self, height: i64, epoch: u64) {
        if self.active.is_some_and(|window| *window.heights().end() < height) {
            self.active = None;
            self.epochs.1 = epoch;
        }
        if let Some(window) = self.scheduled.take_if(|window| window.start <= height) {
            self.active = Some(window);
            self.epochs = (epoch, epoch);
        }
    }

    /// An epoch was claimed: it earns credit unless maintenance was had in it.
    pub fn earn(&mut self, rule: &Rule, epoch: u64) {
        let (first, last) = self.epochs;
        let covered = epoch != 0 && (first <= epoch && (epoch <= last || self.active.is_some())) && first != 0;
        if rule.enabled && rule.earned_blocks > 0 && !covered {
            self.known = true;
            self.add_credit(rule.earned_blocks, rule);
        }
    }

    fn add_credit(&mut self, blocks: u64, rule: &Rule) {
        self.credit_blocks = (self.credit_blocks + blocks).min(rule.credit_cap_blocks);
    }

    /// Running and to come.
    pub fn windows(&self) -> impl Iterator<Item = &Reservation> {
        self.active.iter().chain(&self.scheduled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const RULE: Rule = Rule {
        enabled: true,
        lead_blocks: 10,
        longest_blocks: 50,
        concurrent: 3,
        concurrent_power_bps: 5000,
        credit_cap_blocks: 50,
        earned_blocks: 20,
    };

    fn window(start: i64, blocks: i64) -> Reservation {
        Reservation { id: 1, start, blocks }
    }

    #[rstest]
    #[case(110, 20, 2, 10, None)]
    #[case(110, 0, 0, 0, Some("must be positive"))]
    #[case(110, 51, 0, 0, Some("exceeds maximum"))]
    #[case(109, 20, 0, 0, Some("lead time"))]
    #[case(110, 41, 0, 0, Some("credit"))]
    #[case(145, 20, 0, 0, Some("Sprint"))]
    #[case(164, 20, 0, 0, None)]
    #[case(110, 20, 3, 0, Some("too many"))]
    #[case(110, 20, 2, 11, Some("too much power"))]
    fn a_window_is_booked_ahead_with_credit_where_the_network_can_do_without(
        #[case] start: i64,
        #[case] blocks: i64,
        #[case] count: u64,
        #[case] power: u64,
        #[case] refusal: Option<&str>,
    ) {
        let books = Maintenance {
            credit_blocks: 40,
            ..Maintenance::default()
        };
        let crowd = Crowd {
            count,
            power,
            own_power: 15,
            total_power: 50,
        };
        let told = books.refusal(&RULE, 100, &window(start, blocks), &[(160..=163, "Sprint")], crowd);
        match refusal {
            None => assert_eq!(told, None),
            Some(part) => assert!(told.is_some_and(|told| told.contains(part)), "{told:?}"),
        }
    }

    #[test]
    fn credit_is_earned_by_claims_capped_spent_and_given_back() {
        let mut books = Maintenance::default();
        (1..=3).for_each(|epoch| books.earn(&RULE, epoch));
        assert_eq!(books.credit_blocks, 50);
        books.book(window(200, 30));
        assert_eq!(books.credit_blocks, 20);
        books.cancel(&RULE).expect("not begun");
        assert_eq!(books.credit_blocks, 50);
        assert!(books.cancel(&RULE).is_err());
        books.book(window(200, 30));
        books.on_block(199, 4);
        assert!(books.active.is_none());
        books.on_block(200, 4);
        assert!(books.active.is_some() && books.cancel(&RULE).is_err(), "it has begun");
        books.earn(&RULE, 4);
        assert_eq!(books.credit_blocks, 20, "an epoch with maintenance earns nothing");
        books.on_block(229, 5);
        assert!(books.active.is_some());
        books.on_block(230, 5);
        assert!(books.active.is_none());
        books.earn(&RULE, 5);
        books.earn(&RULE, 6);
        assert_eq!(books.credit_blocks, 40);
    }
}
