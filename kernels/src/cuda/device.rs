//! Apply: what carries a plan out. A GPU (`driver`), or in tests the same kernels on the CPU.

use super::{
    Error,
    plan::{Buffer, Place, Step},
};
use std::collections::BTreeMap;

/// Buffers that are allocated: where each begins, and its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<Buffer, (u64, u64)>);

impl Places {
    /// Takes note of a buffer.
    pub fn put(&mut self, buffer: Buffer, address: u64, bytes: u64) {
        self.0.insert(buffer, (address, bytes));
    }

    /// Forgets a buffer; the address it had.
    pub fn take(&mut self, buffer: Buffer) -> Option<u64> {
        self.0.remove(&buffer).map(|(address, _)| address)
    }

    /// Forgets all of them; the addresses they had.
    pub fn take_all(&mut self) -> impl Iterator<Item = u64> {
        std::mem::take(&mut self.0).into_values().map(|(address, _)| address)
    }

    /// Whether a buffer is there and has so many bytes.
    pub fn holds(&self, buffer: Buffer, bytes: u64) -> bool {
        self.0.get(&buffer).is_some_and(|(_, has)| *has >= bytes)
    }

    /// The address of a place.
    ///
    /// # Panics
    /// When the plan's buffers were not allocated.
    pub fn address(&self, place: Place) -> u64 {
        self.0[&place.buffer].0 + place.offset
    }
}

/// What a device noted of a batch by its own clock, milliseconds: copies in and out are part of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// From the end of the batch before to its begin; none of the first that was watched.
    pub idle: Option<f32>,
    /// From its begin to its end.
    pub ran: f32,
}

/// One GPU, or what stands for it. Steps run in order; what is submitted is done in that order too.
pub trait Device: Send {
    /// Bytes that can be allocated.
    fn free_bytes(&mut self) -> Result<u64, Error>;

    /// Allocates.
    fn allocate(&mut self, bytes: u64) -> Result<u64, Error>;

    /// Gives back what [`Device::allocate`] gave, when nothing uses it any more.
    fn free(&mut self, address: u64) -> Result<(), Error>;

    /// Copies; done when this returns.
    fn upload(&mut self, to: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Makes these steps what [`Device::submit`] runs, in place of those before.
    fn record(&mut self, steps: &[Step], places: &Places) -> Result<(), Error>;

    /// Queues one batch: `input` to an address, the recorded steps, `length` bytes back from another. Does not wait.
    fn submit(&mut self, input: &[u8], to: u64, from: u64, length: usize) -> Result<(), Error>;

    /// Waits for the oldest batch submitted.
    fn collect(&mut self) -> Result<Vec<u8>, Error>;

    /// From now on notes of every batch when it begins and ends, or no more. What was noted before is forgotten.
    fn watch(&mut self, on: bool);

    /// What was noted of the batches collected since [`Device::watch`], oldest first; each is told once.
    fn spans(&mut self) -> Vec<Span>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_held_as_far_as_it_reaches() {
        let mut places = Places::default();
        places.put(Buffer::Seeds, 4096, 64);
        assert!(places.holds(Buffer::Seeds, 64) && !places.holds(Buffer::Seeds, 65) && !places.holds(Buffer::Rope, 0));
        assert_eq!(places.address(Buffer::Seeds.start()), 4096);
        assert_eq!(
            (places.take(Buffer::Seeds), places.take(Buffer::Seeds)),
            (Some(4096), None)
        );
        places.put(Buffer::Rope, 8192, 1);
        assert_eq!(places.take_all().collect::<Vec<_>>(), [8192]);
        assert!(!places.holds(Buffer::Rope, 1));
    }
}
