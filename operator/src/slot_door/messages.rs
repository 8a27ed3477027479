//! Steps of a decision as messages of an operator door. Pure.

use proto::v1::{DemoteRequest, PromoteRequest, RehearseRequest, Resume, SlotKey, StartRequest};

use super::Target;
use crate::model_deployment::observed::Start;
use crate::model_deployment::{Demote, Promote, Rehearse};

/// Opens a chain door.
pub fn promote(target: &Target, step: &Promote) -> PromoteRequest {
    PromoteRequest {
        key: Some(key(target, step.slot, step.generation)),
        node_id: step.node_id.clone(),
        node_num: step.node_num,
        callback_base: step.callback_base.clone(),
        running: step.running.as_ref().map(start),
        resume: step
            .resume
            .iter()
            .map(|(group, next_index)| Resume {
                group: *group,
                next_index: *next_index,
            })
            .collect(),
    }
}

/// Closes a chain door.
pub fn demote(target: &Target, step: &Demote) -> DemoteRequest {
    DemoteRequest {
        key: Some(key(target, step.slot, step.generation)),
        drain_millis: step.drain_millis,
        superseded: step.superseded,
    }
}

/// Asks for a rehearsal.
pub fn rehearse(target: &Target, step: &Rehearse) -> RehearseRequest {
    RehearseRequest {
        key: Some(key(target, step.slot, step.generation)),
        round: Some(start(&step.round)),
        nonces: step.nonces.clone(),
    }
}

fn key(target: &Target, slot: i32, generation: i64) -> SlotKey {
    SlotKey {
        slot,
        generation,
        ..target.key()
    }
}

fn start(start: &Start) -> StartRequest {
    StartRequest {
        height: start.height,
        seed: start.seed.clone(),
        public_key: start.public_key.clone(),
        node_num: start.node_num,
        node_count: start.node_count,
        model: start.model.clone(),
        seq_len: start.seq_len,
        k_dim: start.k_dim,
        batch_size: start.batch_size,
        stronger_rng: start.stronger_rng,
        callback_url: start.callback_url.clone(),
        scheme: start.scheme.clone(),
    }
}
