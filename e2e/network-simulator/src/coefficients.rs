//! Coefficients that move (v0.2.16): once per epoch a model's base goes towards its target share of the network's compute, and what is
//! above the target counts at the lowest coefficient. Whole numbers, in millionths of a millionth.

use crate::decimal::Decimal;

/// One in fixed point.
pub const ONE: u128 = 1_000_000_000_000;
/// Part of the share around its target in which nothing moves, in basis points.
const ZONE_BPS: u128 = 500;
/// Below this share a step may be longer.
const BOOTSTRAP_BPS: u128 = 100;
const STEP_LEAST: u128 = ONE / 200;
const STEP_MOST: u128 = ONE / 20;
const STEP_BOOTSTRAP: u128 = ONE / 4;
const WHOLE_BPS: u128 = 10_000;

/// What governance sets for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    pub target_share_bps: u64,
    pub least: Decimal,
    pub most: Decimal,
    pub difficulty: Decimal,
}

/// Where a model's controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub base: u128,
    pub step: u128,
    /// Direction of its last step; 0: it stood.
    pub sign: i8,
}

/// A model's compute and everybody's, each nonce times its difficulty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    pub part: u128,
    pub whole: u128,
}

impl Share {
    /// How the share lies to so many basis points.
    fn against(self, bps: u128) -> std::cmp::Ordering {
        (self.part * WHOLE_BPS).cmp(&(self.whole * bps))
    }
}

pub fn fixed(decimal: Decimal) -> u128 {
    decimal.floor_of(ONE as u64).into()
}

/// As a decimal of the chain.
pub fn decimal(fixed: u128) -> Decimal {
    Decimal {
        value: fixed.min(i64::MAX as u128) as i64,
        exponent: -12,
    }
}

impl Config {
    /// From the factor that counted before coefficients moved.
    pub fn begin(&self, factor: Decimal) -> State {
        State {
            base: self.clamp(fixed(factor)),
            step: STEP_MOST / 2,
            sign: 0,
        }
    }

    fn clamp(&self, base: u128) -> u128 {
        base.clamp(fixed(self.least), fixed(self.most).max(fixed(self.least)))
    }

    /// One epoch on, by the share that the model had in the epoch before.
    pub fn step(&self, state: State, before: Share) -> State {
        let target = u128::from(self.target_share_bps);
        let inside = before.whole > 0
            && before.against(target.saturating_sub(ZONE_BPS)).is_ge()
            && before.against(target + ZONE_BPS).is_le();
        if inside {
            return State {
                step: STEP_MOST / 2,
                sign: 0,
                ..state
            };
        }
        let sign = if before.whole > 0 && before.against(target).is_gt() {
            -1
        } else {
            1
        };
        let is_bootstrap = before.whole == 0 || before.against(BOOTSTRAP_BPS).is_lt();
        let most = if is_bootstrap { STEP_BOOTSTRAP } else { STEP_MOST };
        let step = if state.sign == 0 || state.sign == sign {
            (state.step * 2).min(most)
        } else {
            (state.step / 2).max(STEP_LEAST).min(most)
        };
        let factor = if sign > 0 { ONE + step } else { ONE - step };
        State {
            base: self.clamp(state.base * factor / ONE),
            step,
            sign,
        }
    }

    /// What counts in an epoch: the base up to the target, the lowest above it.
    pub fn effective(&self, base: u128, now: Share) -> u128 {
        let target = u128::from(self.target_share_bps);
        if now.whole == 0 || now.part == 0 || now.against(target).is_le() {
            return base;
        }
        let least = fixed(self.least);
        let above = base.saturating_sub(least);
        least + above * (now.whole * target) / (now.part * WHOLE_BPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let decimal = |text: &str| text.parse().expect("decimal");
        Config {
            target_share_bps: 4000,
            least: decimal("0.2"),
            most: decimal("0.4"),
            difficulty: Decimal::ONE,
        }
    }

    fn share(percent: u128) -> Share {
        Share {
            part: percent,
            whole: 100,
        }
    }

    #[test]
    fn nothing_moves_within_five_percent_of_the_target() {
        let begun = config().begin("0.3".parse().expect("decimal"));
        assert_eq!((begun.base, begun.step), (ONE * 3 / 10, ONE / 40));
        for percent in [35, 40, 45] {
            assert_eq!(config().step(begun, share(percent)), begun);
        }
    }

    #[test]
    fn steps_grow_while_the_direction_stays_and_halve_when_it_turns() {
        let begun = config().begin("0.3".parse().expect("decimal"));
        let up = config().step(begun, share(30));
        assert_eq!((up.base, up.step, up.sign), (ONE * 315 / 1000, ONE / 20, 1));
        let down = config().step(up, share(50));
        assert_eq!((down.step, down.sign), (ONE / 40, -1));
        assert_eq!(down.base, ONE * 315 / 1000 * 975 / 1000);
        let mut state = down;
        for _ in 0..100 {
            state = config().step(state, share(60));
        }
        assert_eq!(state.base, ONE / 5, "never below the lowest");
        let nobody = config().step(begun, share(0));
        assert_eq!(nobody.step, ONE / 20, "twice the half of a step");
        assert_eq!(
            config().step(nobody, share(0)).step,
            ONE / 10,
            "longer steps while nobody is there"
        );
    }

    #[test]
    fn what_is_above_the_target_counts_at_the_lowest() {
        let base = ONE * 3 / 10;
        assert_eq!(config().effective(base, share(40)), base);
        assert_eq!(config().effective(base, share(0)), base);
        assert_eq!(
            config().effective(base, share(80)),
            ONE * 25 / 100,
            "half at 0.3, half at 0.2"
        );
    }
}
