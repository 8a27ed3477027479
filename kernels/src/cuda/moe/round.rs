//! The scheme over a device for a stack of experts: the engine of the dense models with another plan.

use super::{Layout, plan};
use crate::{
    cuda::{
        Device, Error,
        plan::{Batch, Plan},
        round::{Program, Resident},
        weights::Put,
    },
    decoder,
    moe::{Shape, Source},
    prefill_v2::NAME,
    scheme::{self, Prepared, Round, Scheme},
};

/// A stack of experts on a device.
#[derive(Clone)]
pub struct CudaMoePrefillV2 {
    shape: Shape,
    resident: Resident,
}

impl std::fmt::Debug for CudaMoePrefillV2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaMoePrefillV2")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

struct Experts {
    shape: Shape,
    layout: Layout,
}

impl Program for Experts {
    fn hidden(&self) -> usize {
        self.shape.hidden
    }

    fn layers(&self) -> usize {
        self.shape.layers
    }

    fn weight_bytes(&self) -> u64 {
        self.layout.bytes
    }

    fn plan(&self, batch: Batch) -> Result<Plan, Error> {
        plan(&self.shape, &self.layout, batch)
    }

    fn angles(&self, positions: usize) -> Vec<(f32, f32)> {
        decoder::angles(self.shape.rotary, self.shape.theta, positions)
    }
}

impl CudaMoePrefillV2 {
    /// Loads weights, and makes buffers for batches of `nonces` of `seq_len` tokens. When memory does not suffice for both nothing stays allocated.
    pub fn load(
        device: Box<dyn Device>,
        shape: &Shape,
        source: &dyn Source,
        nonces: usize,
        seq_len: usize,
    ) -> Result<Self, Error> {
        shape.check().map_err(|error| Error::Shape(error.to_string()))?;
        let layout = Layout::new(shape);
        let fill = |put: &mut Put<'_>| layout.fill(shape, source, put);
        let program = Box::new(Experts {
            shape: shape.clone(),
            layout: layout.clone(),
        });
        Ok(Self {
            shape: shape.clone(),
            resident: Resident::load(device, program, &fill, nonces, seq_len)?,
        })
    }

    /// Digest of the weights on the device: names, each with a zero byte after it, and bytes, in the layout's order.
    pub fn weights_digest(&self) -> String {
        self.resident.weights_digest()
    }

    /// Bytes of the device that nothing uses.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.resident.free_bytes()
    }

    /// Shape of the model.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl Scheme for CudaMoePrefillV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, scheme::Error> {
        self.resident.prepare(round)
    }
}
