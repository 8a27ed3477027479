//! Decide: how long a slot waits after its start request, so that not all GPUs of a rack go to full power in one moment. Pure.

use std::time::Duration;

/// Bits of a slot's number that count: so many different moments.
const BITS: u32 = 8;

/// How long slot `slot` waits when starts are spread over `spread`: its number's bits read backwards, as a fraction. However few
/// or many slots a rack has, and whichever, their moments lie far from each other; slot 0 does not wait, and no slot waits `spread`.
pub fn delay(slot: i32, spread: Duration) -> Duration {
    let number = (slot.max(0) as u32) << (32 - BITS);
    spread * number.reverse_bits() / (1 << BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Duration = Duration::from_secs(2);

    #[test]
    fn slots_begin_far_from_each_other() {
        let millis: Vec<u128> = (0..8).map(|slot| delay(slot, TWO).as_millis()).collect();
        assert_eq!(millis, [0, 1000, 500, 1500, 250, 1250, 750, 1750]);
    }

    #[test]
    fn nobody_waits_longer_than_the_spread_and_without_one_nobody_waits() {
        for slot in -1..600 {
            assert!(delay(slot, TWO) < TWO, "slot {slot}");
            assert_eq!(delay(slot, Duration::ZERO), Duration::ZERO);
        }
    }
}
