//! What the cold key lets the warm one spend on fees: a sum that runs down and a day on which it ends. Whoever signs with the warm
//! key names the cold one as payer in every transaction, so without an allowance in force not even a free one exists.

/// What is granted unless somebody says otherwise, as recorded.
pub const USUAL_NGONKA: u64 = 10_000_000_000;
/// And for how long.
pub const USUAL_MS: u64 = 365 * 86_400_000;

/// An allowance in force until it is spent or over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub left_ngonka: u64,
    /// Unix time at which it ends.
    pub expires_ms: u64,
}

impl Allowance {
    /// A sum for a time from now on; nothing granted is no allowance.
    pub fn granted(ngonka: u64, now_ms: u64, lasting_ms: u64) -> Option<Self> {
        (ngonka > 0).then_some(Self {
            left_ngonka: ngonka,
            expires_ms: now_ms.saturating_add(lasting_ms),
        })
    }

    pub fn is_in_force(&self, now_ms: u64) -> bool {
        self.left_ngonka > 0 && now_ms < self.expires_ms
    }

    /// Pays a fee out of the allowance and the payer's purse: both hold enough, or neither gives anything.
    pub fn pay(&mut self, purse: &mut u64, fee: u64, now_ms: u64) -> bool {
        let pays = self.is_in_force(now_ms) && fee <= self.left_ngonka && fee <= *purse;
        if pays {
            self.left_ngonka -= fee;
            *purse -= fee;
        }
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_run_it_down_and_the_last_ngonka_ends_it() {
        let (mut allowance, mut purse) = (Allowance::granted(25, 1000, 500).expect("granted"), 1000);
        assert!(allowance.pay(&mut purse, 10, 1000) && allowance.pay(&mut purse, 10, 1499));
        assert!(!allowance.pay(&mut purse, 10, 1400), "five are left");
        assert!(allowance.pay(&mut purse, 0, 1400), "what is free still goes through");
        assert!(allowance.pay(&mut purse, 5, 1400));
        assert!(!allowance.pay(&mut purse, 0, 1400), "spent to the last, it is gone");
        assert_eq!((allowance.left_ngonka, purse), (0, 975));
    }

    #[test]
    fn an_end_that_has_come_and_an_empty_purse_pay_nothing() {
        let mut allowance = Allowance::granted(25, 1000, 500).expect("granted");
        assert!(!allowance.pay(&mut 1000, 0, 1500));
        assert!(
            !allowance.pay(&mut 9, 10, 1200),
            "the cold account is the one that pays"
        );
        assert_eq!(allowance.left_ngonka, 25);
        assert_eq!(Allowance::granted(0, 0, 500), None);
    }
}
