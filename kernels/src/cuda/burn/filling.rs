//! Weights in all free memory: a stack of layers, each a square matrix of its own, multiplied one after the other. Every pass must give the
//! bits of the first; then every weight is compared with what it was made to be, so that one flipped bit has a layer and an address.

use super::{
    Bad, Form, Room, fillable,
    words::{Stretch, bad, check, finding_bytes},
};
use crate::cuda::{
    Device, Error,
    plan::{Buffer, Gemm, Place, Step},
};
use half::bf16;

/// Seeds of the weights and of what enters the first layer.
const SEED: u32 = 0x7765_6931;
const INPUT_SEED: u32 = 0x696e_7031;
/// Widths of a layer, widest first: two to an odd power, so that a weight of half the root of its inverse is two to a whole one.
const WIDTHS: [u64; 4] = [8192, 2048, 512, 128];
/// A layer takes at most this part of the memory.
const LEAST_LAYERS: u64 = 16;
/// Rows that are multiplied, of a wide layer and of a narrow one.
const ROWS: (u32, u32) = (128, 8);
/// Biased exponent of one.
const ONE: u32 = 127;

/// The stack, as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Inputs and outputs of a layer.
    pub width: u32,
    /// Layers.
    pub layers: u32,
    /// Rows multiplied.
    pub rows: u32,
}

impl Stack {
    /// The one that fills so many bytes, or none where they are too few.
    pub fn filling(bytes: u64) -> Option<Self> {
        let width = WIDTHS
            .into_iter()
            .find(|width| 2 * width * width * LEAST_LAYERS <= bytes)?;
        Some(Self {
            width: width as u32,
            layers: (bytes / (2 * width * width)) as u32,
            rows: if width == WIDTHS[0] { ROWS.0 } else { ROWS.1 },
        })
    }

    const fn layer_bytes(&self) -> u64 {
        2 * (self.width as u64) * (self.width as u64)
    }

    /// Bytes of all weights.
    pub const fn bytes(&self) -> u64 {
        self.layers as u64 * self.layer_bytes()
    }

    /// Multiplications and additions of a pass.
    pub fn operations(&self) -> f64 {
        2.0 * f64::from(self.layers) * f64::from(self.rows) * f64::from(self.width).powi(2)
    }

    /// Weights keep the size of what passes through them: their mean square, twice two to this exponent (bf16's words say why), is one in `width`.
    fn form(&self) -> Form {
        Form::Weights(ONE - self.width.ilog2().div_ceil(2))
    }

    fn stretches(&self) -> Vec<Stretch> {
        (0..self.layers)
            .map(|layer| Stretch {
                at: Place {
                    buffer: Buffer::Weights,
                    offset: u64::from(layer) * self.layer_bytes(),
                },
                words: self.layer_bytes() / 4,
                segment: layer,
            })
            .collect()
    }

    const fn state_bytes(&self) -> u64 {
        2 * self.rows as u64 * self.width as u64
    }

    /// Where a layer reads: the two states in turn.
    const fn state(layer: u32) -> Buffer {
        if layer.is_multiple_of(2) {
            Buffer::Normed
        } else {
            Buffer::Hidden
        }
    }

