//! Apply: copies from one GPU to another, for the burn-in of a machine with several.

use super::{Gpu, Options, Wanted, failed};
use crate::cuda::{
    Device as _, Error,
    burn::{Bad, Form, pair},
};
use cudarc::driver::sys;
use std::time::Instant;

/// Bytes of a copy, and copies that are timed. Of a small GPU (in tests) a part of its memory.
const BYTES: u64 = 256 << 20;
const COPIES: u32 = 16;

/// One direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Whether the devices reach each other without the host between them.
    pub direct: bool,
    /// 10⁹ bytes a second.
    pub gigabytes_per_second: f64,
    /// What arrived other than it was sent.
    pub bad: Vec<Bad>,
}

/// Copies from one to the other.
pub fn copy(from: &Wanted, to: &Wanted) -> Result<Peer, Error> {
    let open = |gpu: &Wanted| {
        Gpu::open(&Options {
            gpu: gpu.clone(),
            algorithms: None,
        })
    };
    let (mut from, mut to) = (open(from)?, open(to)?);
    let bytes = BYTES.min(from.free_bytes()? / 8).min(to.free_bytes()? / 8) >> 10 << 10;
    let (source, target) = (from.allocate(bytes)?, to.allocate(bytes)?);
    let made = (|| {
        pair::fill(&mut from, source, bytes, Form::Pattern)?;
        pair::fill(&mut to, target, bytes, Form::Complement)?;
        let direct = reach(&from, &to)?;
        let begun = Instant::now();
        for _ in 0..COPIES {
            send(&from, source, &to, target, bytes)?;
        }
        from.stream.synchronize().map_err(failed("cuStreamSynchronize"))?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Peer {
            direct,
            gigabytes_per_second: f64::from(COPIES) * bytes as f64 / seconds / 1e9,
            bad: pair::check(&mut to, target, bytes, Form::Pattern)?,
        })
    })();
    from.free(source)?;
    to.free(target)?;
    made
}

/// Lets each reach the other where they can.
#[expect(unsafe_code, reason = "the driver's interface")]
fn reach(from: &Gpu, to: &Gpu) -> Result<bool, Error> {
    let mut can = 0;
    // SAFETY: writes one number; both devices exist.
    unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, from.context.cu_device(), to.context.cu_device()).result() }
        .map_err(failed("cuDeviceCanAccessPeer"))?;
    if can == 0 {
        return Ok(false);
    }
    for (mine, other) in [(to, from), (from, to)] {
        mine.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
        // SAFETY: contexts that live; the second call of a process says that it is so already.
        match unsafe { sys::cuCtxEnablePeerAccess(other.context.cu_ctx(), 0) } {
            sys::CUresult::CUDA_SUCCESS | sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => {}
            other => other.result().map_err(failed("cuCtxEnablePeerAccess"))?,
        }
    }
    Ok(true)
}

#[expect(unsafe_code, reason = "the driver's interface")]
fn send(from: &Gpu, source: u64, to: &Gpu, target: u64, bytes: u64) -> Result<(), Error> {
    from.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
    // SAFETY: both buffers are this long and live until the stream was waited for.
    unsafe {
        sys::cuMemcpyPeerAsync(
            target,
            to.context.cu_ctx(),
            source,
            from.context.cu_ctx(),
            bytes as usize,
            from.stream.cu_stream(),
        )
        .result()
    }
    .map_err(failed("cuMemcpyPeerAsync"))
}
