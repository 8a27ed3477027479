//! Observe: what an earlier life of `serve` left. A round that was under way is under way again before a door opens.

use super::{
    config::Config,
    jobs::Jobs,
    journal::{
        Journal,
        record::{End, Record},
    },
    memory::Memory,
    round::Round,
    state::{Group, State},
};
use crate::slot::clock::now_ms;
use std::collections::VecDeque;

/// The state to begin with.
pub fn first_state(config: &Config) -> State {
    let memory = match Memory::load(&config.state_path(), &config.identity.pod_uid) {
        Ok(memory) => memory,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the assignment is not known");
            Memory::default()
        }
    };
    let (journal, told) = Journal::open(config.run_dir.join("journal"));
    let mut state = State {
        memory,
        groups: vec![Group::default(); config.replicas as usize],
        rounds: recover(&told, config.replicas),
        jobs: Jobs::new(config.replicas),
        signal: None,
        journal,
        journal_free: u64::MAX,
        turned_away: None,
        start_times: Vec::new(),
        totals: [0; 3],
        closing: false,
        released_ms: 0,
    };
    if state.memory.assignment.is_none() {
        // Without a slot there is nothing to go on with.
        state.end_round(End::Stopped, 0, now_ms());
    }
    state.tick(config.stage_ms, now_ms());
    if let Some(round) = state.active() {
        tracing::info!(height = round.request.height, next = ?round.next, waiting = round.outbox.len(), "round goes on");
    }
    state
}

/// Rounds as the journal tells them. Only the newest can be under way, and only if the groups are still the same.
fn recover(told: &[Vec<Record>], replicas: u32) -> VecDeque<Round> {
    let mut rounds: VecDeque<Round> = told.iter().filter_map(|records| Round::replay(records)).collect();
    let count = rounds.len();
    for (index, round) in rounds.iter_mut().enumerate() {
        if round.is_active() && (index + 1 < count || round.groups != replicas) {
            round.end = Some(End::Failed);
        }
        if !round.is_active() {
            round.drop_outbox();
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::serve::round::tests::request;

    fn story(at: i64) -> Vec<Record> {
        vec![
            Record::Started {
                request: request(),
                at,
                groups: 2,
                resume: vec![0, 0],
            },
            Record::Batch {
                at,
                group: 0,
                next: 1,
                count: 1,
                artifacts: vec![(1, "AAAA".into())],
            },
        ]
    }

    #[test]
    fn only_the_newest_round_goes_on() {
        let rounds = recover(&[story(1), story(2)], 2);
        assert_eq!(rounds.iter().map(Round::is_active).collect::<Vec<_>>(), [false, true]);
        assert_eq!((rounds[0].refused, rounds[1].outbox.len()), (1, 1));
    }

    #[test]
    fn a_round_of_another_number_of_groups_does_not_go_on() {
        assert!(!recover(&[story(1)], 3)[0].is_active());
    }
}
