//! What is struck, when, and together with what. Pure: a seed and a grid give the same strikes every time.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::target::{Blast, Target};

/// Generation takes so many milliseconds in the network of these tests (`scenarios/moments.yaml`: 36 blocks of a second).
pub const GENERATION_MILLIS: i64 = 36_000;

/// Part of the Sprint in which a strike falls.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Moment {
    Before,
    Start,
    Middle,
    Tail,
}

impl Moment {
    pub const ALL: [Self; 4] = [Self::Before, Self::Start, Self::Middle, Self::Tail];

    /// Earliest and latest, milliseconds from the first block of generation.
    fn range(self) -> (i64, i64) {
        match self {
            Self::Before => (-4_000, -500),
            Self::Start => (-200, 1_500),
            Self::Middle => (3_000, GENERATION_MILLIS - 5_000),
            Self::Tail => (GENERATION_MILLIS - 4_000, GENERATION_MILLIS - 500),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::Start => "start",
            Self::Middle => "middle",
            Self::Tail => "tail",
        })
    }
}

/// One thing that dies at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Strike {
    pub target: Target,
    pub moment: Moment,
    /// Milliseconds from the first block of generation.
    pub at_millis: i64,
    /// Slot it hits, or whose machine; for what hits nobody, the slot whose machine it runs on.
    pub slot: i32,
}

/// Strikes whose blasts do not meet share a Sprint.
const GROUPS: [&[Target]; 6] = [
    &[
        Target::Serve,
        Target::Engine,
        Target::NodeAgent,
        Target::RpcEndpoint,
        Target::Operator,
        Target::KubeProxy,
        Target::CoreDns,
    ],
    &[
        Target::Hold,
        Target::Containerd,
        Target::Kubelet,
        Target::ApiServer,
        Target::Etcd,
    ],
    &[
        Target::BlockStall,
        Target::BlockBurst,
        Target::CallbacksRefused,
        Target::CallbacksWrong,
        Target::CallbacksHang,
    ],
    &[
        Target::IsolatedNode,
        Target::ForkedEndpoint,
        Target::HeightBack,
        Target::Clocks,
    ],
    &[Target::Database, Target::Dapi],
    &[Target::Node],
];

/// How much is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// Every target once, each at a moment of the seed's choice.
    Once,
    /// Every target at every moment.
    Grid,
}

impl Extent {
    /// Pods that are taken away to measure how long their slots have none.
    pub fn takeovers(self) -> usize {
        match self {
            Self::Once => 4,
            Self::Grid => 30,
        }
    }
}

/// Sprints, each with its strikes in the order of their times.
pub fn sprints(seed: u64, extent: Extent, slots: i32) -> Vec<Vec<Strike>> {
    let rounds = match extent {
        Extent::Once => 1,
        Extent::Grid => Moment::ALL.len(),
    };
    // Nodes die last: what they leave behind is another cluster.
    let order = GROUPS
        .iter()
        .flat_map(|group| (0..rounds).map(move |round| (*group, round)));
    order
        .map(|(group, round)| {
            let mut next_slot = round as i32;
            let mut strikes: Vec<Strike> = group
                .iter()
                .map(|target| {
                    let moment = match extent {
                        Extent::Once => Moment::ALL[pick(seed, *target, 0, Moment::ALL.len() as u64) as usize],
                        Extent::Grid => Moment::ALL[round],
                    };
                    let (first, last) = moment.range();
                    let slot = next_slot.rem_euclid(slots);
                    next_slot += 1;
                    Strike {
                        target: *target,
                        moment,
                        at_millis: first + pick(seed, *target, 1 + round as u64, (last - first) as u64) as i64,
                        slot,
                    }
                })
                .collect();
            strikes.sort_by_key(|strike| strike.at_millis);
            strikes
        })
        .collect()
}

fn pick(seed: u64, target: Target, salt: u64, below: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, target, salt).hash(&mut hasher);
    hasher.finish() % below
}

