//! Decide: words that follow from their place, as launches of `memory.cu`, and what a comparison found.

use crate::cuda::plan::{Arg, Buffer, Kernel, Launch, Place, Step};

/// Words of one launch: 4 GiB, so that a place within it is 32 bits.
pub(super) const SEGMENT: u64 = 1 << 30;
/// Threads of a block, and words each takes at a time.
const THREADS: u64 = 256;
const QUAD: u64 = 4;
/// Most blocks of a launch.
const BLOCKS: u64 = 1024;
/// Bytes of one block's finding.
const FINDING: u64 = 16;

/// What the words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Their place, mixed.
    Pattern,
    /// Every bit of it the other way.
    Complement,
    /// Two weights in bf16 of this biased exponent, signs and fractions mixed.
    Weights(u32),
}

impl Form {
    const fn code(self) -> u32 {
        match self {
            Self::Pattern => 0,
            Self::Complement => 1,
            Self::Weights(exponent) => exponent,
        }
    }
}

/// A stretch of words of one segment number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) at: Place,
    pub(super) words: u64,
    pub(super) segment: u32,
}

/// Words that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Number of the stretch: a segment of memory, a layer of weights.
    pub segment: u32,
    /// How many of its 32-bit words.
    pub words: u64,
    /// Bytes from its start to the first.
    pub offset: u64,
    /// Bits of the first that differ.
    pub mask: u32,
}

impl Stretch {
    fn blocks(&self) -> u64 {
        self.words.div_ceil(THREADS * QUAD * 4).clamp(1, BLOCKS)
    }

    fn launch(&self, kernel: Kernel, found: Option<u64>, (seed, form): (u32, Form)) -> Step {
        let mut args = vec![Arg::At(self.at)];
        args.extend(found.map(|offset| {
            Arg::At(Place {
                buffer: Buffer::Results,
                offset,
            })
        }));
        args.extend([
            Arg::Size(self.words as u32),
            Arg::Size(self.segment),
            Arg::Size(seed),
            Arg::Size(form.code()),
        ]);
        let moved = 4 * self.words;
        Step::Launch(Launch {
            kernel,
            grid: [self.blocks() as u32, 1, 1],
            block: THREADS as u32,
            shared: 0,
            args,
            bytes: if found.is_some() { (moved, 0) } else { (0, moved) },
        })
    }

    pub(super) fn fill(&self, seed: u32, form: Form) -> Step {
        self.launch(Kernel::FillWords, None, (seed, form))
    }
}

/// A buffer cut into stretches of at most a segment.
pub(super) fn segments(buffer: Buffer, bytes: u64) -> Vec<Stretch> {
    (0..bytes / 4)
        .step_by(SEGMENT as usize)
        .enumerate()
        .map(|(segment, first)| Stretch {
            at: Place {
                buffer,
                offset: 4 * first,
            },
            words: SEGMENT.min(bytes / 4 - first),
            segment: segment as u32,
        })
        .collect()
}

/// Bytes of [`Buffer::Results`] that comparing these takes.
pub(super) fn finding_bytes(stretches: &[Stretch]) -> u64 {
    stretches.iter().map(|stretch| FINDING * stretch.blocks()).sum()
}

/// Comparisons of all stretches, findings one after the other.
pub(super) fn check(stretches: &[Stretch], seed: u32, form: Form) -> Vec<Step> {
    let mut offset = 0;
    stretches
        .iter()
        .map(|stretch| {
            let step = stretch.launch(Kernel::CheckWords, Some(offset), (seed, form));
            offset += FINDING * stretch.blocks();
            step
        })
        .collect()
}

/// What they found.
pub(super) fn bad(stretches: &[Stretch], findings: &[u8]) -> Vec<Bad> {
    let mut rest = findings;
    let mut all = Vec::new();
    for stretch in stretches {
        let (mine, next) = rest.split_at((FINDING * stretch.blocks()) as usize);
        rest = next;
        let words: Vec<u32> = mine
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .collect();
        let blocks = || words.chunks_exact(4).filter(|finding| finding[0] > 0);
        let Some(first) = blocks().min_by_key(|finding| finding[1]) else {
            continue;
        };
        all.push(Bad {
            segment: stretch.segment,
            words: blocks().map(|finding| u64::from(finding[0])).sum(),
            offset: 4 * u64::from(first[1]),
            mask: first[2],
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_buffer_is_in_one_stretch() {
        let bytes = (9 << 30) + (3 << 20);
        let stretches = segments(Buffer::Weights, bytes);
        assert_eq!(stretches.len(), 3);
        assert_eq!(stretches.iter().map(|stretch| 4 * stretch.words).sum::<u64>(), bytes);
        assert_eq!(stretches[1].at.offset, 4 << 30);
        assert_eq!(check(&stretches, 1, Form::Pattern).len(), 3);
        assert_eq!(finding_bytes(&stretches), 16 * 3 * 1024);
    }

    #[test]
    fn the_first_bad_word_of_all_blocks_is_named() {
        let stretches = segments(Buffer::Weights, 64 << 10);
        assert_eq!(finding_bytes(&stretches), 64);
        let findings: Vec<u8> = [
            [0, u32::MAX, 0, 0],
            [2, 9000, 8, 0],
            [1, 300, 1, 0],
            [0, u32::MAX, 0, 0],
        ]
        .concat()
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
        let found = bad(&stretches, &findings);
        let wanted = Bad {
            segment: 0,
            words: 3,
            offset: 1200,
            mask: 1,
        };
        assert_eq!(found, [wanted]);
    }
}
