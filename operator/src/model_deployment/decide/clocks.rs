//! Decide: what a finding about clocks, power or heat weighs, by when it was found. Pure.
//!
//! ```text
//!      P − 10 s                 P + 60 s                         generation ends
//!  ─────────┼──────────┼────────────┼──────────────────────────────────┼──────────►
//!   service │  ramp: says nothing   │ exam: after 30 s more            │ service
//! ```
//! Every GPU of a fleet goes to full load in the same second, and whole racks meet their caps, brakes and hot spots together: in
//! the first minute that tells of the load, not of a defect, and a slot that moved for it would lose what it was moved for. So
//! exams have thresholds of their own. What was found in the ramp moves nothing before generation ends, however long it stands.

use super::world::{ExamNow, World};
use crate::facts::Facts;
use crate::model_deployment::observed::ClockFinding;

/// When findings about clocks speak against a pod in an exam, milliseconds.
struct Thresholds {
    /// The ramp begins so long before the first block of generation.
    before: i64,
    /// And ends so long after it.
    after: i64,
    /// What is found later must stand for so long.
    sustained: i64,
}

/// In service they speak at once: the agent that reports them has waited for its own threshold.
const EXAM: Thresholds = Thresholds {
    before: 10_000,
    after: 60_000,
    sustained: 30_000,
};

/// How a finding is to be taken now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Weight {
    /// As the agent says.
    Counts,
    /// From a moment on, Unix milliseconds.
    From(i64),
    /// Not before generation ends.
    Waits,
}

/// Whether the finding speaks against a pod.
pub fn counts(world: &World<'_>, finding: &ClockFinding) -> bool {
    match weigh(world.exam.as_ref(), &world.seen.facts, finding.since_ms) {
        Weight::Counts => true,
        Weight::From(at) => world.seen.now_ms >= at,
        Weight::Waits => false,
    }
}

/// Moments at which a finding begins to count by the clock alone.
pub fn edges(world: &World<'_>) -> impl Iterator<Item = i64> {
    let machines = world.seen.machines.values();
    machines
        .flat_map(|machine| &machine.clock_findings)
        .filter_map(
            |finding| match weigh(world.exam.as_ref(), &world.seen.facts, finding.since_ms) {
                Weight::From(at) => Some(at),
                Weight::Counts | Weight::Waits => None,
            },
        )
}

/// `exam`: the one that generates now; `found`: Unix milliseconds.
fn weigh(exam: Option<&ExamNow>, facts: &Facts, found: i64) -> Weight {
    if let Some(exam) = exam {
        // Nobody knows when it began: all of it is ramp.
        return match exam.started_ms {
            Some(begin) if found < begin - EXAM.before => Weight::Counts,
            Some(begin) if found > begin + EXAM.after => Weight::From(found + EXAM.sustained),
            Some(_) | None => Weight::Waits,
        };
    }
    let announced = facts.exam.as_ref().map(|exam| exam.generation_start_height);
    let coming = announced.or_else(|| facts.next_poc_start());
    let begin = coming
        .filter(|start| facts.height < *start)
        .and_then(|start| facts.predict(start));
    match begin {
        Some(begin) if found >= begin.time_ms - EXAM.before => Weight::Waits,
        _ => Weight::Counts,
    }
}

#[cfg(test)]
mod tests {
    use crds::sprint_schedule::StageHeights;
    use rstest::rstest;

    use super::*;
    use crate::facts::{Exam, Pace};

    /// First block of generation, at one second a block.
    const START: i64 = 1_000;
    /// Blocks of generation.
    const BLOCKS: i64 = 188;

    fn facts(height: i64, exam: Option<i64>) -> Facts {
        Facts {
            height,
            block_time_ms: height * 1_000,
            pace: Pace {
                block_millis: 1_000.0,
                ..Pace::default()
            },
            heights: Some(StageHeights {
                poc_start_height: START,
                generation_end_height: START + BLOCKS,
                next_poc_start_height: START + 80_000,
                ..StageHeights::default()
            }),
            exam: exam.map(|start| Exam {
                trigger_height: start,
                generation_start_height: start,
                ..Exam::default()
            }),
            ..Facts::default()
        }
    }

    fn running(started_ms: Option<i64>) -> ExamNow {
        ExamNow {
            height: START,
            started_ms,
            preserved: Vec::new(),
        }
    }

    /// Seconds from the first block: now, and when it was found.
    #[rstest]
    #[case::long_before(-400, -500, Weight::Counts)]
    #[case::just_before_the_ramp(-5, -11, Weight::Counts)]
    #[case::in_its_first_second(-5, -10, Weight::Waits)]
    #[case::found_before_it_and_still_there(30, -11, Weight::Counts)]
    #[case::at_the_first_block(0, 0, Weight::Waits)]
    #[case::in_the_ramp_however_long_it_stands(187, 60, Weight::Waits)]
    #[case::late(91, 62, Weight::From((START + 92) * 1_000))]
    #[case::in_validation(200, 5, Weight::Counts)]
    #[case::long_after(900, 5, Weight::Counts)]
    fn a_finding_about_clocks_weighs_what_its_moment_says(
        #[case] now: i64,
        #[case] found: i64,
        #[case] weight: Weight,
    ) {
        let exam = (0..BLOCKS).contains(&now).then(|| running(Some(START * 1_000)));
        let facts = facts(START + now, (0..300).contains(&now).then_some(START));
        assert_eq!(weigh(exam.as_ref(), &facts, (START + found) * 1_000), weight);
    }

    #[test]
    fn the_ramp_of_a_confirmation_begins_ten_seconds_before_the_block_that_its_notice_names() {
        let height = START + 5_000;
        let facts = facts(height, Some(height + 9));
        assert_eq!(weigh(None, &facts, height * 1_000), Weight::Waits);
        assert_eq!(weigh(None, &facts, (height - 2) * 1_000), Weight::Counts);
    }

    #[test]
    fn an_exam_of_which_nobody_knows_the_beginning_is_ramp_from_end_to_end() {
        let facts = facts(START + 100, Some(START));
        assert_eq!(weigh(Some(&running(None)), &facts, START * 1_000), Weight::Waits);
        assert_eq!(weigh(Some(&running(None)), &facts, (START + 99) * 1_000), Weight::Waits);
    }
}