/// Strikes on machines go where they hit what they are meant to: a machine with one slot and nothing else dies where there is
/// one, else one without a spare, whose first slot is the one that the only spare goes to; and no container is killed where
/// containerd or kubelet is away. `machines` has each slot, −1 for a spare, and its machine; the operator's leader is on machine
/// `leader`, which is spared where another will do.
pub fn place(strikes: &mut [Strike], machines: &[(i32, u8)], leader: Option<u8>) {
    let on = |slot: i32| {
        machines
            .iter()
            .find(|(known, _)| *known == slot)
            .map(|(_, machine)| *machine)
    };
    let company = |slot: i32| {
        let there = || machines.iter().filter(move |(_, machine)| Some(*machine) == on(slot));
        (there().filter(|(other, _)| *other < 0).count(), there().count())
    };
    let held: Vec<Option<u8>> = strikes
        .iter()
        .filter(|strike| strike.target == Target::Hold)
        .map(|strike| on(strike.slot))
        .collect();
    let slots = || machines.iter().map(|(slot, _)| *slot).filter(|slot| *slot >= 0);
    for strike in strikes {
        let better = match strike.target {
            Target::Node | Target::IsolatedNode => {
                slots().min_by_key(|slot| (company(*slot), on(*slot) == leader, *slot))
            }
            // What makes a killed container again must be there.
            Target::Containerd | Target::Kubelet => slots().find(|slot| !held.contains(&on(*slot))),
            _ => None,
        };
        strike.slot = better.unwrap_or(strike.slot);
    }
}

/// What must count of what was possible, per mille: what strikes may cost that the same slots tell of cannot be told apart.
pub fn must_count(strike: &Strike, all: &[Strike]) -> u64 {
    let own = strike.target.must_count(strike.moment);
    match strike.target.blast() {
        Blast::Slot => own,
        Blast::Nobody => all
            .iter()
            .filter(|other| other.target.blast() == Blast::Nobody)
            .map(|other| other.target.must_count(other.moment))
            .fold(own, u64::min),
    }
}

/// Slots that tell whether a strike cost anything.
pub fn judged(strike: &Strike, all: &[Strike], slots: i32) -> Vec<i32> {
    match strike.target.blast() {
        Blast::Slot => vec![strike.slot],
        Blast::Nobody => {
            let hit = |slot: &i32| {
                all.iter()
                    .any(|other| other.target.blast() == Blast::Slot && other.slot == *slot)
            };
            (0..slots).filter(|slot| !hit(slot)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_strikes_every_time() {
        assert_eq!(sprints(7, Extent::Once, 3), sprints(7, Extent::Once, 3));
        assert_ne!(sprints(7, Extent::Once, 3), sprints(8, Extent::Once, 3));
    }

    #[test]
    fn the_grid_has_every_target_at_every_moment() {
        let all: Vec<Strike> = sprints(7, Extent::Grid, 3).concat();
        assert_eq!(all.len(), GROUPS.concat().len() * Moment::ALL.len());
        for strike in &all {
            let (first, last) = strike.moment.range();
            assert!((first..last).contains(&strike.at_millis), "{strike:?}");
        }
    }

    #[test]
    fn the_machine_that_dies_has_one_slot_and_no_spare() {
        let strike = |target, slot| Strike {
            target,
            moment: Moment::Middle,
            at_millis: 5_000,
            slot,
        };
        let mut strikes = [
            strike(Target::Node, 0),
            strike(Target::Hold, 2),
            strike(Target::Containerd, 2),
        ];
        let machines = [(0, 1), (1, 2), (2, 3), (-1, 1)];
        place(&mut strikes, &machines, None);
        assert_eq!([strikes[0].slot, strikes[1].slot, strikes[2].slot], [1, 2, 0]);
        place(&mut strikes, &machines, Some(2));
        assert_eq!(strikes[0].slot, 2, "the leader lives");
        place(&mut strikes, &[(0, 1), (-1, 1), (2, 3), (1, 3), (-1, 2)], None);
        assert_eq!(
            strikes[0].slot, 1,
            "no spare dies, and the slot that is healed first tells"
        );
    }

    #[test]
    fn no_slot_is_hit_twice_in_a_sprint_and_somebody_judges_every_strike() {
        for extent in [Extent::Once, Extent::Grid] {
            for strikes in sprints(7, extent, 3) {
                let mut hit: Vec<i32> = strikes
                    .iter()
                    .filter(|strike| strike.target.blast() == Blast::Slot)
                    .map(|strike| strike.slot)
                    .collect();
                hit.sort_unstable();
                hit.dedup();
                let hits = strikes.iter().filter(|strike| strike.target.blast() == Blast::Slot);
                assert_eq!(hit.len(), hits.count(), "{strikes:?}");
                assert!(strikes.iter().all(|strike| !judged(strike, &strikes, 3).is_empty()));
            }
        }
    }
}
