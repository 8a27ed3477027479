//! Decide: when a round that nobody stops ends by itself, and when its last artifacts should hurry. Pure.

use crate::slot::serve::{request::RoundRequest, signal::View};

/// Blocks after validation start at which `stop` is overdue.
const GRACE_BLOCKS: i64 = 2;
/// Blocks before the end of generation from which artifacts leave at once.
const HURRY_BLOCKS: i64 = 2;

/// Heights of the stage a round belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// From this block on DAPI takes no artifacts.
    pub generation_end: i64,
    /// `stop` comes here.
    pub validation_start: i64,
}

/// The stage of a round, if the signal tells of it.
pub fn ends_of(request: &RoundRequest, view: &View) -> Option<Ends> {
    let notice = view.exam.as_ref().filter(|exam| {
        exam.trigger_height == request.height
            || exam.generation_start_height == request.height
            || (!exam.seed.is_empty() && exam.seed.eq_ignore_ascii_case(&request.seed))
    });
    let (generation_end, validation_start) = match (notice, &view.heights) {
        (Some(exam), _) => (exam.generation_end_height, exam.validation_start_height),
        (None, Some(heights)) if heights.poc_start == request.height => {
            (heights.generation_end, heights.validation_start)
        }
        _ => return None,
    };
    (generation_end > request.height && validation_start >= generation_end).then_some(Ends {
        generation_end,
        validation_start,
    })
}

/// Whether an active round is over though nobody said so.
pub fn is_overdue(started_ms: i64, ends: Option<Ends>, height: Option<i64>, now_ms: i64, stage_ms: i64) -> bool {
    match (ends, height) {
        (Some(ends), Some(height)) if height >= ends.validation_start + GRACE_BLOCKS => true,
        _ => now_ms - started_ms >= 2 * stage_ms,
    }
}

/// Whether generation is over on the chain: what is computed from now on counts nowhere.
pub fn is_over(ends: Option<Ends>, height: Option<i64>) -> bool {
    matches!((ends, height), (Some(ends), Some(height)) if height >= ends.generation_end)
}

/// Whether what waits must leave at once: what DAPI has not committed when generation ends is lost.
pub fn must_hurry(ends: Option<Ends>, height: Option<i64>) -> bool {
    matches!((ends, height), (Some(ends), Some(height))
        if height >= ends.generation_end - HURRY_BLOCKS && height <= ends.generation_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::serve::round::tests::request;
    use proto::v1::{ExamNotice, StageHeights};

    const ENDS: Ends = Ends {
        generation_end: 180,
        validation_start: 185,
    };

    fn view(exam: Option<ExamNotice>, heights: Option<StageHeights>) -> View {
        View {
            height: 150,
            block_hash: String::new(),
            seen_ms: 0,
            confirmed: true,
            exam,
            heights,
            first: (150, 0),
        }
    }

    fn notice(trigger: i64, start: i64, seed: &str) -> ExamNotice {
        ExamNotice {
            trigger_height: trigger,
            generation_start_height: start,
            generation_end_height: 180,
            validation_start_height: 185,
            seed: seed.into(),
            ..ExamNotice::default()
        }
    }

    #[test]
    fn a_round_knows_its_stage_by_height_by_trigger_or_by_seed() {
        let sprint = StageHeights {
            poc_start: 145,
            generation_end: 180,
            validation_start: 185,
            ..StageHeights::default()
        };
        for told in [
            view(None, Some(sprint)),
            view(Some(notice(145, 147, "")), None),
            view(Some(notice(0, 145, "")), None),
            view(Some(notice(1, 2, "052955f4")), None),
        ] {
            assert_eq!(ends_of(&request(), &told), Some(ENDS));
        }
        assert_eq!(ends_of(&request(), &view(Some(notice(1, 2, "ff")), None)), None);
        assert_eq!(ends_of(&request(), &view(None, None)), None);
    }

    #[test]
    fn heights_that_make_no_stage_are_not_believed() {
        let mut exam = notice(145, 147, "");
        exam.generation_end_height = 0;
        assert_eq!(ends_of(&request(), &view(Some(exam), None)), None);
    }

    #[test]
    fn a_round_ends_two_blocks_after_validation_start() {
        let overdue = |height| is_overdue(0, Some(ENDS), Some(height), 1_000, 186_000);
        assert!(!overdue(180) && !overdue(186));
        assert!(overdue(187));
    }

    #[test]
    fn without_signal_a_round_ends_after_twice_its_stage() {
        for (ends, height) in [
            (None, None),
            (Some(ENDS), None),
            (None, Some(1_000)),
            (Some(ENDS), Some(150)),
        ] {
            assert!(!is_overdue(1_000, ends, height, 372_999, 186_000));
            assert!(is_overdue(1_000, ends, height, 373_000, 186_000));
        }
    }

    #[test]
    fn the_last_blocks_of_generation_are_in_a_hurry() {
        let hurry: Vec<_> = (176..183)
            .filter(|height| must_hurry(Some(ENDS), Some(*height)))
            .collect();
        assert_eq!(hurry, [178, 179, 180]);
        assert!(!must_hurry(None, Some(179)) && !must_hurry(Some(ENDS), None));
    }
}
