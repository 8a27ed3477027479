//! Apply: what carries a plan out. A GPU (`driver`), or in tests the same kernels on the CPU.

use super::{
    Error,
    plan::{Buffer, Place, Step},
};
use std::collections::BTreeMap;

/// Addresses of buffers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<Buffer, u64>);

impl Places {
    /// Takes note of a buffer; the address it had before.
    pub fn put(&mut self, buffer: Buffer, address: u64) -> Option<u64> {
        self.0.insert(buffer, address)
    }

    /// Forgets a buffer.
    pub fn take(&mut self, buffer: Buffer) -> Option<u64> {
        self.0.remove(&buffer)
    }

    /// The address of a place.
    ///
    /// # Panics
    /// When the plan's buffers were not allocated.
    pub fn address(&self, place: Place) -> u64 {
        self.0[&place.buffer] + place.offset
    }
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
}
