//! Box 2 and 4: client of a network node (DAPI): its admin API (9200) and its public API (9000).
//!
//! Shapes are those of the recordings in `e2e/network-simulator/tests/recorded`: numbers may be strings, zeros are left out, lists come in
//! random order, `state` may be null, answers of writes lack `node_num` and `state`. Bodies and times are bounded. The
//! configuration (`/admin/v1/config`) holds secrets and is never read here.

pub mod answers;
mod client;

pub use answers::{
    ArtifactState, Check, CheckStatus, Hardware, Latest, ModelArgs, NodeSpec, NodeState, Registered, SetupReport,
};
pub use client::{Client, Endpoint, Error, check_endpoint};
