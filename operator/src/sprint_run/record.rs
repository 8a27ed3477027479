//! Box 3: the numbers of a record. Pure; whole numbers, every division rounded down.

use std::collections::{BTreeMap, BTreeSet};

use crds::references::ExamKind;
use crds::sprint_run::{Cause, EarlyShare, SlotRecord, SprintRunStatus, Totals};

use super::cause;
use super::observed::{Expectation, Observed, Round};
use crate::gonka_host::slots::parse_id;

/// Every slot of the exam, by node id: those that were expected, and those the chain or the board knows besides.
pub fn slots(observed: &Observed) -> Vec<SlotRecord> {
    let watched = &observed.watched;
    let nothing = BTreeMap::new();
    let distribution = observed.evidence.distribution.value.as_ref().unwrap_or(&nothing);
    let mut ids: BTreeSet<&str> = watched.slots.iter().map(|slot| slot.node_id.as_str()).collect();
    ids.extend(watched.rounds.keys().map(String::as_str));
    ids.extend(distribution.keys().map(String::as_str));
    let before: &[SlotRecord] = observed
        .run
        .as_ref()
        .and_then(|run| run.status.as_ref())
        .map(|status| status.slots.as_slice())
        .unwrap_or_default();
    ids.extend(before.iter().map(|slot| slot.node_id.as_str()));
    ids.into_iter()
        .map(|id| slot(observed, id, before.iter().find(|slot| slot.node_id == id)))
        .collect()
}

fn slot(observed: &Observed, node_id: &str, before: Option<&SlotRecord>) -> SlotRecord {
    let watched = &observed.watched;
    let expectation = watched.slots.iter().find(|slot| slot.node_id == node_id);
    let rounds = watched.rounds.get(node_id).map(Vec::as_slice).unwrap_or_default();
    let preserved = observed.exam.preserved.iter().any(|id| id == node_id) || before.is_some_and(|slot| slot.preserved);
    let sum = |count: fn(&Round) -> u64| {
        let known = !rounds.is_empty() || (expectation.is_some() && !preserved);
        known.then(|| rounds.iter().map(count).sum::<u64>() as i64)
    };
    let first = |moment: fn(&Round) -> i64| {
        let moment = rounds.iter().map(moment).filter(|moment| *moment > 0).min()?;
        // Where nobody saw the block itself its time is an estimate, and nothing comes before a block that it follows from.
        (watched.start_ms > 0).then_some((moment - watched.start_ms).max(0))
    };
    let node_name = expectation
        .map(|slot| slot.node_name.clone())
        .filter(|name| !name.is_empty());
    let mut record = SlotRecord {
        node_id: node_id.to_owned(),
        slot: expectation
            .map(|slot| slot.slot)
            .or_else(|| before.map(|slot| slot.slot))
            .unwrap_or_else(|| index(node_id)),
        node_name: node_name.or_else(|| before.and_then(|slot| slot.node_name.clone())),
        preserved,
        expected: if preserved {
            Some(0)
        } else {
            expectation
                .and_then(|slot| expected(observed, slot))
                .or_else(|| before.and_then(|slot| slot.expected))
        },
        // What DAPI took was there in time, wherever a slot saw the end.
        measured: sum(|round| round.generated.max(round.accepted)).or_else(|| before.and_then(|slot| slot.measured)),
        accepted: sum(|round| round.accepted).or_else(|| before.and_then(|slot| slot.accepted)),
        committed: committed(observed, node_id).or_else(|| before.and_then(|slot| slot.committed)),
        first_nonce_millis: first(|round| round.first_nonce_ms)
            .or_else(|| before.and_then(|slot| slot.first_nonce_millis)),
        first_callback_millis: first(|round| round.first_callback_ms)
            .or_else(|| before.and_then(|slot| slot.first_callback_millis)),
        cause: Cause::Unknown,
    };
    record.cause = match before {
        // Judged by somebody who watched; we did not.
        Some(before) if expectation.is_none() && rounds.is_empty() && before.cause != Cause::Unknown => before.cause,
        _ => cause::of_slot(&evidence(observed, &record, expectation, rounds)),
    };
    record
}

fn index(node_id: &str) -> i32 {
    parse_id(node_id).map_or(-1, |(_, _, slot)| slot)
}

/// Nonces a slot's rate gives in the exam's blocks.
fn expected(observed: &Observed, slot: &Expectation) -> Option<i64> {
    let rate = slot.nonces_per_minute?;
    let millis = observed.exam.blocks as f64 * observed.watched.block_millis;
    (millis > 0.0).then(|| (rate.max(0) as f64 * millis / 60_000.0) as i64)
}

