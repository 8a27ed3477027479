//! Why something cannot be computed on a GPU. The four a person meets first say which of driver, device, version or memory it is.

use super::shape::{MAX_K_DIM, MAX_ROWS, MAX_SEQ_LEN};
use thiserror::Error;

/// Oldest driver that runs the kernels: CUDA 13.0 (release 580).
pub const OLDEST_DRIVER: i32 = 13_000;

/// Why the GPU does not do what it was asked.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum Error {
    /// No driver library on the loader's path.
    #[error("no NVIDIA driver: libcuda.so.1 is not found; run where the driver is installed and the container has it")]
    NoDriver,
    /// A driver, and no GPU that this process may use.
    #[error("the NVIDIA driver shows no GPU: {0}; check that the pod was granted one")]
    NoDevice(String),
    /// A driver from before the kernels.
    #[error(
        "the NVIDIA driver runs CUDA up to {}.{}: at least {}.{} is needed (release 580)",
        have / 1000, have % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10
    )]
    OldDriver {
        /// Its CUDA version, 1000 × major + 10 × minor.
        have: i32,
    },
    /// Weights and buffers do not fit.
    #[error(
        "{needed} bytes of GPU memory are needed and {free} are free: use a smaller batch or a shorter sequence, or a GPU that nothing else uses"
    )]
    Memory {
        /// Weights and buffers together.
        needed: u64,
        /// What the device said was free; nothing was allocated.
        free: u64,
    },
    /// No cuBLASLt on the loader's path.
    #[error(
        "no cuBLASLt: libcublasLt.so is not found; install the CUDA runtime's libraries or use an image that has them"
    )]
    NoGemm,
    /// The GPU is shared in a way that leaves a proof without its machine.
    #[error("GPU {uuid} is {how}: a proof takes a whole GPU; {remedy}")]
    Shared {
        /// Which.
        uuid: String,
        /// Cut by MIG, behind MPS, or another engine's.
        how: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A GPU without kernels.
    #[error("GPU of compute capability {major}.{minor}: 8.0 or newer is needed")]
    Capability {
        /// Major number.
        major: i32,
        /// Minor number.
        minor: i32,
    },
    /// A model these kernels do not run.
    #[error("model: {0}")]
    Shape(String),
    /// A round these kernels do not run.
    #[error("round: seq_len {seq_len} and k_dim {k_dim}: at most {MAX_SEQ_LEN} and {MAX_K_DIM} are computed on a GPU")]
    Round {
        /// Tokens asked for.
        seq_len: usize,
        /// Numbers of an artifact asked for.
        k_dim: usize,
    },
    /// A batch that no grid holds.
    #[error("batch: {rows} rows: at most {MAX_ROWS} are computed at a time; use fewer nonces a batch")]
    Rows {
        /// Nonces times tokens.
        rows: usize,
    },
    /// Weights that are not there or of another form.
    #[error("weights: {0}")]
    Weights(String),
    /// Batches in a row whose results were not finite.
    #[error(
        "{0} batches in a row were not finite: the engine needs to be replaced; check the GPU for memory errors (XID, ECC) and the weights' digest"
    )]
    NotFinite(u32),
    /// A call of the driver or of cuBLASLt failed.
    #[error("{call} failed: {cause}")]
    Call {
        /// Which.
        call: &'static str,
        /// What it said.
        cause: String,
    },
}
