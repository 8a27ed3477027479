//! A dense model on a device: its program, and the scheme over it.

use super::{
    Device, Error, Layout, Shape,
    device::Span,
    ledger::Ledger,
    plan::{Batch, Part, Plan, plan},
    round::{Program, Resident},
    weights::{Put, Source},
};
use crate::{
    decoder,
    prefill_v2::NAME,
    scheme::{self, Prepared, Round, Scheme},
};

struct Dense {
    shape: Shape,
    layout: Layout,
}

impl Program for Dense {
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
        decoder::angles(self.shape.head_dim, self.shape.theta, positions)
    }
}

/// A dense model on a device.
#[derive(Clone)]
pub struct CudaPrefillV2 {
    shape: Shape,
    resident: Resident,
}

impl std::fmt::Debug for CudaPrefillV2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaPrefillV2")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl CudaPrefillV2 {
    /// Loads weights, and makes buffers for batches of `nonces` of `seq_len` tokens. When memory does not suffice for both nothing stays allocated.
    pub fn load(
        device: Box<dyn Device>,
        shape: Shape,
        source: &dyn Source,
        nonces: usize,
        seq_len: usize,
    ) -> Result<Self, Error> {
        let layout = Layout::new(&shape);
        let parts = layout.parts.clone();
        let fill = |put: &mut Put<'_>| {
            parts
                .iter()
                .try_for_each(|part| put(&part.name, part.offset, &source.tensor(part)?))
        };
        let program = Box::new(Dense {
            shape: shape.clone(),
            layout,
        });
        let resident = Resident::load(device, program, &fill, nonces, seq_len)?;
        Ok(Self { shape, resident })
    }

    /// Bytes of the device that nothing uses.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.resident.free_bytes()
    }

    /// Digest of the weights on the device: [`super::weights::digest`].
    pub fn weights_digest(&self) -> String {
        self.resident.weights_digest()
    }

    /// What a round's batches are made of, and what one costs.
    pub fn cost(&self, round: &Round) -> Result<(Batch, Ledger), Error> {
        let batch = self.resident.engine().batch_of(round);
        let plan = plan(&self.shape, &Layout::new(&self.shape), batch)?;
        Ok((batch, Ledger::new(&self.shape, batch, &plan)))
    }

    /// From now on notes of every batch when it begins and ends on the device, or no more.
    pub fn watch(&self, on: bool) {
        self.resident.engine().device.watch(on);
    }

    /// What was noted of the batches computed since.
    pub fn spans(&self) -> Vec<Span> {
        self.resident.engine().device.spans()
    }

    /// Runs a part of a round's batches. For its time: of artifacts there are none. A whole batch must have been computed before, or the part begins on
    /// numbers that nobody wrote.
    pub fn run_part(&self, round: &Round, part: Part, batches: usize) -> Result<(), Error> {
        self.resident.engine().run_part(round, part, batches)
    }

    /// States of the last token after the final norm, of as many nonces as are given, one after the other: what artifacts are made of.
    pub fn last_states(&self, round: &Round, nonces: &[i64]) -> Result<Vec<f32>, Error> {
        let mut engine = self.resident.engine();
        engine.begin(round)?;
        engine.last_states(nonces)
    }

    /// Shape of the model.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl Scheme for CudaPrefillV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, round: &Round) -> Result<Box<dyn Prepared>, scheme::Error> {
        self.resident.prepare(round)
    }
}
