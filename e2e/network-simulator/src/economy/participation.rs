//! Models that a host does not serve: whoever delegates gives a share away, whoever refuses loses a little, whoever does nothing more.

use crate::decimal::Decimal;
use serde::Deserialize;

/// What a host told the chain about a model it does not commit to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Choice {
    Delegate,
    Refuse,
    #[default]
    Nothing,
}

/// Parts of the reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    pub delegation_share: Decimal,
    pub refusal_penalty: Decimal,
    pub no_participation_penalty: Decimal,
}

/// What is paid of a reward, in basis points: penalties of all models are added up.
pub fn paid_bp(absent: impl Iterator<Item = Choice>, rule: &Rule) -> u64 {
    let lost: u64 = absent
        .map(|choice| match choice {
            Choice::Delegate => rule.delegation_share.basis_points(),
            Choice::Refuse => rule.refusal_penalty.basis_points(),
            Choice::Nothing => rule.no_participation_penalty.basis_points(),
        })
        .sum();
    10_000_u64.saturating_sub(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_add_up_and_never_exceed_the_reward() {
        let decimal = |text: &str| text.parse().expect("decimal");
        let rule = Rule {
            delegation_share: decimal("0.05"),
            refusal_penalty: decimal("0.10"),
            no_participation_penalty: decimal("0.15"),
        };
        assert_eq!(paid_bp([].into_iter(), &rule), 10_000);
        assert_eq!(paid_bp([Choice::Nothing, Choice::Nothing].into_iter(), &rule), 7000);
        assert_eq!(paid_bp([Choice::Delegate, Choice::Refuse].into_iter(), &rule), 8500);
        assert_eq!(paid_bp([Choice::Nothing; 7].into_iter(), &rule), 0);
    }
}
