//! A buffer that is there already, filled and compared: the two ends of a copy between GPUs.

use super::{
    Bad, Form, Room,
    words::{bad, check as comparisons, finding_bytes, segments},
};
use crate::cuda::{Device, Error, plan::Buffer};

const SEED: u32 = 0x7065_6572;

/// Fills it.
pub(in crate::cuda) fn fill(device: &mut dyn Device, address: u64, bytes: u64, form: Form) -> Result<(), Error> {
    let mut room = Room::new(device);
    let seeds = room.take(Buffer::Seeds, 256)?;
    room.places.put(Buffer::Weights, address, bytes);
    let steps: Vec<_> = segments(Buffer::Weights, bytes)
        .iter()
        .map(|stretch| stretch.fill(SEED, form))
        .collect();
    room.run(&steps, seeds, 4).map(drop)
}

/// Compares it.
pub(in crate::cuda) fn check(device: &mut dyn Device, address: u64, bytes: u64, form: Form) -> Result<Vec<Bad>, Error> {
    let mut room = Room::new(device);
    room.take(Buffer::Seeds, 256)?;
    room.places.put(Buffer::Weights, address, bytes);
    let stretches = segments(Buffer::Weights, bytes);
    let findings = finding_bytes(&stretches);
    let results = room.take(Buffer::Results, findings)?;
    let found = room.run(&comparisons(&stretches, SEED, form), results, findings as usize)?;
    Ok(bad(&stretches, &found))
}
