//! The burn-in: what a GPU must do before it is trusted with an exam. Each part measures; what is good enough is the caller's.
//!
//! | part | finds |
//! |---|---|
//! | [`golden`] | results that are not those of the published vectors |
//! | [`memory`] | words that do not keep what is written, in all memory that is free |
//! | [`filling`] | weights in all of it that change, and products over them that do not repeat to the bit |
//! | [`rate`] | nonces a second for a while, and batches that do not repeat to the bit |
//! | [`multiprocessors`] | multiprocessors that take no block |
//!
//! Everything goes through [`Device`]: on a GPU, or on the simulated driver of the tests.

pub mod filling;
pub mod golden;
pub mod memory;
pub(super) mod pair;
pub mod rate;
mod words;

pub use words::{Bad, Form};

use super::{
    Device, Error,
    device::Places,
    plan::{Arg, Buffer, Kernel, Launch, Step},
};

/// Left to the driver and to cuBLASLt: its workspace is 32 MiB, a graph of a thousand steps a few.
const RESERVE: u64 = 512 << 20;
/// Of a GPU so small (in tests) that this would be most of it: a part.
const RESERVE_PART: u64 = 6;
/// Blocks a multiprocessor gets, so that one that works gets at least one.
const BLOCKS_EACH: u32 = 8;

/// Bytes that are filled when so many are free: all but the reserve, whole mebibytes.
pub fn fillable(free: u64) -> u64 {
    let reserve = RESERVE.min(free / RESERVE_PART);
    (free - reserve) >> 20 << 20
}

/// One buffer for the whole of the free memory, and small ones beside it.
struct Room<'a> {
    device: &'a mut dyn Device,
    places: Places,
    held: Vec<(Buffer, u64)>,
}

impl<'a> Room<'a> {
    fn new(device: &'a mut dyn Device) -> Self {
        Self {
            device,
            places: Places::default(),
            held: Vec::new(),
        }
    }

    fn take(&mut self, buffer: Buffer, bytes: u64) -> Result<u64, Error> {
        let address = self.device.allocate(bytes)?;
        self.places.put(buffer, address, bytes);
        self.held.push((buffer, address));
        Ok(address)
    }

    /// Runs steps once and brings bytes back. The graph is kept for [`Room::again`].
    fn run(&mut self, steps: &[Step], from: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        self.device.record(steps, &self.places)?;
        self.again(from, bytes)
    }

    fn again(&mut self, from: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let seeds = self.places.address(Buffer::Seeds.start());
        self.device.submit(&[0; 4], seeds, from, bytes)?;
        self.device.collect()
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        for (_, address) in std::mem::take(&mut self.held) {
            // What is not freed now goes with the context.
            drop(self.device.free(address));
        }
    }
}

/// Which multiprocessors took a block, of a device that says it has so many.
pub fn multiprocessors(device: &mut dyn Device, count: u32) -> Result<Vec<u32>, Error> {
    let blocks = (count * BLOCKS_EACH).max(1);
    let mut room = Room::new(device);
    room.take(Buffer::Seeds, 256)?;
    let bytes = 4 * blocks as usize;
    let out = room.take(Buffer::Results, bytes as u64)?;
    let step = Step::Launch(Launch {
        kernel: Kernel::Multiprocessors,
        grid: [blocks, 1, 1],
        block: 1024,
        shared: 0,
        args: vec![Arg::At(Buffer::Results.start())],
        bytes: (0, bytes as u64),
    });
    let mut seen: Vec<u32> = room
        .run(&[step], out, bytes)?
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    Ok(seen)
}
