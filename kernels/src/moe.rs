//! Mixtures of experts in eight bits as the network's models compute them, on the CPU for clarity (`docs/fp8-moe.md`): the same pre-norm
//! decoder as [`crate::decoder`] with other products, another router and other norms of queries and keys.
//!
//! | what | how |
//! |---|---|
//! | projections of attention, experts | weights in E4M3 by blocks, activations quantised before each ([`crate::fp8`]), results in bf16 |
//! | router | single precision |
//! | embeddings, norms, residual stream, attention | bf16 as in [`crate::decoder`] |

mod attention;
mod layer;
mod router;
mod scheme;
mod shape;
mod weights;

pub use layer::{Model, Routed};
pub(crate) use router::parts as router_parts;
pub use router::{Scoring, choose, logits};
pub use scheme::MoePrefillV2;
pub use shape::{InvalidShape, QkNorm, Shape};
pub use weights::{Grown, Matrix, Repeated, Source};
