//! One round as asked for: by DAPI's `init/generate`, by the operator's `promote`, or by the journal.

use proto::v1::StartRequest;
use serde::{Deserialize, Serialize};

/// What a round computes and where its artifacts go. Hash and key are kept as received, case included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundRequest {
    /// `block_height`; in a confirmation the trigger height, while the hash is of another block.
    pub height: i64,
    /// `block_hash`.
    pub seed: String,
    /// The prover's key.
    pub public_key: String,
    /// `node_id` of the request.
    pub node_num: i32,
    /// `node_count` of the request.
    pub node_count: i32,
    /// `params.model`.
    pub model: String,
    /// `params.seq_len`.
    pub seq_len: i32,
    /// `params.k_dim`.
    pub k_dim: i32,
    /// Artifacts per engine batch.
    pub batch_size: u32,
    /// `poc_stronger_rng`.
    pub stronger_rng: bool,
    /// `url`, verbatim; empty when the request had none.
    pub callback_url: String,
    /// Proof scheme.
    pub scheme: String,
}

/// What makes two requests the same exam of the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundKey {
    /// `block_height`.
    pub height: i64,
    /// `block_hash`.
    pub seed: String,
    /// `node_id`.
    pub node_num: i32,
}

impl RoundRequest {
    /// Its identity.
    pub fn key(&self) -> RoundKey {
        RoundKey {
            height: self.height,
            seed: self.seed.clone(),
            node_num: self.node_num,
        }
    }
}

impl From<RoundRequest> for StartRequest {
    fn from(request: RoundRequest) -> Self {
        let RoundRequest {
            height,
            seed,
            public_key,
            node_num,
            node_count,
            model,
            seq_len,
            k_dim,
            batch_size,
            stronger_rng,
            callback_url,
            scheme,
        } = request;
        Self {
            height,
            seed,
            public_key,
            node_num,
            node_count,
            model,
            seq_len,
            k_dim,
            batch_size,
            stronger_rng,
            callback_url,
            scheme,
        }
    }
}

impl From<StartRequest> for RoundRequest {
    fn from(request: StartRequest) -> Self {
        let StartRequest {
            height,
            seed,
            public_key,
            node_num,
            node_count,
            model,
            seq_len,
            k_dim,
            batch_size,
            stronger_rng,
            callback_url,
            scheme,
        } = request;
        Self {
            height,
            seed,
            public_key,
            node_num,
            node_count,
            model,
            seq_len,
            k_dim,
            batch_size,
            stronger_rng,
            callback_url,
            scheme,
        }
    }
}