    fn pass(&self) -> Vec<Step> {
        let input = Stretch {
            at: Self::state(0).start(),
            words: self.state_bytes() / 4,
            segment: 0,
        };
        let mut steps = vec![input.fill(INPUT_SEED, Form::Weights(ONE))];
        steps.extend((0..self.layers).map(|layer| {
            Step::Gemm(Gemm {
                weights: Place {
                    buffer: Buffer::Weights,
                    offset: u64::from(layer) * self.layer_bytes(),
                },
                x: Self::state(layer).start(),
                out: Self::state(layer + 1).start(),
                out_stride: self.width,
                rows: self.rows,
                inner: self.width,
                outer: self.width,
            })
        }));
        steps
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Filling {
    /// What was filled and multiplied.
    pub stack: Stack,
    /// Address of the first layer.
    pub address: u64,
    /// Passes, the first one included.
    pub passes: u32,
    /// Of these, passes whose results were not the first one's to the bit.
    pub differing: u32,
    /// Whether all numbers of the first were finite.
    pub finite: bool,
    /// Weights that are not what they were made; the segment is the layer.
    pub bad: Vec<Bad>,
}

/// Fills memory and multiplies until `enough` says so, two passes at least.
pub fn test(device: &mut dyn Device, enough: &mut dyn FnMut() -> bool) -> Result<Filling, Error> {
    let free = device.free_bytes()?;
    let Some(stack) = Stack::filling(fillable(free)) else {
        return Err(Error::Memory {
            needed: LEAST_LAYERS * 2 * WIDTHS[3] * WIDTHS[3],
            free,
        });
    };
    let stretches = stack.stretches();
    let findings = finding_bytes(&stretches);
    let mut room = Room::new(device);
    room.take(Buffer::Seeds, 256)?;
    let results = room.take(Buffer::Results, findings)?;
    room.take(Buffer::Normed, stack.state_bytes())?;
    room.take(Buffer::Hidden, stack.state_bytes())?;
    let address = room.take(Buffer::Weights, stack.bytes())?;
    let fill: Vec<_> = stretches
        .iter()
        .map(|stretch| stretch.fill(SEED, stack.form()))
        .collect();
    room.run(&fill, results, 4)?;

    let out = room.places.address(Stack::state(stack.layers).start());
    let bytes = stack.state_bytes() as usize;
    let first = room.run(&stack.pass(), out, bytes)?;
    let (mut passes, mut differing) = (1, 0);
    while passes < 2 || !enough() {
        differing += u32::from(room.again(out, bytes)? != first);
        passes += 1;
    }
    let found = room.run(&check(&stretches, SEED, stack.form()), results, findings as usize)?;
    let finite = first
        .as_chunks::<2>()
        .0
        .iter()
        .all(|bits| bf16::from_le_bytes(*bits).is_finite());
    Ok(Filling {
        stack,
        address,
        passes,
        differing,
        finite,
        bad: bad(&stretches, &found),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_fills_what_it_is_given() {
        for bytes in [16 << 20, 200 << 20, 80 << 30, 141 << 30] {
            let stack = Stack::filling(bytes).unwrap();
            assert!(
                stack.bytes() <= bytes && bytes - stack.bytes() < stack.layer_bytes(),
                "{stack:?}"
            );
        }
        assert_eq!(Stack::filling(1 << 18), None);
        assert_eq!(Stack::filling(130 << 30).unwrap().width, 8192);
    }

    #[test]
    fn every_layer_is_multiplied_and_states_alternate() {
        let stack = Stack::filling(16 << 20).unwrap();
        let steps = stack.pass();
        let read: Vec<u64> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Gemm(gemm) => {
                    assert_ne!(gemm.x.buffer, gemm.out.buffer);
                    Some(gemm.weights.offset)
                }
                Step::Launch(_) | Step::HalfGemm(_) => None,
            })
            .collect();
        assert_eq!(read.len() as u64 * stack.layer_bytes(), stack.bytes());
        assert!(read.windows(2).all(|pair| pair[1] - pair[0] == stack.layer_bytes()));
    }

    #[test]
    fn weights_keep_the_size_of_a_state() {
        for width in WIDTHS {
            let stack = Stack::filling(2 * width * width * LEAST_LAYERS).unwrap();
            let Form::Weights(exponent) = stack.form() else {
                panic!("weights");
            };
            // Fractions are even: their mean square is 7/3; three of sixteen are of half the size.
            let square = 7.0 / 3.0 * (13.0 + 3.0 / 4.0) / 16.0 * 4.0_f64.powi(exponent as i32 - 127);
            assert!((square * width as f64 - 1.0).abs() < 0.01, "{width}: {square}");
        }
    }
}
