//! What heights mean: stages of an epoch and of a confirmation. Pure; every number comes from the chain's parameters.

use crds::references::{ExamKind, Stage};
use crds::sprint_schedule::{ChainParameters, StageHeights};

use super::answers::Event;
use crate::facts::Exam;

/// Stage heights of the epoch whose Sprint begins at `poc_start`. Fractions are rounded down, as the chain does.
///
/// The early share is photographed after a third of the stage: DAPI's default, not a parameter of the chain.
pub fn stages(poc_start: i64, parameters: &ChainParameters) -> StageHeights {
    let generation_end = poc_start + parameters.poc_stage_duration;
    let validation_start = generation_end + parameters.poc_exchange_duration + parameters.poc_validation_delay;
    let validation_end = validation_start + parameters.poc_validation_duration;
    let set_new_validators = validation_end + parameters.set_new_validators_delay;
    let next = poc_start + parameters.epoch_length;
    StageHeights {
        poc_start_height: poc_start,
        early_share_height: poc_start + parameters.poc_stage_duration / 3,
        wind_down_height: poc_start + four_fifths(parameters.poc_stage_duration),
        generation_end_height: generation_end,
        validation_start_height: validation_start,
        validation_wind_down_height: validation_start + four_fifths(parameters.poc_validation_duration),
        validation_end_height: validation_end,
        set_new_validators_height: set_new_validators,
        claim_height: set_new_validators + 1,
        inference_cutoff_height: next - parameters.inference_validation_cutoff,
        next_poc_start_height: next,
    }
}

/// Epoch 0 has no Sprint: its stages are over before the first block, and only the next start means anything.
pub fn before_first_sprint(stages: &StageHeights) -> StageHeights {
    StageHeights {
        inference_cutoff_height: stages.inference_cutoff_height,
        next_poc_start_height: stages.next_poc_start_height,
        ..StageHeights::default()
    }
}

fn four_fifths(blocks: i64) -> i64 {
    blocks * 4 / 5
}

/// Stage at a height of this epoch; `Unknown` outside it.
pub fn stage(height: i64, stages: &StageHeights) -> Stage {
    if height < stages.poc_start_height || height >= stages.next_poc_start_height {
        Stage::Unknown
    } else if height < stages.wind_down_height {
        Stage::SprintGeneration
    } else if height < stages.generation_end_height {
        Stage::SprintWindDown
    } else if height < stages.validation_start_height {
        Stage::SprintExchange
    } else if height < stages.validation_end_height {
        Stage::SprintValidation
    } else if height < stages.set_new_validators_height {
        Stage::SprintSettling
    } else {
        Stage::Inference
    }
}

/// First and last height at which the chain may announce a confirmation; empty when first > last.
pub fn confirmation_triggers(stages: &StageHeights, parameters: &ChainParameters) -> (i64, i64) {
    let reach = parameters.inference_validation_cutoff
        + parameters.poc_stage_duration
        + parameters.poc_exchange_duration
        + parameters.poc_validation_delay
        + parameters.poc_validation_duration
        + parameters.set_new_validators_delay
        + parameters.confirmation_poc_safety_window;
    (stages.set_new_validators_height, stages.next_poc_start_height - reach)
}

/// The Sprint of this epoch as an exam.
pub fn sprint(stages: &StageHeights) -> Exam {
    Exam {
        kind: ExamKind::Sprint,
        trigger_height: stages.poc_start_height,
        generation_start_height: stages.poc_start_height,
        generation_end_height: stages.generation_end_height,
        validation_start_height: stages.validation_start_height,
        seed: String::new(),
        preserved_node_ids: Vec::new(),
    }
}

/// A confirmation as an exam. Its stages count their last block, unlike a Sprint's: generation of 12 blocks that starts at
/// 182 ends with 193, and validation starts with 196 after a delay of 3.
pub fn confirmation(event: &Event, parameters: &ChainParameters) -> Exam {
    let generation_end = event.generation_start_height + parameters.poc_stage_duration - 1;
    Exam {
        kind: ExamKind::Confirmation,
        trigger_height: event.trigger_height,
        generation_start_height: event.generation_start_height,
        generation_end_height: generation_end,
        validation_start_height: generation_end + parameters.poc_exchange_duration + parameters.poc_validation_delay,
        seed: event.seed.clone(),
        preserved_node_ids: Vec::new(),
    }
}

/// First height at which a confirmation is cleared.
pub fn confirmation_clear(exam: &Exam, parameters: &ChainParameters) -> i64 {
    exam.validation_start_height + parameters.poc_validation_duration + parameters.set_new_validators_delay
}
