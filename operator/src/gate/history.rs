//! What the gate answered whom, and since when: one line per change of an answer, in the log and for `kubectl gonka window`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crds::sprint_view::GateView;

use super::{ActionKind, Verdict};

/// Lines that are kept for people; the log has all of them.
const KEPT: usize = 500;

/// The answers of one replica's life.
#[derive(Debug, Default)]
pub struct History(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    last: BTreeMap<(String, &'static str), Answer>,
    lines: VecDeque<GateView>,
}

/// An answer without its numbers: a budget that moves by a basis point is no news.
type Answer = (&'static str, &'static str);

impl History {
    /// Writes down an answer that differs from the last one to the same question. `who` asked: a deployment or a machine.
    pub fn tell(&self, who: &str, action: ActionKind, verdict: Verdict, now_ms: i64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let action: &'static str = action.into();
        let answer = verdict.words();
        if all.last.insert((who.to_owned(), action), answer) == Some(answer) {
            return;
        }
        let until_height = match verdict {
            Verdict::Allow { until_height, .. } => Some(until_height),
            Verdict::Wait { until_height, .. } => until_height,
            Verdict::Deny { .. } => None,
        };
        tracing::info!(
            who,
            action,
            answer = answer.0,
            reason = answer.1,
            ?until_height,
            "the gate answers"
        );
        if all.lines.len() == KEPT {
            all.lines.pop_front();
        }
        all.lines.push_back(GateView {
            time_ms: now_ms,
            who: who.to_owned(),
            action: action.to_owned(),
            verdict: answer.0.to_owned(),
            reason: answer.1.to_owned(),
            until_height: until_height.filter(|height| *height < i64::MAX),
        });
    }

    /// What was written down, oldest first.
    pub fn lines(&self) -> Vec<GateView> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::GateReason;

    const WAIT: Verdict = Verdict::Wait {
        until_height: Some(7),
        reason: GateReason::ExamActive,
    };

    fn allow(budget_basis_points: i32) -> Verdict {
        Verdict::Allow {
            budget_basis_points,
            until_height: i64::MAX,
        }
    }

    #[test]
    fn an_answer_is_written_down_when_it_changes() {
        let history = History::default();
        for (verdict, at) in [(WAIT, 1), (WAIT, 2), (allow(300), 3), (allow(299), 4), (WAIT, 5)] {
            history.tell("gonka/tiny", ActionKind::Rollout, verdict, at);
        }
        history.tell("machine n1", ActionKind::Rollout, WAIT, 6);
        let lines = history.lines();
        let told: Vec<(i64, &str)> = lines.iter().map(|line| (line.time_ms, line.verdict.as_str())).collect();
        assert_eq!(told, [(1, "Wait"), (3, "Allow"), (5, "Wait"), (6, "Wait")]);
        assert_eq!((lines[0].until_height, lines[1].until_height), (Some(7), None));
    }

    #[test]
    fn old_lines_make_room() {
        let history = History::default();
        for at in 0..1_200 {
            let verdict = if at % 2 == 0 { WAIT } else { allow(0) };
            history.tell("gonka/tiny", ActionKind::Spare, verdict, at);
        }
        let lines = history.lines();
        assert_eq!((lines.len(), lines[0].time_ms), (KEPT, 700));
    }
}
