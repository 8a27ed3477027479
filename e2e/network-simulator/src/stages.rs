//! Heights of an epoch's stages. Every number comes from the chain's parameters; fractions are rounded down as the
//! chain does.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

/// The chain parameters that place stages in time, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    pub epoch_length: i64,
    pub epoch_shift: i64,
    pub poc_stage_duration: i64,
    pub poc_exchange_duration: i64,
    pub poc_validation_delay: i64,
    pub poc_validation_duration: i64,
    pub set_new_validators_delay: i64,
    pub inference_validation_cutoff: i64,
    pub confirmation_poc_safety_window: i64,
}

/// Stage heights of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    pub epoch: u64,
    pub poc_start: i64,
    pub poc_generation_wind_down: i64,
    pub poc_generation_end: i64,
    pub poc_validation_start: i64,
    pub poc_validation_wind_down: i64,
    pub poc_validation_end: i64,
    pub set_new_validators: i64,
    pub claim_money: i64,
    pub inference_validation_cutoff: i64,
    pub next_poc_start: i64,
}

/// DAPI's name for where in an epoch a height lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, AsRefStr)]
pub enum Phase {
    Inference,
    PoCGenerate,
    PoCGenerateWindDown,
    PoCValidate,
    PoCValidateWindDown,
}

impl Lengths {
    /// Sprint start of an epoch; epoch 0 is the time before the first.
    pub fn poc_start(&self, epoch: u64) -> i64 {
        if epoch == 0 {
            return 0;
        }
        epoch as i64 * self.epoch_length - self.epoch_shift
    }

    /// All stages of an epoch.
    pub fn stages(&self, epoch: u64) -> Stages {
        let poc_start = self.poc_start(epoch);
        let next_poc_start = self.poc_start(epoch + 1);
        let poc_generation_end = poc_start + self.poc_stage_duration;
        let poc_validation_start = poc_generation_end + self.poc_exchange_duration + self.poc_validation_delay;
        let poc_validation_end = poc_validation_start + self.poc_validation_duration;
        let set_new_validators = poc_validation_end + self.set_new_validators_delay;
        Stages {
            epoch,
            poc_start,
            poc_generation_wind_down: poc_start + self.wind_down(),
            poc_generation_end,
            poc_validation_start,
            poc_validation_wind_down: poc_validation_start + four_fifths(self.poc_validation_duration),
            poc_validation_end,
            set_new_validators,
            claim_money: set_new_validators + 1,
            inference_validation_cutoff: next_poc_start - self.inference_validation_cutoff,
            next_poc_start,
        }
    }

    /// The newest epoch whose Sprint has begun at this height.
    pub fn latest_epoch(&self, height: i64) -> u64 {
        ((height + self.epoch_shift) / self.epoch_length).max(0) as u64
    }

    /// The epoch whose validators rule at this height: the index flips at `set_new_validators`.
    pub fn effective_epoch(&self, height: i64) -> u64 {
        let latest = self.latest_epoch(height);
        if latest > 0 && height < self.stages(latest).set_new_validators {
            latest - 1
        } else {
            latest
        }
    }

    /// Where in its epoch a height lies. Before the first Sprint everything is inference.
    pub fn phase(&self, height: i64) -> Phase {
        let epoch = self.latest_epoch(height);
        let stages = self.stages(epoch);
        if epoch == 0 || height >= stages.poc_validation_end {
            Phase::Inference
        } else if height >= stages.poc_validation_wind_down {
            Phase::PoCValidateWindDown
        } else if height >= stages.poc_validation_start {
            Phase::PoCValidate
        } else if height >= stages.poc_generation_wind_down {
            Phase::PoCGenerateWindDown
        } else {
            Phase::PoCGenerate
        }
    }

    /// Blocks from a stage's first until nothing is started any more.
    pub fn wind_down(&self) -> i64 {
        four_fifths(self.poc_stage_duration)
    }

