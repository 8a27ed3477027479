//! Decide: whether rounds that start and stop for an hour lost anything: what a process and its GPU hold, at two moments.

use serde::{Deserialize, Serialize};

/// What is held at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Bytes of the GPU that nothing uses.
    pub free_bytes: u64,
    /// Open files of the process: the driver keeps its devices and events in them.
    pub files: u64,
    /// Threads of the process.
    pub threads: u64,
    /// Bytes of the process in memory.
    pub resident_bytes: u64,
}

/// What may be held more at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Bytes of the GPU.
    pub device_bytes: u64,
    /// Files, and threads.
    pub handles: u64,
    /// Bytes of the process.
    pub resident_bytes: u64,
}

impl Bound {
    /// Nothing of the GPU, no handle; of the process what an allocator may keep for itself.
    pub const SOAK: Self = Self {
        device_bytes: 0,
        handles: 0,
        resident_bytes: 32 << 20,
    };
}

/// What was lost between two moments, a sentence each.
pub fn lost(first: Held, last: Held, bound: Bound) -> Vec<String> {
    let grown = [
        (
            "bytes of the GPU in use",
            first.free_bytes.saturating_sub(last.free_bytes),
            bound.device_bytes,
        ),
        ("open files", last.files.saturating_sub(first.files), bound.handles),
        ("threads", last.threads.saturating_sub(first.threads), bound.handles),
        (
            "bytes of the process in memory",
            last.resident_bytes.saturating_sub(first.resident_bytes),
            bound.resident_bytes,
        ),
    ];
    grown
        .into_iter()
        .filter(|(_, grown, bound)| grown > bound)
        .map(|(what, grown, bound)| format!("{grown} more {what}: {bound} are allowed"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Held = Held {
        free_bytes: 1 << 30,
        files: 20,
        threads: 4,
        resident_bytes: 1 << 28,
    };

    #[test]
    fn what_is_as_it_was_is_not_lost() {
        assert!(lost(FIRST, FIRST, Bound::SOAK).is_empty());
        let less = Held {
            free_bytes: 2 << 30,
            files: 10,
            threads: 2,
            resident_bytes: FIRST.resident_bytes + (32 << 20),
        };
        assert!(lost(FIRST, less, Bound::SOAK).is_empty());
    }

    #[test]
    fn each_growth_is_named() {
        let last = Held {
            free_bytes: FIRST.free_bytes - 256,
            files: 21,
            threads: 5,
            resident_bytes: FIRST.resident_bytes + (32 << 20) + 1,
        };
        let said = lost(FIRST, last, Bound::SOAK);
        assert_eq!(said.len(), 4, "{said:?}");
        assert_eq!(said[0], "256 more bytes of the GPU in use: 0 are allowed");
    }
}
