//! Apply: contestants run by turns, and what came of it is kept. Who fails is absent from then on.

use crate::{experts::Timed, ours::Ours, replica::Replica};
use kernels::cuda::{
    bench::{
        samples::{Measured, Series},
        schedule::{Length, schedule},
    },
    device::Span,
};

/// Who runs.
pub(crate) enum Contestant {
    Ours(Ours),
    Experts(Timed),
    Replica(Replica),
    /// Nobody, and why.
    Absent(String),
}

/// What came of a contestant's turns.
pub(crate) struct Gathered {
    pub(crate) name: &'static str,
    pub(crate) contestant: Contestant,
    times: Vec<Vec<f64>>,
    gaps: Vec<Vec<f64>>,
}

impl From<Result<Replica, String>> for Contestant {
    fn from(started: Result<Replica, String>) -> Self {
        started.map_or_else(Self::Absent, Self::Replica)
    }
}

/// Everybody's turns.
pub(crate) fn take(everybody: &mut [Gathered]) {
    for turn in schedule(everybody.len(), Length::FULL) {
        everybody[turn.contestant].take_turn(turn.dropped, turn.kept);
    }
}

impl Gathered {
    pub(crate) const fn new(name: &'static str, contestant: Contestant) -> Self {
        Self {
            name,
            contestant,
            times: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// Runs; a contestant that fails is absent from then on, and its samples are nobody's.
    fn take_turn(&mut self, dropped: usize, kept: usize) {
        let of_spans = |spans: Vec<Span>| {
            let kept = &spans[dropped..];
            (
                kept.iter().map(|span| f64::from(span.ran)).collect(),
                kept.iter().filter_map(|span| span.idle.map(f64::from)).collect(),
            )
        };
        let ran = match &mut self.contestant {
            Contestant::Ours(ours) => ours.run(dropped + kept).map(of_spans),
            Contestant::Experts(timed) => timed.run(dropped + kept).map(of_spans),
            Contestant::Replica(replica) => replica
                .run(dropped + kept)
                .map(|times| (times[dropped..].to_vec(), Vec::new())),
            Contestant::Absent(_) => return,
        };
        match ran {
            Ok((times, gaps)) if kept > 0 => {
                self.times.push(times);
                self.gaps.push(gaps);
            }
            Ok(_) => {}
            Err(reason) => self.contestant = Contestant::Absent(reason),
        }
    }

    /// Its batches.
    pub(crate) fn batches(&self) -> Measured {
        self.measured(&self.times)
    }

    /// What lies between its batches: no operations, no bytes.
    pub(crate) fn gaps(&self) -> Measured {
        match self.measured(&self.gaps) {
            Measured::Series(series) => Measured::Series(Series {
                operations: 0.0,
                bytes: 0,
                ..series
            }),
            not @ Measured::Not { .. } => not,
        }
    }

    fn measured(&self, turns: &[Vec<f64>]) -> Measured {
        let turns = turns.to_vec();
        match &self.contestant {
            Contestant::Ours(ours) => Measured::Series(ours.series(turns)),
            Contestant::Experts(timed) => Measured::Series(timed.series(turns)),
            Contestant::Replica(replica) => Measured::Series(replica.series(turns)),
            Contestant::Absent(reason) => Measured::Not { reason: reason.clone() },
        }
    }
}
