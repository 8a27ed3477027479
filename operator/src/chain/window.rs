//! The network-wide window at a height (architecture: the Window Gate). Pure. Absence of information is never permission.

pub mod calendar;

use crds::references::Window;
use crds::sprint_schedule::{ChainParameters, StageHeights};

use super::heights::{confirmation_clear, confirmation_triggers};
use crate::facts::{Exam, Pace};

/// What the window is computed from. Everything here is agreed by a quorum and fresh; else there is no value at all.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Present height.
    pub height: i64,
    /// Stages of the present epoch.
    pub stages: &'a StageHeights,
    /// Parameters of the present epoch.
    pub parameters: &'a ChainParameters,
    /// The confirmation that is announced or not cleared yet.
    pub confirmation: Option<&'a Exam>,
    /// Newest height at which a quorum said whether there is a confirmation.
    pub confirmation_known_at: Option<i64>,
    /// Height of an upgrade that is planned or was just done.
    pub upgrade_height: Option<i64>,
    /// Pace of blocks.
    pub pace: Pace,
    /// `margins.readyBySeconds`, milliseconds.
    pub ready_by_millis: i64,
}

/// A window and when it changes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clearance {
    /// The window.
    pub window: Window,
    /// Last Green height; absent outside Green.
    pub green_until_height: Option<i64>,
    /// First height of the next Green; absent in Green and while it cannot be told.
    pub next_green_height: Option<i64>,
}

/// The window at `inputs.height`; `Unknown` without inputs.
pub fn clearance(inputs: Option<&Inputs<'_>>) -> Clearance {
    let Some(inputs) = inputs else {
        return Clearance::default();
    };
    let window = window(inputs);
    if window == Window::Unknown {
        return Clearance::default();
    }
    let greens = greens(inputs);
    let now = greens
        .iter()
        .find(|(first, last)| (*first..=*last).contains(&inputs.height));
    Clearance {
        window,
        green_until_height: now.filter(|_| window == Window::Green).map(|(_, last)| *last),
        next_green_height: greens
            .iter()
            .map(|(first, _)| *first)
            .find(|first| window != Window::Green && *first > inputs.height),
    }
}

fn window(inputs: &Inputs<'_>) -> Window {
    let (height, stages) = (inputs.height, inputs.stages);
    if height < stages.poc_start_height || height >= stages.next_poc_start_height {
        return Window::Unknown;
    }
    // A Sprint follows from heights alone: no further answer is needed to forbid.
    if (stages.poc_start_height..stages.generation_end_height).contains(&height) {
        return Window::Sprint;
    }
    if (stages.generation_end_height..stages.validation_end_height).contains(&height) {
        return Window::Validation;
    }
    if inputs.confirmation.is_some() {
        return Window::Confirmation;
    }
    if !confirmation_known(inputs) {
        return Window::Unknown;
    }
    if freeze(inputs.parameters, inputs.upgrade_height).is_some_and(|(first, last)| (first..=last).contains(&height)) {
        return Window::UpgradeFreeze;
    }
    let green = greens(inputs)
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&height));
    if green { Window::Green } else { Window::Amber }
}

/// An answer of ten blocks ago, or of 30 s, still tells: a confirmation gives two blocks of notice anyway. Once none can be
/// announced any more, the answer must include the last height at which one could.
fn confirmation_known(inputs: &Inputs<'_>) -> bool {
    let Some(known_at) = inputs.confirmation_known_at else {
        return false;
    };
    let age = inputs.height - known_at;
    let recent = age <= 10 || (inputs.pace.block_millis > 0.0 && age as f64 * inputs.pace.block_millis <= 30_000.0);
    let (_, last_trigger) = confirmation_triggers(inputs.stages, inputs.parameters);
    recent && (inputs.height <= last_trigger || known_at >= last_trigger)
}

/// Heights around an upgrade, both ends included.
fn freeze(parameters: &ChainParameters, upgrade_height: Option<i64>) -> Option<(i64, i64)> {
    let margin = parameters.upgrade_protection_window;
    upgrade_height.map(|height| (height.saturating_sub(margin), height.saturating_add(margin)))
}

/// Green intervals of this epoch and the first of the next, ascending, both ends included.
fn greens(inputs: &Inputs<'_>) -> Vec<(i64, i64)> {
    let stages = inputs.stages;
    let (first_trigger, last_trigger) = confirmation_triggers(stages, inputs.parameters);
    let settling = (stages.validation_end_height, first_trigger - 1);
    let mut before_sprint = inputs.pace.blocks_for(inputs.ready_by_millis).map(|blocks| {
        (
            first_trigger.max(last_trigger + 1),
            stages.next_poc_start_height - blocks.max(1),
        )
    });
    if let (Some((first, _)), Some(exam)) = (&mut before_sprint, inputs.confirmation) {
        *first = (*first).max(confirmation_clear(exam, inputs.parameters));
    }
    let next_settling = (
        settling.0 + inputs.parameters.epoch_length,
        settling.1 + inputs.parameters.epoch_length,
    );
    let mut greens: Vec<(i64, i64)> = Vec::new();
    for (first, last) in [Some(settling), before_sprint, Some(next_settling)]
        .into_iter()
        .flatten()
    {
        if first > last {
            continue;
        }
        match greens.last_mut() {
            // Where no confirmation fits into the epoch, both intervals are one.
            Some((_, end)) if *end + 1 >= first => *end = (*end).max(last),
            _ => greens.push((first, last)),
        }
    }
    match freeze(inputs.parameters, inputs.upgrade_height) {
        Some(frozen) => greens.into_iter().flat_map(|green| without(green, frozen)).collect(),
        None => greens,
    }
}

fn without((first, last): (i64, i64), (frozen_first, frozen_last): (i64, i64)) -> Vec<(i64, i64)> {
    if frozen_last < first || frozen_first > last {
        return vec![(first, last)];
    }
    [
        (first, frozen_first.saturating_sub(1)),
        (frozen_last.saturating_add(1), last),
    ]
    .into_iter()
    .filter(|(from, to)| from <= to)
    .collect()
}

#[cfg(test)]
mod tests;
