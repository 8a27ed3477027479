//! The forward pass of `transformer_v1` on a device, in half precision (`docs/poc-v1.md`, section 3.3): a plan over the same five verbs as
//! `prefill_v2`'s. Correct and plain: the network no longer runs it.
//!
//! Weights are cut out of the pool on the host and lie on the device one after the other. In the last layer keys and values are computed of
//! all rows, everything else of the last token's.

mod steps;

use super::{
    Device, Error, MAX_ROWS,
    device::Places,
    plan::{Buffer, Step},
};
use crate::transformer_v1::{Output, Params, Pool, TensorSpec, rope};
use half::f16;
use std::collections::BTreeMap;

/// Start of every tensor: a multiple of this many bytes.
const ALIGN: u64 = 256;
/// Bytes that are cut out of the pool at a time.
const PIECE: usize = 1 << 26;
/// Longest sequence: a query's scores lie in the shared memory that every launch has.
const MAX_TOKENS: usize = 8_192;

/// Where each tensor lies, bytes from the start of the weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    at: BTreeMap<String, u64>,
    bytes: u64,
}

impl Layout {
    /// Of a model. Token embeddings are in the pool's count, and nothing reads them.
    fn new(params: &Params) -> Self {
        let mut layout = Self::default();
        for spec in tensors(params) {
            let start = layout.bytes.next_multiple_of(ALIGN);
            layout.bytes = start + 2 * spec.len();
            layout.at.insert(spec.name, start);
        }
        layout
    }

    /// Where a tensor begins; every name that the steps use is a tensor's.
    fn of(&self, name: &str) -> u64 {
        self.at.get(name).copied().unwrap_or_default()
    }
}

fn tensors(params: &Params) -> impl Iterator<Item = TensorSpec> {
    params
        .tensors()
        .into_iter()
        .filter(|spec| !spec.name.starts_with("tok_embeddings"))
}

/// What is run: so many inputs, and layers whose last tokens' states are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run<'a> {
    sequences: usize,
    watched: &'a [usize],
}

/// A model over a block hash's pool on a device.
pub struct CudaForward {
    device: Box<dyn Device>,
    params: Params,
    layout: Layout,
    places: Places,
    held: Vec<u64>,
}

impl std::fmt::Debug for CudaForward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaForward")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl CudaForward {
    /// Puts the weights on the device.
    pub fn load(device: Box<dyn Device>, params: Params, pool: &Pool) -> Result<Self, Error> {
        check(&params)?;
        let layout = Layout::new(&params);
        let mut forward = Self {
            device,
            params,
            layout,
            places: Places::default(),
            held: Vec::new(),
        };
        let bytes = forward.layout.bytes;
        let weights = forward.take(Buffer::Weights, bytes)?;
        for spec in tensors(&forward.params) {
            let (tensor, len) = (pool.tensor(&spec), spec.len() as usize);
            let start = weights + forward.layout.of(&spec.name);
            for first in (0..len).step_by(PIECE / 2) {
                let halves = tensor.halves(first..len.min(first + PIECE / 2));
                forward.device.upload(start + 2 * first as u64, &bytes_of(&halves))?;
            }
        }
        let angles: Vec<f16> = rope(&forward.params, forward.params.seq_len)
            .into_iter()
            .flat_map(|(cos, sin)| [f16::from_f32(cos), f16::from_f32(sin)])
            .collect();
        let table = forward.take(Buffer::Rope, 2 * angles.len() as u64)?;
        forward.device.upload(table, &bytes_of(&angles))?;
        Ok(forward)
    }

    /// Runs the inputs of one or more nonces, halves widened, as `transformer_v1::Forward` does.
    pub fn run(&mut self, inputs: &[f32], watched: &[usize]) -> Result<Output, Error> {
        let input = self.params.seq_len * self.params.dim;
        let run = Run {
            sequences: inputs.len() / input,
            watched,
        };
        let rows = run.sequences * self.params.seq_len;
        if rows == 0 || rows > MAX_ROWS || inputs.len() != run.sequences * input {
            return Err(Error::Shape(format!(
                "{} input elements: whole inputs of {input}, at most {MAX_ROWS} rows of them, are computed",
                inputs.len()
            )));
        }
        let kept = self.held.len();
        let made = self.compute(inputs, &run);
        // Buffers of a run go with it; weights and angles stay.
        for address in self.held.split_off(kept) {
            self.device.free(address)?;
        }
        made
    }

    fn compute(&mut self, inputs: &[f32], run: &Run<'_>) -> Result<Output, Error> {
        for (buffer, bytes) in steps::sizes(&self.params, run) {
            self.take(buffer, bytes)?;
        }
        let steps: Vec<Step> = steps::of(&self.params, &self.layout, run);
        self.device.record(&steps, &self.places)?;
        let halves: Vec<f16> = inputs.iter().map(|x| f16::from_f32(*x)).collect();
        let states = run.sequences * self.params.dim;
        let logits = run.sequences * self.params.vocab_size;
        let (to, from) = (
            self.places.address(Buffer::Residual.start()),
            self.places.address(Buffer::Results.start()),
        );
        let length = 2 * (run.watched.len() * states + logits);
        self.device.submit(&bytes_of(&halves), to, from, length)?;
        let bytes = self.device.collect()?;
        let found: Vec<f32> = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bits| f16::from_le_bytes(*bits).to_f32())
            .collect();
        let (last, logits) = found.split_at(run.watched.len() * states);
        Ok(Output {
            logits: logits.to_vec(),
            last_states: last.chunks_exact(states).map(<[f32]>::to_vec).collect(),
        })
    }

    fn take(&mut self, buffer: Buffer, bytes: u64) -> Result<u64, Error> {
        let free = self.device.free_bytes()?;
        let address = self.device.allocate(bytes).map_err(|error| match error {
            Error::Memory { .. } => Error::Memory { needed: bytes, free },
            other => other,
        })?;
        self.places.put(buffer, address, bytes);
        self.held.push(address);
        Ok(address)
    }
}

impl Drop for CudaForward {
    fn drop(&mut self) {
        for address in std::mem::take(&mut self.held) {
            // What is not freed now goes with the device.
            drop(self.device.free(address));
        }
    }
}

fn check(params: &Params) -> Result<(), Error> {
    params.check().map_err(|error| Error::Shape(error.to_string()))?;
    if !params.dim.is_multiple_of(8) || !params.kv_dim().is_multiple_of(8) || !params.ffn_hidden().is_multiple_of(8) {
        return Err(Error::Shape("widths must be multiples of 8".into()));
    }
    if params.seq_len > MAX_TOKENS {
        return Err(Error::Shape(format!("{} tokens: at most {MAX_TOKENS}", params.seq_len)));
    }
    Ok(())
}

fn bytes_of(halves: &[f16]) -> Vec<u8> {
    halves.iter().flat_map(|x| x.to_le_bytes()).collect()
}
