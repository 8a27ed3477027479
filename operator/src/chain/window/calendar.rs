//! The windows of the days to come. Pure. Surprises (confirmations, challenges) cannot be in it; what is planned is.

use crds::references::{ExamKind, Window};
use crds::sprint_schedule::StageHeights;
use serde::{Deserialize, Serialize};

use super::{Inputs, freeze};
use crate::chain::answers::Vote;
use crate::chain::heights::{self, confirmation_clear, confirmation_triggers};
use crate::facts::Facts;

/// Heights of one window, both ends included.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interval {
    /// The window.
    pub window: Window,
    /// First height.
    pub from_height: i64,
    /// Last height.
    pub until_height: i64,
    /// The proposal it hangs on; absent when it is certain.
    pub if_passed: Option<i64>,
}

/// Windows of the next `millis`, as facts have them; none while the window is `Unknown`.
pub fn ahead(facts: &Facts, ready_by_millis: i64, millis: i64, most: usize) -> Vec<Interval> {
    let (Some(stages), Some(parameters), Some(blocks)) =
        (&facts.heights, &facts.parameters, facts.pace.blocks_for(millis))
    else {
        return Vec::new();
    };
    if facts.window == Window::Unknown {
        return Vec::new();
    }
    let inputs = Inputs {
        height: facts.height,
        stages,
        parameters,
        confirmation: facts.exam.as_ref().filter(|exam| exam.kind == ExamKind::Confirmation),
        confirmation_known_at: Some(facts.height),
        upgrade_height: facts.upgrade.as_ref().map(|plan| plan.height),
        pace: facts.pace,
        ready_by_millis,
    };
    calendar(&inputs, &facts.votes, facts.height.saturating_add(blocks), most)
}

/// Windows from the one at `inputs.height` (from its own beginning) until `until_height`, ascending and without gaps, at most
/// `most` of them. Later epochs are taken to have this one's parameters. Upgrades that are voted on freeze what is left between
/// exams, marked as uncertain.
pub fn calendar(inputs: &Inputs<'_>, votes: &[Vote], until_height: i64, most: usize) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = Vec::new();
    let mut stages = inputs.stages.clone();
    if inputs.parameters.epoch_length <= 0 {
        return intervals;
    }
    while stages.poc_start_height <= until_height && intervals.len() <= most {
        for interval in epoch(inputs, votes, &stages) {
            push(&mut intervals, interval);
        }
        stages = heights::stages(stages.next_poc_start_height, inputs.parameters);
    }
    intervals.retain(|interval| interval.until_height >= inputs.height && interval.from_height <= until_height);
    intervals.truncate(most);
    intervals
}

/// Neighbours of the same window are one.
fn push(intervals: &mut Vec<Interval>, interval: Interval) {
    if interval.from_height > interval.until_height {
        return;
    }
    match intervals.last_mut() {
        Some(last) if (last.window, last.if_passed) == (interval.window, interval.if_passed) => {
            last.until_height = interval.until_height;
        }
        _ => intervals.push(interval),
    }
}

/// One epoch from its Sprint to the next.
fn epoch(inputs: &Inputs<'_>, votes: &[Vote], stages: &StageHeights) -> Vec<Interval> {
    let (first_trigger, last_trigger) = confirmation_triggers(stages, inputs.parameters);
    let next = stages.next_poc_start_height;
    let green_end = inputs
        .pace
        .blocks_for(inputs.ready_by_millis)
        .map_or(last_trigger, |blocks| next - blocks.max(1))
        .min(next - 1);
    // Each entry begins where the one before it ends; the last one ends with the epoch.
    let amber_from = first_trigger.clamp(stages.validation_end_height, next);
    let green_from = (last_trigger + 1).clamp(amber_from, next);
    let late_from = (green_end + 1).clamp(green_from, next);
    let starts = [
        (Window::Sprint, stages.poc_start_height),
        (Window::Validation, stages.generation_end_height),
        (Window::Green, stages.validation_end_height),
        (Window::Amber, amber_from),
        (Window::Green, green_from),
        (Window::Amber, late_from),
    ];
    let ends = starts.iter().skip(1).map(|(_, from)| *from).chain([next]);
    let plain = starts.iter().zip(ends).map(|((window, from), end)| Interval {
        window: *window,
        from_height: *from,
        until_height: end - 1,
        if_passed: None,
    });
    let confirmation = inputs
        .confirmation
        .map(|exam| (exam.trigger_height, confirmation_clear(exam, inputs.parameters) - 1));
    let frozen = |height: Option<i64>| freeze(inputs.parameters, height);
    let mut intervals: Vec<Interval> = plain
        .flat_map(|interval| laid_over(interval, Window::UpgradeFreeze, frozen(inputs.upgrade_height), None))
        .flat_map(|interval| laid_over(interval, Window::Confirmation, confirmation, None))
        .collect();
    for vote in votes {
        let over = |interval: Interval| match interval.window {
            Window::UpgradeFreeze => vec![interval],
            _ => laid_over(
                interval,
                Window::UpgradeFreeze,
                frozen(Some(vote.height)),
                Some(vote.proposal),
            ),
        };
        intervals = intervals.into_iter().flat_map(over).collect();
    }
    intervals
}

/// `window` takes its heights from windows between exams; exams go before it.
fn laid_over(interval: Interval, window: Window, heights: Option<(i64, i64)>, if_passed: Option<i64>) -> Vec<Interval> {
    let between_exams = matches!(interval.window, Window::Green | Window::Amber | Window::UpgradeFreeze);
    let Some((first, last)) = heights.filter(|_| between_exams) else {
        return vec![interval];
    };
    let (first, last) = (first.max(interval.from_height), last.min(interval.until_height));
    if first > last {
        return vec![interval];
    }
    let kept = |from_height, until_height| Interval {
        from_height,
        until_height,
        ..interval
    };
    let laid = Interval {
        window,
        from_height: first,
        until_height: last,
        if_passed,
    };
    [
        kept(interval.from_height, first - 1),
        laid,
        kept(last + 1, interval.until_height),
    ]
    .into_iter()
    .filter(|part| part.from_height <= part.until_height)
    .collect()
}

#[cfg(test)]
mod tests;
