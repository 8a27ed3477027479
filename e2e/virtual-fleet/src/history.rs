//! What happened, in the order in which it did: a digest over every line, and the newest lines for people.

use std::collections::VecDeque;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Lines kept for people.
const KEPT: usize = 400;

/// The history of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    digest: Sha256,
    lines: u64,
    newest: VecDeque<String>,
    /// Keep every line, to see where two runs part.
    pub whole: bool,
}

impl History {
    /// Notes what happened at a moment.
    pub fn note(&mut self, now_ms: i64, line: &str) {
        let mut text = String::with_capacity(line.len() + 16);
        // Writing to a String cannot fail.
        let _ = write!(text, "{now_ms} {line}");
        self.digest.update(text.as_bytes());
        self.digest.update(b"\n");
        self.lines += 1;
        self.newest.push_back(text);
        if !self.whole && self.newest.len() > KEPT {
            self.newest.pop_front();
        }
    }

    /// Digest of all lines.
    pub fn digest(&self) -> String {
        hex::encode(self.digest.clone().finalize())
    }

    /// How many there were.
    pub fn len(&self) -> u64 {
        self.lines
    }

    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The newest lines, oldest first.
    pub fn newest(&self) -> impl Iterator<Item = &String> {
        self.newest.iter()
    }
}
