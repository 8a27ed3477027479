//! The proof of compute of the Gonka network, computed on the CPU for clarity.
//!
//! | step | module | section of `docs/poc-v2.md` |
//! |---|---|---|
//! | strings to seeds | [`seed`] | 2 Seeds |
//! | seeds to uniforms, normals, token ids | [`rng`] | 3 Random numbers |
//! | the model under examination | [`decoder`] | 4 Forward pass |
//! | reflection after every layer | [`householder`] | 4 Forward pass |
//! | hidden state to artifact | [`pick`], [`rotation`], [`artifact`] | 5 Artifact |
//! | which nonces a replica computes | [`nonces`] | 6 Nonces |
//! | comparing artifacts | [`statistics`] | 7 Validation |
//! | what the host commits to | [`commitment`] | 8 Commitment |
//! | all of it behind one interface | [`scheme`], [`prefill_v2`] | 1 Round |
//! | the same on a GPU | [`cuda`] | 4 Forward pass |
//! | mixtures of experts in eight bits | [`moe`], [`fp8`] | `docs/fp8-moe.md` |
//! | the retired scheme of `docs/poc-v1.md` | [`transformer_v1`] | |
//! | products, sums and elementary functions on vector units | `linear`, `vector`, `elementary` | 10 Cost of the reference |
//! | published vectors, checked | [`vectors`] | 9 Reference vectors |
//!
//! Everything here is a pure function of its arguments: no clock, no environment, no network.

#![warn(missing_docs)]

pub mod artifact;
pub mod commitment;
pub mod cuda;
pub mod decoder;
mod elementary;
pub mod fp8;
pub mod householder;
mod linear;
pub mod moe;
pub mod nonces;
pub mod pick;
pub mod prefill_v2;
pub mod rng;
pub mod rotation;
pub mod scheme;
pub mod seed;
pub mod statistics;
pub mod transformer_v1;
mod vector;
pub mod vectors;
