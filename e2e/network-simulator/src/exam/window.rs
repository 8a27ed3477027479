//! When an exam does what. A Sprint's stages are the epoch's; a confirmation's are counted from its own generation
//! start and end one block earlier, as recorded: with generation at 182 its validation began at 196 and ended at 212.

use crate::stages::{Lengths, Stages};
use strum::AsRefStr;

/// Which kind of exam.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsRefStr)]
pub enum Kind {
    Sprint,
    Confirmation,
}

/// Heights of one exam.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub kind: Kind,
    /// What requests and the chain's queries call the exam by: the Sprint's start or the confirmation's trigger.
    pub stage_height: i64,
    /// First block of generation.
    pub start: i64,
    pub photo: i64,
    /// From here on nothing is started any more.
    pub wind_down: i64,
    /// From here on artifacts are refused.
    pub generation_end: i64,
    /// Last block that takes a commit.
    pub last_commit: i64,
    pub validation_start: i64,
    pub validation_wind_down: i64,
    /// Votes are counted in this block.
    pub validation_end: i64,
}

/// What DAPI does with its nodes at a height of an exam.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Ask every node that does not generate to start.
    Start,
    /// Leave alone what runs.
    Hold,
    /// Have others' artifacts recomputed.
    Validate,
}

impl Window {
    pub fn sprint(lengths: &Lengths, stages: &Stages) -> Self {
        Self {
            kind: Kind::Sprint,
            stage_height: stages.poc_start,
            start: stages.poc_start,
            photo: stages.poc_start + lengths.photo(),
            wind_down: stages.poc_generation_wind_down,
            generation_end: stages.poc_generation_end,
            last_commit: stages.poc_generation_end + lengths.poc_exchange_duration,
            validation_start: stages.poc_validation_start,
            validation_wind_down: stages.poc_validation_wind_down,
            validation_end: stages.poc_validation_end,
        }
    }

    pub fn confirmation(lengths: &Lengths, trigger: i64) -> Self {
        let start = trigger + lengths.inference_validation_cutoff;
        let generation_end = start + lengths.poc_stage_duration;
        let last_commit = generation_end - 1 + lengths.poc_exchange_duration;
        let validation_start = last_commit + lengths.poc_validation_delay;
        Self {
            kind: Kind::Confirmation,
            stage_height: trigger,
            start,
            photo: start + lengths.photo(),
            wind_down: start + lengths.wind_down(),
            generation_end,
            last_commit,
            validation_start,
            validation_wind_down: validation_start + lengths.poc_validation_duration * 4 / 5,
            validation_end: validation_start + lengths.poc_validation_duration,
        }
    }

    /// Whether artifacts are taken while this is the newest block.
    pub fn generates(&self, height: i64) -> bool {
        (self.start..self.generation_end).contains(&height)
    }

    /// Whether a commit that is in this block counts.
    pub fn takes_commits(&self, height: i64) -> bool {
        height > self.start && height <= self.last_commit
    }

    /// Whether results of recomputation are taken while this is the newest block.
    pub fn validates(&self, height: i64) -> bool {
        (self.validation_start..self.validation_end).contains(&height)
    }

    pub fn duty(&self, height: i64) -> Duty {
        if height < self.wind_down {
            Duty::Start
        } else if height < self.validation_start {
            Duty::Hold
        } else {
            Duty::Validate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: Lengths = Lengths {
        epoch_length: 100,
        epoch_shift: 55,
        poc_stage_duration: 12,
        poc_exchange_duration: 0,
        poc_validation_delay: 3,
        poc_validation_duration: 16,
        set_new_validators_delay: 4,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 10,
    };

    #[test]
    fn the_recorded_confirmation_is_reproduced() {
        let window = Window::confirmation(&LENGTHS, 180);
        assert_eq!(
            (window.start, window.validation_start, window.validation_end),
            (182, 196, 212)
        );
        // Recorded: a callback at 193 was taken, one at 195 was not.
        assert!(window.generates(193) && !window.generates(194));
        assert!(!window.generates(181));
    }

    #[test]
    fn the_recorded_sprint_is_reproduced() {
        let window = Window::sprint(&LENGTHS, &LENGTHS.stages(2));
        assert_eq!((window.photo, window.wind_down, window.last_commit), (149, 154, 157));
        // Recorded: a callback at 156 was taken, one at 158 was not; dapi stopped and validated at 160.
        assert!(window.generates(156) && !window.generates(157));
        assert_eq!(
            [153, 154, 160].map(|height| window.duty(height)),
            [Duty::Start, Duty::Hold, Duty::Validate]
        );
        assert!(!window.takes_commits(145) && window.takes_commits(157) && !window.takes_commits(158));
    }
}
