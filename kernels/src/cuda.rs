//! The proof on an NVIDIA GPU: `prefill_v2` of dense Qwen3- and Llama-shaped models in bf16 (`kernels/cuda/README.md`), the forward pass of
//! `transformer_v1` in half precision, and the burn-in.
//!
//! | box | module |
//! |---|---|
//! | decide: what a batch runs, as values | [`plan`] over [`shape`] and [`weights`] |
//! | decide: what that costs in launches and bytes | [`ledger`] |
//! | apply: carries a plan out | [`device`]; on a GPU `driver` |
//! | the scheme over it, of dense models and any other | [`round`], [`CudaPrefillV2`] |
//! | decide: what its times mean | [`bench`] |
//! | the same of experts in eight bits | [`moe`] |
//! | the retired scheme's forward pass | [`v1`] |
//! | what a GPU must do before it is trusted | [`burn`] |
//!
//! Nothing of CUDA is needed to build this: the driver and cuBLASLt are loaded when a GPU is asked for.

pub mod bench;
pub mod burn;
mod dense;
pub mod device;
pub mod driver;
mod error;
pub mod ledger;
pub mod moe;
pub mod plan;
pub mod round;
pub mod shape;
pub mod v1;
pub mod weights;

pub use dense::CudaPrefillV2;
pub use device::Device;
pub use error::{Error, OLDEST_DRIVER};
pub use shape::{MAX_K_DIM, MAX_ROWS, MAX_SEQ_LEN, Shape};
pub use weights::Layout;
