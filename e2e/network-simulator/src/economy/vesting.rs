//! Vesting: a reward is paid in equal parts, one per epoch.

use std::collections::VecDeque;

/// What is still to come, the next epoch's part first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vesting {
    parts: VecDeque<u64>,
}

impl Vesting {
    /// Spreads an amount over so many epochs; what does not divide comes with the first.
    pub fn add(&mut self, ngonka: u64, epochs: u64) {
        let epochs = epochs.max(1);
        let count = epochs as usize;
        if self.parts.len() < count {
            self.parts.resize(count, 0);
        }
        let (part, rest) = (ngonka / epochs, ngonka % epochs);
        for (index, due) in self.parts.iter_mut().take(count).enumerate() {
            *due += part + if index == 0 { rest } else { 0 };
        }
    }

    /// The next part.
    pub fn release(&mut self) -> u64 {
        self.parts.pop_front().unwrap_or_default()
    }

    pub fn parts(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().copied()
    }

    pub fn total(&self) -> u64 {
        self.parts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_and_schedules_add_up() {
        let mut vesting = Vesting::default();
        vesting.add(100, 3);
        assert_eq!(vesting.parts().collect::<Vec<_>>(), [34, 33, 33]);
        assert_eq!(vesting.release(), 34);
        vesting.add(10, 4);
        assert_eq!(vesting.parts().collect::<Vec<_>>(), [37, 35, 2, 2]);
        assert_eq!(vesting.total(), 76);
        let released: u64 = (0..9).map(|_| vesting.release()).sum();
        assert_eq!((released, vesting.total()), (76, 0));
    }
}
