//! Signatures under blocks: who misses more than half of the last hundred is jailed, and stays so until its time is over and
//! somebody with the cold key says so.

use std::collections::VecDeque;

/// Blocks that are looked at.
pub const WINDOW: i64 = 100;
/// Blocks of them that may be missed.
const MAY_MISS: usize = 50;
/// How long a host is jailed at least.
pub const JAIL_MS: u64 = 600_000;
/// Part of the stake that it costs, in thousandths.
pub const SLASH_PERMILLE: u64 = 10;

/// A host's signatures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signing {
    /// Its signer is away.
    pub away: bool,
    /// Heights within the window that it did not sign.
    missed: VecDeque<i64>,
    pub jailed: bool,
    /// Not before this moment can it be unjailed; 0 = never jailed.
    pub jailed_until_ms: u64,
}

impl Signing {
    /// A block was made; true when it is the one that jails.
    pub fn on_block(&mut self, height: i64, now_ms: u64) -> bool {
        // Whoever is jailed signs nothing, and nothing is counted.
        if self.jailed || (!self.away && self.missed.is_empty()) {
            return false;
        }
        if self.away {
            self.missed.push_back(height);
        }
        while self.missed.front().is_some_and(|oldest| *oldest <= height - WINDOW) {
            self.missed.pop_front();
        }
        if self.missed.len() <= MAY_MISS {
            return false;
        }
        self.missed.clear();
        self.jailed = true;
        self.jailed_until_ms = now_ms + JAIL_MS;
        true
    }

    /// The cold key asks for it.
    pub fn unjail(&mut self, now_ms: u64) -> Result<(), String> {
        if !self.jailed {
            return Err("the host is not jailed".to_owned());
        }
        if now_ms < self.jailed_until_ms {
            let seconds = (self.jailed_until_ms - now_ms).div_ceil(1000);
            return Err(format!("the host is jailed for {seconds} s more"));
        }
        self.jailed = false;
        Ok(())
    }

    pub fn missed(&self) -> usize {
        self.missed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifty_first_missed_block_of_a_hundred_jails_once() {
        let mut signing = Signing {
            away: true,
            ..Signing::default()
        };
        let jailed: Vec<i64> = (1..=200).filter(|height| signing.on_block(*height, 1000)).collect();
        assert_eq!(jailed, [51]);
        assert!(signing.jailed && signing.missed() == 0);
        assert!(signing.unjail(1000).is_err_and(|why| why.contains("600 s")));
        assert!(signing.unjail(1000 + JAIL_MS).is_ok() && !signing.jailed);
        assert!(signing.unjail(1000 + JAIL_MS).is_err());
    }

    #[test]
    fn misses_fall_out_of_the_window() {
        let mut signing = Signing::default();
        for height in 1..=1000 {
            signing.away = height % 5 < 2;
            assert!(!signing.on_block(height, 0), "two of five are fewer than half");
        }
        assert_eq!(signing.missed(), 40);
    }
}