/// A node's part of the last commit: as distributed on chain; nothing where there is no commit at all.
fn committed(observed: &Observed, node_id: &str) -> Option<i64> {
    let distribution = observed.evidence.distribution.value.as_ref()?;
    if let Some(count) = distribution.get(node_id) {
        return Some(*count);
    }
    // A node that is left out of a distribution that exists has none; without one, a commit of nothing says the same.
    let nothing_at_all = own_commits(observed) == Some(0);
    (!distribution.is_empty() || nothing_at_all).then_some(0)
}

/// All artifacts of our last commits.
pub fn own_commits(observed: &Observed) -> Option<i64> {
    let commits = observed.evidence.commits.value.as_ref()?;
    Some(
        commits
            .iter()
            .filter(|commit| commit.address == observed.host.address)
            .map(|commit| commit.count)
            .sum(),
    )
}

fn evidence(
    observed: &Observed,
    record: &SlotRecord,
    expectation: Option<&Expectation>,
    rounds: &[Round],
) -> cause::Slot {
    let watched = &observed.watched;
    let moved = watched
        .takeovers
        .iter()
        .any(|event| event.node_id == record.node_id && !event.from_pod.is_empty());
    cause::Slot {
        preserved: record.preserved,
        expected: record.expected,
        measured: record.measured,
        accepted: record.accepted,
        committed: record.committed,
        first_nonce_millis: record.first_nonce_millis.or_else(|| {
            // The start block's time is not known, but a nonce was seen.
            rounds.iter().any(|round| round.first_nonce_ms > 0).then_some(0)
        }),
        late_after_millis: watched.first_nonce_millis,
        started: !rounds.is_empty(),
        failed: rounds.iter().any(|round| round.failed),
        engines_missing: expectation.is_some_and(|slot| slot.engines_missing),
        disconnected: expectation.is_some_and(|slot| slot.disconnected),
        moved,
        watched: expectation.is_some() || !rounds.is_empty(),
        fees_unpayable: watched.fees_unpayable,
    }
}

/// Sums over all slots.
pub fn totals(observed: &Observed, slots: &[SlotRecord]) -> Totals {
    let before = observed
        .run
        .as_ref()
        .and_then(|run| run.status.as_ref())
        .and_then(|status| status.totals.clone());
    // A resumed record has at most the worst slots: sums made while all of them were known stand.
    let whole = observed.watched.slots.is_empty().then_some(before).flatten();
    let sum = |part: fn(&SlotRecord) -> Option<i64>| slots.iter().filter_map(part).sum::<i64>();
    let examined = slots.iter().filter(|slot| !slot.preserved).count();
    let preserved = slots.len() - examined;
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let accepted = observed.evidence.accepted.value.flatten();
    Totals {
        slots: whole
            .as_ref()
            .map_or_else(|| count(examined), |before| before.slots.max(count(examined))),
        preserved: whole
            .as_ref()
            .map_or_else(|| count(preserved), |before| before.preserved.max(count(preserved))),
        expected: whole
            .as_ref()
            .map_or_else(|| sum(|slot| slot.expected), |before| before.expected),
        measured: whole
            .as_ref()
            .map_or_else(|| sum(|slot| slot.measured), |before| before.measured),
        accepted: accepted
            .or_else(|| whole.as_ref().map(|before| before.accepted))
            .unwrap_or_else(|| sum(|slot| slot.accepted)),
        committed: own_commits(observed)
            .or_else(|| whole.as_ref().map(|before| before.committed))
            .unwrap_or_else(|| sum(|slot| slot.committed)),
    }
}

/// Slots by committed over expected: ten classes of 1000 basis points, then 10000 and above.
pub fn histogram(slots: &[SlotRecord]) -> Vec<i32> {
    let mut classes = vec![0_i32; 11];
    let mut any = false;
    for slot in slots.iter().filter(|slot| !slot.preserved) {
        if let (Some(expected), Some(committed)) = (slot.expected, slot.committed)
            && expected > 0
        {
            any = true;
            let class = (committed.max(0) * 10 / expected).clamp(0, 10);
            classes[class as usize] += 1;
        }
    }
    if any { classes } else { Vec::new() }
}

