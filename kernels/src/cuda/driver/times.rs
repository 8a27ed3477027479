//! Observe: what the device notes of its batches by its own clock.

use super::failed;
use crate::cuda::{Error, device::Span};
use cudarc::driver::CudaEvent;

/// Events before a batch's first copy and behind its last.
pub(super) struct Times {
    pub(super) begun: CudaEvent,
    pub(super) ended: CudaEvent,
}

/// What was noted since somebody watches.
#[derive(Default)]
pub(super) struct Watched {
    last: Option<CudaEvent>,
    pub(super) spans: Vec<Span>,
}

impl Watched {
    /// Takes note of a batch that is over.
    pub(super) fn note(&mut self, times: Times) -> Result<(), Error> {
        let between = |from: &CudaEvent, to| from.elapsed_ms(to).map_err(failed("cuEventElapsedTime"));
        let idle = self.last.as_ref().map(|last| between(last, &times.begun)).transpose()?;
        let ran = between(&times.begun, &times.ended)?;
        self.spans.push(Span { idle, ran });
        self.last = Some(times.ended);
        Ok(())
    }
}
