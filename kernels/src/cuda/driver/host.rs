//! Apply: page-locked memory of the host, which the GPU copies from and to while the host does something else.

use super::failed;
use crate::cuda::Error;
use cudarc::driver::{CudaContext, result};
use std::{ptr::NonNull, sync::Arc};

/// A stretch of it.
pub(super) struct Pinned {
    start: NonNull<u8>,
    length: usize,
    context: Arc<CudaContext>,
}

impl Pinned {
    /// Allocates, zeroed.
    #[expect(unsafe_code, reason = "the driver's interface")]
    pub(super) fn new(context: &Arc<CudaContext>, length: usize) -> Result<Self, Error> {
        context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
        // SAFETY: an allocation that is freed once, in `drop`.
        let start = unsafe { result::malloc_host(length.max(1), 0) }.map_err(failed("cuMemHostAlloc"))?;
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(|| Error::Call {
            call: "cuMemHostAlloc",
            cause: "no memory came back".into(),
        })?;
        // SAFETY: as long as it was asked for.
        unsafe { start.write_bytes(0, length) };
        Ok(Self {
            start,
            length,
            context: Arc::clone(context),
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }

    #[expect(unsafe_code, reason = "memory of the driver")]
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: allocated, zeroed and this long; copies under way are waited for before it is looked at.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pinned {
    #[expect(unsafe_code, reason = "the driver's interface")]
    fn drop(&mut self) {
        _ = self.context.bind_to_thread();
        // SAFETY: allocated in `new`; the stream was waited for before its batch is dropped.
        _ = unsafe { result::free_host(self.start.as_ptr().cast()) };
    }
}
