//! What the process that burns a GPU in says to the one that watches it: a line of JSON each, as soon as it is known.

use kernels::cuda::burn::{Bad, filling::Filling, golden::Golden, memory::Memory, rate::Rate};
use kernels::cuda::driver::{Facts, peer::Peer};
use serde::{Deserialize, Serialize};

/// A part of the burn-in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Part {
    /// Driver, lock, device.
    Open,
    /// Multiprocessors that take blocks.
    Multiprocessors,
    /// Published vectors.
    Golden,
    /// Patterns in all free memory.
    Memory,
    /// Weights in all free memory.
    Weights,
    /// Nonces a second.
    Rate,
    /// Copies between GPUs.
    Peers,
}

/// One line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "said", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Said {
    /// A part begins.
    Begun { part: Part },
    /// No CUDA here: nothing was tried.
    Absent { why: String },
    /// The GPU is not to be burned in now.
    Refused { why: String },
    /// A part could not be carried out.
    Failed { part: Part, why: String },
    /// What the device says of itself.
    Facts {
        name: String,
        multiprocessors: u32,
        total_bytes: u64,
    },
    /// Multiprocessors that took a block.
    Multiprocessors { used: u32 },
    /// Distances from the published vectors; none: no number.
    Golden {
        model: String,
        artifacts: Option<f64>,
        states: Option<f64>,
        holds: bool,
    },
    /// Patterns.
    Memory {
        free_bytes: u64,
        tested_bytes: u64,
        bad: Option<BadWords>,
    },
    /// Weights.
    Weights {
        bytes: u64,
        layers: u32,
        width: u32,
        passes: u32,
        differing: u32,
        finite: bool,
        bad: Option<BadWords>,
    },
    /// Rate.
    Rate {
        load: String,
        nonces: u64,
        nonces_per_second: Option<f64>,
        teraflops: Option<f64>,
        differing: u64,
        not_finite: u64,
    },
    /// Copies from one GPU to another.
    Peer {
        from: String,
        to: String,
        direct: bool,
        gigabytes_per_second: Option<f64>,
        bad: Option<BadWords>,
    },
    /// All parts were carried out.
    Done,
}

/// Words that are not what was written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BadWords {
    /// How many, of 32 bits.
    pub words: u64,
    /// Buffer the first one is in.
    pub buffer: String,
    /// Bytes from the buffer's start.
    pub offset: u64,
    /// Device address of the first, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// Its bits that differ.
    pub mask: u32,
}

impl BadWords {
    fn of(bad: &[Bad], buffer: impl FnOnce(&Bad) -> (String, Option<u64>)) -> Option<Self> {
        let first = bad.first()?;
        let (buffer, start) = buffer(first);
        Some(Self {
            words: bad.iter().map(|bad| bad.words).sum(),
            buffer,
            offset: first.offset,
            address: start.map(|start| start + first.offset),
            mask: first.mask,
        })
    }
}

/// JSON has no other numbers.
fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

impl From<Facts> for Said {
    fn from(facts: Facts) -> Self {
        Self::Facts {
            name: facts.name,
            multiprocessors: facts.multiprocessors,
            total_bytes: facts.total_bytes,
        }
    }
}

impl From<Golden> for Said {
    fn from(golden: Golden) -> Self {
        Self::Golden {
            holds: golden.holds(),
            model: golden.model,
            artifacts: finite(golden.artifacts),
            states: finite(golden.states),
        }
    }
}

impl From<Memory> for Said {
    fn from(memory: Memory) -> Self {
        Self::Memory {
            free_bytes: memory.free,
            tested_bytes: memory.tested,
            bad: BadWords::of(&memory.bad, |bad| (format!("segment {} of 4 GiB", bad.segment), None)),
        }
    }
}

impl From<Filling> for Said {
    fn from(filling: Filling) -> Self {
        let stack = filling.stack;
        let layer = stack.bytes() / u64::from(stack.layers.max(1));
        Self::Weights {
            bytes: stack.bytes(),
            layers: stack.layers,
            width: stack.width,
            passes: filling.passes,
            differing: filling.differing,
            finite: filling.finite,
            bad: BadWords::of(&filling.bad, |bad| {
                let start = filling.address + u64::from(bad.segment) * layer;
                (format!("layer {}", bad.segment), Some(start))
            }),
        }
    }
}

impl From<Rate> for Said {
    fn from(rate: Rate) -> Self {
        Self::Rate {
            nonces_per_second: finite(rate.per_second()),
            teraflops: finite(rate.teraflops()),
            load: rate.load.to_owned(),
            nonces: rate.nonces,
            differing: rate.differing,
            not_finite: rate.not_finite,
        }
    }
}

impl Said {
    /// Of copies between two.
    pub fn peer(from: &str, to: &str, peer: &Peer) -> Self {
        Self::Peer {
            from: from.to_owned(),
            to: to.to_owned(),
            direct: peer.direct,
            gigabytes_per_second: finite(peer.gigabytes_per_second),
            bad: BadWords::of(&peer.bad, |_| ("what arrived".to_owned(), None)),
        }
    }
}
