//! Decide: when a round that nobody stops ends by itself, and when its last artifacts should hurry. Pure.

use crate::slot::serve::{request::RoundRequest, signal::View};
use proto::v1::{ExamKind, ExamNotice};

/// Blocks after validation start at which `stop` is overdue.
const GRACE_BLOCKS: i64 = 2;
/// A stage that the chain says is not over lasts this many times its length at most.
const LONGEST_STAGES: i64 = 10;
/// A source that was silent for longer says nothing of the chain's present.
const HEARD_MS: i64 = 20_000;
/// DAPI sends the count it has to the chain this often (`poc_commit_interval_seconds`), and nothing tells when.
const COMMIT_MS: i64 = 5_000;
/// Blocks from a commit's sending to the block it is in, at most.
const INCLUSION_BLOCKS: i64 = 2;
/// For what takes its time between two of them.
const SPARE_MS: i64 = 1_000;
/// A chain that makes no block for longer takes no commit either.
const STANDS_MS: i64 = 30_000;
/// Time between two blocks where nobody tells.
const USUAL_BLOCK_MS: i64 = 6_000;

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
    let notice = view.exam.as_ref().filter(|exam| is_about(exam, request));
    let (generation_end, validation_start) = match (notice, &view.heights) {
        (Some(exam), _) => (after_generation(exam), exam.validation_start_height),
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

/// The first block that takes no artifacts. A confirmation's notice names the last one that does, as the chain counts its
/// stages: with generation of 12 blocks at 182 a callback at 193 was recorded as taken. Nothing counts from 0.
fn after_generation(exam: &ExamNotice) -> i64 {
    let named = exam.generation_end_height;
    named + i64::from(named > 0 && exam.kind() == ExamKind::Confirmation)
}

/// Whether a notice is about a round's exam. Its hash may be written in another case.
fn is_about(exam: &ExamNotice, request: &RoundRequest) -> bool {
    exam.trigger_height == request.height
        || exam.generation_start_height == request.height
        || (!exam.seed.is_empty() && exam.seed.eq_ignore_ascii_case(&request.seed))
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

/// Whether the chain itself says that a round's stage is not over: blocks that stop coming end no round.
pub fn is_held_open(started_ms: i64, ends: Option<Ends>, view: Option<&View>, now_ms: i64, stage_ms: i64) -> bool {
    matches!((ends, view), (Some(ends), Some(view))
        if view.confirmed
            && view.height < ends.validation_start + GRACE_BLOCKS
            && now_ms - view.seen_ms < HEARD_MS
            && now_ms - started_ms < LONGEST_STAGES * stage_ms)
}

/// Whether the chain has reached the start of another, later exam: nobody stopped this round, and DAPI asks no node to start
/// that says it generates. A stage that is not over gives way to nothing.
pub fn is_superseded(request: &RoundRequest, ends: Option<Ends>, view: &View) -> bool {
    let notice = view.exam.as_ref();
    if !view.confirmed
        || notice.is_some_and(|exam| is_about(exam, request))
        || ends.is_some_and(|ends| view.height < ends.validation_start)
    {
        return false;
    }
    let sprint = view.heights.as_ref().map_or(0, |heights| heights.poc_start);
    [notice.map_or(0, |exam| exam.generation_start_height), sprint]
        .into_iter()
        .any(|start| start > request.height && view.height >= start)
}

/// Whether what waits should leave at once: an artifact counts when DAPI has it before it sends the last commit that still
/// gets into a block. When that is nobody knows, but it lies between these two times.
pub fn must_hurry(started_ms: i64, ends: Option<Ends>, view: Option<&View>, now_ms: i64, stage_ms: i64) -> bool {
    let (Some(ends), Some(view)) = (ends, view) else {
        return is_last(started_ms + stage_ms, USUAL_BLOCK_MS.min(stage_ms / 10), now_ms);
    };
    if let (Some(block_ms), Some(end_ms)) = (view.block_ms(), view.expected_ms(ends.generation_end)) {
        let stands = now_ms - view.since_ms > block_ms + STANDS_MS && now_ms - view.seen_ms < HEARD_MS;
        return !stands && is_last(end_ms, block_ms, now_ms);
    }
    (ends.generation_end - 2 * INCLUSION_BLOCKS..ends.generation_end).contains(&view.height)
        && now_ms - view.since_ms <= STANDS_MS
}

fn is_last(end_ms: i64, block_ms: i64, now_ms: i64) -> bool {
    let lead_ms = COMMIT_MS + INCLUSION_BLOCKS * block_ms + SPARE_MS;
    (end_ms - lead_ms.min(STANDS_MS)..end_ms).contains(&now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::serve::round::tests::request;
    use proto::v1::StageHeights;

    const ENDS: Ends = Ends {
        generation_end: 180,
        validation_start: 185,
    };

    fn view(exam: Option<ExamNotice>, heights: Option<StageHeights>) -> View {
        View {
            height: 150,
            block_hash: String::new(),
            seen_ms: 0,
            since_ms: 0,
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
    fn the_last_block_of_a_confirmation_still_takes_artifacts() {
        let recorded = ExamNotice {
            kind: ExamKind::Confirmation.into(),
            generation_end_height: 193,
            validation_start_height: 196,
            ..notice(180, 182, "052955f4")
        };
        let mut request = request();
        request.height = 180;
        let ends = ends_of(&request, &view(Some(recorded), None));
        assert_eq!(ends.map(|ends| ends.generation_end), Some(194));
        assert!(!is_over(ends, Some(193)) && is_over(ends, Some(194)));
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

    /// A chain of one-second blocks, heard at every block up to this one; block 100 came at 100 s.
    fn heard(height: i64) -> View {
        View {
            height,
            seen_ms: height * 1_000,
            since_ms: height * 1_000,
            first: (100, 100_000),
            ..view(None, None)
        }
    }

    /// Tenths of a second from 160 s on in which a round is in a hurry.
    fn hurried(view: &View) -> Vec<i64> {
        let times = (160_000..260_000).step_by(100);
        times
            .filter(|now| must_hurry(145_000, Some(ENDS), Some(view), *now, 186_000))
            .collect()
    }

    #[test]
    fn what_may_still_be_committed_is_in_a_hurry_and_what_cannot_is_not() {
        for known in [150, 171, 179] {
            let times = hurried(&heard(known));
            assert_eq!(
                (times[0], times[times.len() - 1]),
                (172_000, 179_900),
                "also while nobody tells"
            );
        }
        let slow = View {
            height: 174,
            seen_ms: 1_000_000,
            since_ms: 1_000_000,
            first: (74, 400_000),
            ..heard(0)
        };
        let hurry = |now| must_hurry(0, Some(ENDS), Some(&slow), now, 186_000);
        assert_eq!(
            [1_017_999, 1_018_000, 1_035_999, 1_036_000].map(hurry),
            [false, true, true, false]
        );
    }

    #[test]
    fn a_chain_that_stands_still_is_not_hurried_after_for_ever_and_again_when_it_goes_on() {
        let mut standing = heard(178);
        let mut hurried_ms = 0;
        for now in (178_000..478_000).step_by(100) {
            if now % 5_000 == 0 {
                standing.seen_ms = now;
            }
            hurried_ms += 100 * i64::from(must_hurry(145_000, Some(ENDS), Some(&standing), now, 186_000));
        }
        assert!((5_000..=35_000).contains(&hurried_ms), "{hurried_ms}");
        standing = View {
            height: 179,
            seen_ms: 478_000,
            since_ms: 478_000,
            ..standing
        };
        assert!(must_hurry(145_000, Some(ENDS), Some(&standing), 478_100, 186_000));
    }

    #[test]
    fn without_a_pace_the_last_blocks_and_without_signal_the_stage_tell() {
        let at = |height| View {
            first: (height - 1, 0),
            ..heard(height)
        };
        let hurry: Vec<_> = (174..183)
            .filter(|height| must_hurry(0, Some(ENDS), Some(&at(*height)), height * 1_000, 186_000))
            .collect();
        assert_eq!(hurry, [176, 177, 178, 179]);
        let alone = |now| must_hurry(0, None, None, now, 186_000);
        assert_eq!(
            [167_999, 168_000, 185_999, 186_000].map(alone),
            [false, true, true, false]
        );
    }

    #[test]
    fn a_chain_that_stands_still_ends_no_round_while_it_is_heard() {
        let open = |view: &View, now| is_held_open(145_000, Some(ENDS), Some(view), now, 10_000);
        let standing = View {
            seen_ms: 200_000,
            ..heard(150)
        };
        assert!(
            open(&standing, 219_000) && !open(&standing, 220_000),
            "a source that fell silent"
        );
        let for_hours = View {
            seen_ms: 245_000,
            ..heard(150)
        };
        assert!(!open(&for_hours, 245_000), "not without end");
        assert!(!open(&heard(187), 187_100));
        assert!(!is_held_open(145_000, None, Some(&standing), 201_000, 10_000));
        let first_word = View {
            confirmed: false,
            ..standing
        };
        assert!(!open(&first_word, 201_000));
    }

    #[test]
    fn a_round_nobody_stopped_is_over_when_the_chain_begins_another_exam() {
        let at = |height, exam, heights| View {
            height,
            ..view(exam, heights)
        };
        let sprint = |poc_start| StageHeights {
            poc_start,
            ..StageHeights::default()
        };
        let over = |view: View| is_superseded(&request(), None, &view);
        assert!(!over(at(160, None, Some(sprint(145)))), "its own Sprint");
        assert!(!over(at(160, Some(notice(145, 147, "")), None)), "its own confirmation");
        assert!(!over(at(159, None, Some(sprint(245)))) && over(at(245, None, Some(sprint(245)))));
        assert!(!over(at(301, Some(notice(300, 302, "")), None)) && over(at(302, Some(notice(300, 302, "")), None)));
        let challenged = at(170, Some(notice(160, 162, "")), None);
        assert!(over(challenged.clone()) && !is_superseded(&request(), Some(ENDS), &challenged));
        let rumour = View {
            confirmed: false,
            ..at(245, None, Some(sprint(245)))
        };
        assert!(!over(rumour));
    }
}