    /// Blocks from a stage's first until the early share is photographed.
    pub fn photo(&self) -> i64 {
        self.poc_stage_duration / 3
    }

    /// Blocks that a confirmation and its safety window need before the next Sprint.
    pub fn confirmation_reach(&self) -> i64 {
        self.inference_validation_cutoff
            + self.poc_stage_duration
            + self.poc_exchange_duration
            + self.poc_validation_delay
            + self.poc_validation_duration
            + self.set_new_validators_delay
            + self.confirmation_poc_safety_window
    }

    /// First and last height at which the chain may announce a confirmation in an epoch; empty when first > last.
    pub fn confirmation_triggers(&self, epoch: u64) -> (i64, i64) {
        let stages = self.stages(epoch);
        (
            stages.set_new_validators,
            stages.next_poc_start - self.confirmation_reach(),
        )
    }
}

fn four_fifths(blocks: i64) -> i64 {
    blocks * 4 / 5
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The network of the recordings.
    const RECORDED: Lengths = Lengths {
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

    /// The main network since its version 0.2.10.
    const MAINNET: Lengths = Lengths {
        epoch_length: 15_391,
        epoch_shift: 0,
        poc_stage_duration: 35,
        poc_exchange_duration: 0,
        poc_validation_delay: 5,
        poc_validation_duration: 240,
        set_new_validators_delay: 120,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 500,
    };

    #[test]
    fn stages_of_the_recorded_epoch_2_are_those_recorded() {
        let expected = Stages {
            epoch: 2,
            poc_start: 145,
            poc_generation_wind_down: 154,
            poc_generation_end: 157,
            poc_validation_start: 160,
            poc_validation_wind_down: 172,
            poc_validation_end: 176,
            set_new_validators: 180,
            claim_money: 181,
            inference_validation_cutoff: 243,
            next_poc_start: 245,
        };
        assert_eq!(RECORDED.stages(2), expected);
        assert_eq!(RECORDED.photo(), 4, "the recorded early capture of stage 45 is at 49");
    }

    #[test]
    fn offsets_of_the_main_network_are_those_of_its_documentation() {
        let stages = MAINNET.stages(1);
        let offset = |height: i64| height - stages.poc_start;
        let all = [
            MAINNET.photo(),
            offset(stages.poc_generation_wind_down),
            offset(stages.poc_generation_end),
            offset(stages.poc_validation_start),
            offset(stages.poc_validation_wind_down),
            offset(stages.poc_validation_end),
            offset(stages.set_new_validators),
            offset(stages.claim_money),
            offset(stages.next_poc_start),
        ];
        assert_eq!(all, [11, 28, 35, 40, 232, 280, 400, 401, 15_391]);
        let (first, last) = MAINNET.confirmation_triggers(1);
        assert_eq!((offset(first), last), (400, stages.next_poc_start - 902));
    }

    #[rstest]
    #[case(44, 0, 0, Phase::Inference)]
    #[case(45, 1, 0, Phase::PoCGenerate)]
    #[case(80, 1, 1, Phase::Inference)]
    #[case(145, 2, 1, Phase::PoCGenerate)]
    #[case(154, 2, 1, Phase::PoCGenerateWindDown)]
    #[case(157, 2, 1, Phase::PoCGenerateWindDown)]
    #[case(160, 2, 1, Phase::PoCValidate)]
    #[case(172, 2, 1, Phase::PoCValidateWindDown)]
    #[case(176, 2, 1, Phase::Inference)]
    #[case(180, 2, 2, Phase::Inference)]
    fn phase_and_epoch_follow_the_height(
        #[case] height: i64,
        #[case] latest: u64,
        #[case] effective: u64,
        #[case] phase: Phase,
    ) {
        assert_eq!(RECORDED.latest_epoch(height), latest);
        assert_eq!(RECORDED.effective_epoch(height), effective);
        assert_eq!(RECORDED.phase(height), phase);
    }
}
