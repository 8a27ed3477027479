//! All free memory, written with what follows from each word's place and read again, then the same with every bit the other way.

use super::{
    Bad, Form, Room, fillable,
    words::{bad, check, finding_bytes, segments},
};
use crate::cuda::{Device, Error, plan::Buffer};

/// Seed of the pattern.
const SEED: u32 = 0x6d65_6d31;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that were free.
    pub free: u64,
    /// Bytes that were written and read, twice.
    pub tested: u64,
    /// Words that did not keep what was written.
    pub bad: Vec<Bad>,
}

impl Memory {
    /// Where the first bad word lies, bytes from the start of what was tested.
    pub fn first(&self) -> Option<(u64, u32)> {
        let first = self.bad.first()?;
        Some((
            u64::from(first.segment) * 4 * super::words::SEGMENT + first.offset,
            first.mask,
        ))
    }

    /// How many are bad.
    pub fn words(&self) -> u64 {
        self.bad.iter().map(|bad| bad.words).sum()
    }
}

/// Tests it.
pub fn test(device: &mut dyn Device) -> Result<Memory, Error> {
    let free = device.free_bytes()?;
    let tested = fillable(free);
    let mut room = Room::new(device);
    room.take(Buffer::Seeds, 256)?;
    let stretches = segments(Buffer::Weights, tested);
    let findings = finding_bytes(&stretches);
    let results = room.take(Buffer::Results, findings)?;
    room.take(Buffer::Weights, tested)?;
    let mut all: Vec<Bad> = Vec::new();
    for form in [Form::Pattern, Form::Complement] {
        let mut steps: Vec<_> = stretches.iter().map(|stretch| stretch.fill(SEED, form)).collect();
        // Read only after all is written: a word that shares its cell with another one shows.
        steps.extend(check(&stretches, SEED, form));
        let found = room.run(&steps, results, findings as usize)?;
        all.extend(bad(&stretches, &found));
    }
    all.sort_by_key(|bad| (bad.segment, bad.offset));
    Ok(Memory { free, tested, bad: all })
}