/// The 64 slots that lost most, worst first. Of a canary a rollout wants to know whatever it lost.
pub fn worst(observed: &Observed, slots: &[SlotRecord]) -> Vec<SlotRecord> {
    let canaries: BTreeSet<&String> = observed
        .watched
        .slots
        .iter()
        .filter(|slot| slot.canary)
        .map(|slot| &slot.node_id)
        .collect();
    let loss = |slot: &SlotRecord| (std::cmp::Reverse(shortfall(slot)), slot.node_id.clone());
    let mut slots = slots.to_vec();
    slots.sort_by_key(|slot| (!canaries.contains(&slot.node_id), loss(slot)));
    slots.truncate(64);
    slots.sort_by_key(loss);
    slots
}

/// Nonces a slot lost.
pub fn shortfall(slot: &SlotRecord) -> i64 {
    let wanted = slot.expected.or(slot.measured).unwrap_or(0);
    (wanted - slot.committed.or(slot.accepted).or(slot.measured).unwrap_or(0)).max(0)
}

/// Our share at the photo against the median of all hosts by voting power.
pub fn early_share(observed: &Observed) -> Option<EarlyShare> {
    let early = &observed.watched.early;
    let last = finals(observed)?;
    let own_last = *last.get(&observed.host.address)?;
    if early.is_empty() || own_last <= 0 {
        return None;
    }
    let early_count = early.get(&observed.host.address).copied().unwrap_or(0);
    Some(EarlyShare {
        early_count,
        own_basis_points: basis_points(early_count, own_last),
        median_basis_points: median(observed, early, &last),
    })
}

fn basis_points(part: i64, whole: i64) -> i32 {
    (i128::from(part.max(0)) * 10_000 / i128::from(whole.max(1))).min(10_000) as i32
}

fn finals(observed: &Observed) -> Option<BTreeMap<String, i64>> {
    let mut counts = BTreeMap::new();
    for commit in observed.evidence.commits.value.as_ref()? {
        *counts.entry(commit.address.clone()).or_insert(0) += commit.count;
    }
    Some(counts)
}

/// The first share, ascending, at which half of the voting power is reached.
fn median(observed: &Observed, early: &BTreeMap<String, i64>, last: &BTreeMap<String, i64>) -> Option<i32> {
    let powers = observed.evidence.powers.value.as_ref()?;
    let mut shares: Vec<(i32, i64)> = powers
        .iter()
        .filter(|(_, power)| **power > 0)
        .filter_map(|(address, power)| {
            let count = *last.get(address).filter(|count| **count > 0)?;
            Some((basis_points(early.get(address).copied().unwrap_or(0), count), *power))
        })
        .collect();
    shares.sort_unstable();
    let all: i128 = shares.iter().map(|(_, power)| i128::from(*power)).sum();
    let mut seen = 0_i128;
    shares.into_iter().find_map(|(share, power)| {
        seen += i128::from(power);
        (seen * 2 >= all).then_some(share)
    })
}

/// What scales the reward: in a confirmation what the chain says, in a Sprint committed over expected.
pub fn ratio(observed: &Observed, totals: &Totals) -> Option<i32> {
    if observed.exam.kind != ExamKind::Sprint {
        // No ratio on chain means that no confirmation of the epoch was below all of it.
        return observed
            .evidence
            .confirmation_ratio
            .value
            .map(|ratio| ratio.unwrap_or(10_000));
    }
    let committed = own_commits(observed)?;
    (totals.expected > 0).then(|| basis_points(committed, totals.expected))
}

/// What was lost, ngonka. Absent while the reward is not known, or when nothing says what a nonce was worth.
pub fn lost(observed: &Observed, status: &SprintRunStatus, totals: &Totals, short: bool) -> Option<u64> {
    let reward: u64 = status.reward_ngonka.as_ref()?.parse().ok()?;
    if !short {
        return Some(0);
    }
    if observed.exam.kind != ExamKind::Sprint {
        let ratio = u128::from(status.ratio_basis_points?.max(0).unsigned_abs());
        if ratio >= 10_000 {
            return Some(0);
        }
        if ratio > 0 && reward > 0 {
            return Some((u128::from(reward) * (10_000 - ratio) / ratio) as u64);
        }
        return observed.reference.map(|reference| reference.reward);
    }
    let missing = (totals.expected - totals.committed).max(0).unsigned_abs();
    if totals.committed > 0 && reward > 0 {
        return Some(share(reward, missing, totals.committed.unsigned_abs()));
    }
    let reference = observed.reference.filter(|reference| reference.committed > 0)?;
    Some(share(
        reference.reward,
        totals.expected.max(0).unsigned_abs(),
        reference.committed.unsigned_abs(),
    ))
}

fn share(reward: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(reward) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}
