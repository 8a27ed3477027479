//! One exam with the heights its record depends on. Pure.

use crds::SprintRunSpec;
use crds::references::{ExamKind, UidReference};
use crds::sprint_schedule::ChainParameters;
use serde::{Deserialize, Serialize};

use crate::facts::{Exam, Facts};

/// One exam of one network.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Examined {
    /// Sprint or Confirmation.
    pub kind: ExamKind,
    /// Epoch it belongs to.
    pub epoch: i64,
    /// What queries and requests call it by: the Sprint's start or the confirmation's trigger.
    pub trigger_height: i64,
    /// First height of generation.
    pub start_height: i64,
    /// Blocks of generation.
    pub blocks: i64,
    /// Validators photograph the early share.
    pub photo_height: i64,
    /// No commit counts any more; samples are recomputed.
    pub validation_start_height: i64,
    /// Votes are in.
    pub validation_end_height: i64,
    /// Weight, or the confirmation's reading, stands on the chain.
    pub weighed_height: i64,
    /// Block hash as received; empty until known.
    pub seed: String,
    /// DAPI node ids left on inference.
    pub preserved: Vec<String>,
}

/// How far an exam is, as its record sees it. Each step brings more evidence.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Phase {
    /// Announced or generating.
    #[default]
    Generating,
    /// Commits are final.
    Committed,
    /// Votes are in.
    Voted,
    /// Weight stands.
    Weighed,
    /// The reward of its epoch is settled.
    Settled,
    /// Whatever is not known by now will not be: the next epoch but one has begun.
    Expired,
}

impl Examined {
    /// An announced or running exam.
    pub fn of(exam: &Exam, epoch: i64, parameters: &ChainParameters) -> Self {
        let mut examined = Self::by_heights(exam.kind, exam.trigger_height, exam.generation_start_height, parameters);
        examined.epoch = epoch;
        examined.seed.clone_from(&exam.seed);
        examined.preserved.clone_from(&exam.preserved_node_ids);
        examined
    }

    /// The exam of a record made before.
    pub fn of_spec(spec: &SprintRunSpec, parameters: &ChainParameters) -> Self {
        let mut examined = Self::by_heights(spec.kind, spec.trigger_height, spec.poc_start_height, parameters);
        examined.epoch = spec.epoch;
        examined.seed.clone_from(&spec.seed);
        examined
    }

    fn by_heights(kind: ExamKind, trigger_height: i64, start_height: i64, parameters: &ChainParameters) -> Self {
        // A confirmation's stages count their last block, a Sprint's the block after it.
        let last = start_height + parameters.poc_stage_duration - i64::from(kind != ExamKind::Sprint);
        let validation_start_height = last + parameters.poc_exchange_duration + parameters.poc_validation_delay;
        let validation_end_height = validation_start_height + parameters.poc_validation_duration;
        Self {
            kind,
            trigger_height,
            start_height,
            blocks: parameters.poc_stage_duration,
            photo_height: start_height + parameters.poc_stage_duration / 3,
            validation_start_height,
            validation_end_height,
            weighed_height: validation_end_height + parameters.set_new_validators_delay,
            ..Self::default()
        }
    }

    /// The spec of its record.
    pub fn spec(&self, host: UidReference) -> SprintRunSpec {
        SprintRunSpec {
            host_ref: host,
            kind: self.kind,
            poc_start_height: self.start_height,
            trigger_height: self.trigger_height,
            seed: self.seed.clone(),
            epoch: self.epoch,
        }
    }

    /// Name of its record.
    pub fn name(&self, host: &str) -> String {
        run_name(host, self.kind, self.trigger_height)
    }

    /// How far it is. Each phase begins one block late: what a block brings can be asked for once it is there.
    pub fn phase(&self, facts: &Facts) -> Phase {
        let settled = facts
            .heights
            .as_ref()
            .map_or(i64::MAX, |heights| heights.validation_end_height);
        if facts.epoch > self.epoch + 1 {
            Phase::Expired
        } else if facts.epoch == self.epoch + 1 && facts.height > settled {
            Phase::Settled
        } else if facts.height > self.weighed_height {
            Phase::Weighed
        } else if facts.height > self.validation_end_height {
            Phase::Voted
        } else if facts.height > self.validation_start_height {
            Phase::Committed
        } else {
            Phase::Generating
        }
    }

    /// Whether commits queried now are those of the photo: in its block or the one after.
    pub fn is_photo_time(&self, height: i64) -> bool {
        (self.photo_height..=self.photo_height + 1).contains(&height)
    }
}

/// Name of a record: `<host>-{s|c|x}-<height>`.
pub fn run_name(host: &str, kind: ExamKind, trigger_height: i64) -> String {
    let letter = match kind {
        ExamKind::Sprint => 's',
        ExamKind::Confirmation => 'c',
        ExamKind::Challenge | ExamKind::Unknown => 'x',
    };
    format!("{host}-{letter}-{trigger_height}")
}

#[cfg(test)]
mod tests {
    use crds::sprint_schedule::StageHeights;
    use rstest::rstest;

    use super::*;

    fn recorded() -> ChainParameters {
        ChainParameters {
            epoch_length: 100,
            poc_stage_duration: 12,
            poc_validation_delay: 3,
            poc_validation_duration: 16,
            set_new_validators_delay: 4,
            ..ChainParameters::default()
        }
    }

    #[test]
    fn heights_are_those_of_the_recorded_exams() {
        let sprint = Examined::by_heights(ExamKind::Sprint, 145, 145, &recorded());
        assert_eq!(
            (
                sprint.photo_height,
                sprint.validation_start_height,
                sprint.validation_end_height
            ),
            (149, 160, 176)
        );
        let confirmation = Examined::by_heights(ExamKind::Confirmation, 180, 182, &recorded());
        assert_eq!(
            (confirmation.validation_start_height, confirmation.validation_end_height),
            (196, 212)
        );
    }

    #[rstest]
    #[case(2, 160, 176, Phase::Generating)]
    #[case(2, 161, 176, Phase::Committed)]
    #[case(2, 177, 176, Phase::Voted)]
    #[case(2, 181, 176, Phase::Weighed)]
    #[case(3, 250, 276, Phase::Weighed)]
    #[case(3, 277, 276, Phase::Settled)]
    #[case(4, 345, 376, Phase::Expired)]
    fn a_record_moves_on_with_the_chain(
        #[case] epoch: i64,
        #[case] height: i64,
        #[case] end: i64,
        #[case] phase: Phase,
    ) {
        let mut sprint = Examined::by_heights(ExamKind::Sprint, 145, 145, &recorded());
        sprint.epoch = 2;
        let heights = Some(StageHeights {
            validation_end_height: end,
            ..StageHeights::default()
        });
        assert_eq!(
            sprint.phase(&Facts {
                height,
                epoch,
                heights,
                ..Facts::default()
            }),
            phase
        );
    }

    #[test]
    fn names_tell_host_kind_and_height() {
        assert_eq!(run_name("ours", ExamKind::Sprint, 145), "ours-s-145");
        assert_eq!(run_name("ours", ExamKind::Confirmation, 180), "ours-c-180");
        assert_eq!(run_name("ours", ExamKind::Challenge, 9), "ours-x-9");
    }
}
