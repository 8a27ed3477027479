//! The chain's blocks: all of them, or the newest where a run is too long to keep them.

use std::collections::VecDeque;

/// A block everybody agrees on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub height: i64,
    pub unix_ms: u64,
    /// Upper-case hex.
    pub hash: String,
}

/// Blocks without gaps, the newest last.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    newest: VecDeque<Block>,
    height: i64,
    /// At most so many are kept; nothing keeps all.
    keep: Option<usize>,
}

impl Blocks {
    /// Height of the newest block, 0 before the first.
    pub fn height(&self) -> i64 {
        self.height
    }

    pub fn get(&self, height: i64) -> Option<&Block> {
        let first = self.newest.front()?.height;
        self.newest.get(usize::try_from(height.checked_sub(first)?).ok()?)
    }

    /// Forgets all but the newest so many, from now on.
    pub fn keep(&mut self, most: usize) {
        self.keep = Some(most.max(1));
        self.shorten();
    }

    /// The next block.
    pub fn push(&mut self, unix_ms: u64, hash: String) {
        self.height += 1;
        self.newest.push_back(Block {
            height: self.height,
            unix_ms,
            hash,
        });
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.keep.is_some_and(|most| self.newest.len() > most) {
            self.newest.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_go_on_when_old_blocks_are_forgotten() {
        let mut blocks = Blocks::default();
        assert_eq!((blocks.height(), blocks.get(0), blocks.get(1)), (0, None, None));
        for at in 1..=5 {
            blocks.push(at, at.to_string());
        }
        assert_eq!(blocks.get(1).map(|block| block.unix_ms), Some(1));
        blocks.keep(2);
        blocks.push(6, "6".to_owned());
        assert_eq!(blocks.height(), 6);
        assert_eq!(blocks.get(4), None);
        assert_eq!(blocks.get(5).map(|block| block.height), Some(5));
        assert_eq!((blocks.get(7), blocks.get(i64::MIN)), (None, None));
    }
}
