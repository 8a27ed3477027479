//! Facts to a frame. Pure.

use crds::references::{ExamKind, Stage, Window};
use crds::sprint_schedule::StageHeights;
use proto::v1;

use crate::facts::{Exam, Facts};

/// A frame of these facts, without source and sequence.
pub fn frame(facts: &Facts) -> v1::Frame {
    v1::Frame {
        chain_id: facts.chain_id.clone(),
        height: facts.height,
        block_hash: facts.block_hash.clone(),
        block_time_ms: facts.block_time_ms,
        observed_ms: facts.observed_ms,
        endpoints_agreeing: facts.agreeing,
        stage: stage(facts.stage).into(),
        epoch: facts.epoch,
        heights: facts.heights.as_ref().map(heights),
        predictions: predictions(facts),
        exam: facts.exam.as_ref().map(notice),
        window: window(facts.window).into(),
        green_until_height: facts.green_until_height.unwrap_or_default(),
        parameters_hash: facts.parameters_hash.clone(),
        ..v1::Frame::default()
    }
}

fn stage(stage: Stage) -> v1::Stage {
    match stage {
        Stage::Inference => v1::Stage::Inference,
        Stage::SprintGeneration => v1::Stage::SprintGeneration,
        Stage::SprintWindDown => v1::Stage::SprintWindDown,
        Stage::SprintExchange => v1::Stage::SprintExchange,
        Stage::SprintValidation => v1::Stage::SprintValidation,
        Stage::SprintSettling => v1::Stage::SprintSettling,
        Stage::Unknown => v1::Stage::Unknown,
    }
}

fn window(window: Window) -> v1::Window {
    match window {
        Window::Green => v1::Window::Green,
        Window::Amber => v1::Window::Amber,
        Window::Confirmation => v1::Window::Confirmation,
        Window::Sprint => v1::Window::Sprint,
        Window::Validation => v1::Window::Validation,
        Window::UpgradeFreeze => v1::Window::UpgradeFreeze,
        Window::Challenge => v1::Window::Challenge,
        Window::Unknown => v1::Window::Unknown,
    }
}

fn heights(heights: &StageHeights) -> v1::StageHeights {
    v1::StageHeights {
        poc_start: heights.poc_start_height,
        early_share: heights.early_share_height,
        wind_down: heights.wind_down_height,
        generation_end: heights.generation_end_height,
        validation_start: heights.validation_start_height,
        validation_wind_down: heights.validation_wind_down_height,
        validation_end: heights.validation_end_height,
        set_new_validators: heights.set_new_validators_height,
        claim: heights.claim_height,
        inference_cutoff: heights.inference_cutoff_height,
        next_poc_start: heights.next_poc_start_height,
    }
}

/// What is still ahead of this epoch.
fn predictions(facts: &Facts) -> Vec<v1::Prediction> {
    let Some(heights) = &facts.heights else {
        return Vec::new();
    };
    [
        heights.early_share_height,
        heights.wind_down_height,
        heights.generation_end_height,
        heights.validation_start_height,
        heights.validation_end_height,
        heights.inference_cutoff_height,
        heights.next_poc_start_height,
    ]
    .into_iter()
    .filter(|height| *height > facts.height)
    .filter_map(|height| {
        let prediction = facts.predict(height)?;
        Some(v1::Prediction {
            height,
            time_ms: prediction.time_ms,
            error_ms: prediction.error_ms,
        })
    })
    .collect()
}

fn notice(exam: &Exam) -> v1::ExamNotice {
    let kind = match exam.kind {
        ExamKind::Sprint => v1::ExamKind::Sprint,
        ExamKind::Confirmation => v1::ExamKind::Confirmation,
        ExamKind::Challenge => v1::ExamKind::Challenge,
        ExamKind::Unknown => v1::ExamKind::Unknown,
    };
    v1::ExamNotice {
        kind: kind.into(),
        trigger_height: exam.trigger_height,
        generation_start_height: exam.generation_start_height,
        generation_end_height: exam.generation_end_height,
        validation_start_height: exam.validation_start_height,
        seed: exam.seed.clone(),
        preserved_node_ids: exam.preserved_node_ids.clone(),
    }
}
