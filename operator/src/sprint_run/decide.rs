//! Box 3: what the record of one exam should say now, and whether it is closed. Pure and infallible.
//!
//! A record is made when the exam's seed is known and written when a phase brought new evidence. It is closed when the reward
//! of its epoch is settled, which the next Sprint's end of validation does, or once claims are open and nothing was settled;
//! at the latest when the Sprint after that begins, with what is known then.

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::references::{ExamKind, UidReference};
use crds::sprint_run::{Cause, Gate, GateResult, GateVerdict, SlotRecord, Takeover, Totals, Votes};
use crds::{SprintRun, SprintRunSpec, SprintRunStatus};
use serde::{Deserialize, Serialize};

use super::cause;
use super::examined::Phase;
use super::observed::{Evidence, Observed, Watched};
use super::record;
use crate::conditions::{Conditions, whole_seconds};
use crate::few::few;

/// Findings about clocks that are named for a slot.
const MAX_HELD_BACK: usize = 3;
/// Longest evidence text.
const MAX_EVIDENCE: usize = 2000;

/// What to write.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// The record to make; absent when it is there, or must wait.
    pub create: Option<SprintRunSpec>,
    /// The status to write; absent when it says what is there already.
    pub status: Option<SprintRunStatus>,
    /// All slots, for the row that is written before the record is closed; absent while it is open.
    pub row: Option<Vec<SlotRecord>>,
    /// Nothing of this phase is missing.
    pub complete: bool,
}

/// Decides.
pub fn decide(observed: &Observed) -> Desired {
    let sealed = |run: &SprintRun| run.status.as_ref().is_some_and(|status| status.sealed_time.is_some());
    if observed.run.as_ref().is_some_and(sealed) {
        return Desired {
            complete: true,
            ..Desired::default()
        };
    }
    let host = UidReference {
        name: observed.host.name.clone(),
        uid: observed.host.uid.clone(),
    };
    let seed_known = !observed.exam.seed.is_empty() || observed.phase > Phase::Generating;
    let create = (observed.run.is_none() && seed_known).then(|| observed.exam.spec(host));
    if observed.phase == Phase::Generating {
        // Nothing but its existence is written while nonces are generated.
        return Desired {
            complete: create.is_none() && seed_known,
            create,
            ..Desired::default()
        };
    }
    let slots = record::slots(observed);
    let mut status = status(observed, &slots);
    let closing = closes(observed, &status);
    if closing {
        status.sealed_time = Some(whole_seconds(observed.now_ms));
    }
    conditions(observed, &mut status);
    let before = observed.run.as_ref().and_then(|run| run.status.as_ref());
    Desired {
        create,
        complete: closing || is_complete(observed),
        row: closing.then_some(slots),
        status: (before != Some(&status)).then_some(status),
    }
}

fn closes(observed: &Observed, status: &SprintRunStatus) -> bool {
    match observed.phase {
        Phase::Expired => true,
        Phase::Settled => {
            let evidence = &observed.evidence;
            status.reward_ngonka.is_some() && evidence.commits.value.is_some() && evidence.ballot.value.is_some()
        }
        Phase::Generating | Phase::Committed | Phase::Voted | Phase::Weighed => false,
    }
}

/// Whether everything this phase can bring was read.
fn is_complete(observed: &Observed) -> bool {
    let evidence = &observed.evidence;
    let weighed = observed.phase < Phase::Weighed || evidence.weight.value.flatten().is_some();
    evidence.failures().is_empty() && evidence.commits.value.is_some() && weighed && observed.phase < Phase::Settled
}

fn status(observed: &Observed, slots: &[SlotRecord]) -> SprintRunStatus {
    let before = observed
        .run
        .as_ref()
        .and_then(|run| run.status.clone())
        .unwrap_or_default();
    let evidence = &observed.evidence;
    let totals = record::totals(observed, slots);
    let votes = evidence.ballot.value.filter(|_| observed.phase >= Phase::Voted);
    let votes = votes.map(|ballot| Votes {
        valid: ballot.valid,
        invalid: ballot.invalid,
    });
    let mut status = SprintRunStatus {
        gates: gates(observed, &before),
        slots: record::worst(observed, slots),
        ratio_histogram: record::histogram(slots),
        early_share: record::early_share(observed).or(before.early_share),
        votes: votes.or(before.votes),
        ratio_basis_points: record::ratio(observed, &totals).or(before.ratio_basis_points),
        weight: evidence
            .weight
            .value
            .flatten()
            .filter(|_| observed.phase >= Phase::Voted)
            .or(before.weight),
        reward_ngonka: reward(observed, evidence).or(before.reward_ngonka),
        takeovers: if observed.watched.takeovers.is_empty() {
            before.takeovers
        } else {
            takeovers(&observed.watched)
        },
        ..SprintRunStatus::default()
    };
    let short = is_short(&totals);
    let voted_invalid = status.votes.as_ref().is_some_and(|votes| votes.invalid > votes.valid);
    let losses: Vec<(Cause, i64)> = slots.iter().map(|slot| (slot.cause, record::shortfall(slot))).collect();
    status.cause = cause::of_host(&losses, voted_invalid, short);
    status.evidence = Some(words(observed, slots, &totals, status.cause)).filter(|text| !text.is_empty());
    status.lost_ngonka = record::lost(observed, &status, &totals, short || voted_invalid).map(|lost| lost.to_string());
    status.totals = Some(totals);
    status
}

fn is_short(totals: &Totals) -> bool {
    let wanted = if totals.expected > 0 {
        totals.expected
    } else {
        totals.measured.max(totals.accepted)
    };
    (wanted - totals.committed) * 10_000 > wanted * cause::UNREMARKABLE_BASIS_POINTS
}

/// Settled, or known to be nothing once claims are open.
fn reward(observed: &Observed, evidence: &Evidence) -> Option<String> {
    if observed.phase < Phase::Settled {
        return None;
    }
    match evidence.reward.value? {
        Some(amount) => Some(amount.to_string()),
        None => observed.claims_open.then(|| "0".to_owned()),
    }
}

/// Every gate of this kind of exam: as taken, as written before, or `Unknown` because nobody watched.
fn gates(observed: &Observed, before: &SprintRunStatus) -> Vec<GateVerdict> {
    let wanted: &[Gate] = match observed.exam.kind {
        ExamKind::Sprint => &[Gate::ColdLoad, Gate::ReadyBy, Gate::Drain],
        ExamKind::Confirmation | ExamKind::Challenge | ExamKind::Unknown => &[Gate::Notice],
    };
    let taken = |gate: &Gate, verdicts: &[GateVerdict]| {
        verdicts
            .iter()
            .find(|verdict| verdict.gate == *gate && verdict.verdict != GateResult::Unknown)
            .cloned()
    };
    wanted
        .iter()
        .map(|gate| {
            taken(gate, &observed.watched.gates)
                .or_else(|| taken(gate, &before.gates))
                .unwrap_or_else(|| GateVerdict {
                    gate: *gate,
                    ..GateVerdict::default()
                })
        })
        .collect()
}

fn takeovers(watched: &Watched) -> Vec<Takeover> {
    let mut takeovers: Vec<Takeover> = watched
        .takeovers
        .iter()
        .map(|event| Takeover {
            slot: event.slot,
            from_pod: event.from_pod.clone(),
            to_pod: event.to_pod.clone(),
            generation: event.generation,
            duration_millis: event.promoted_ms.map(|promoted| promoted - event.decided_ms),
        })
        .collect();
    takeovers.truncate(64);
    takeovers
}

/// What the cause rests on, for people.
fn words(observed: &Observed, slots: &[SlotRecord], totals: &Totals, cause: Cause) -> String {
    let mut texts = vec![format!(
        "expected {}, measured {}, accepted {}, committed {}",
        totals.expected, totals.measured, totals.accepted, totals.committed
    )];
    if cause == Cause::VotedInvalid {
        texts.push("more validators voted against the host than for it".to_owned());
    }
    let mut lost: Vec<&SlotRecord> = slots
        .iter()
        .filter(|slot| !matches!(slot.cause, Cause::None | Cause::Preserved))
        .collect();
    lost.sort_by_key(|slot| (std::cmp::Reverse(record::shortfall(slot)), slot.node_id.clone()));
    let lost = lost.iter().map(|slot| {
        let held_back = held_back(observed, slot);
        format!(
            "{} lost {}: {}{held_back}",
            slot.node_id,
            record::shortfall(slot),
            slot.cause
        )
    });
    texts.extend(Some(few(lost, "; ")).filter(|text| !text.is_empty()));
    let watched = !observed.watched.slots.is_empty() || !observed.watched.rounds.is_empty();
    if !watched && slots.iter().all(|slot| slot.measured.is_none()) {
        texts.push("recorded from the chain: nobody watched".to_owned());
    }
    texts.extend(observed.evidence.failures().into_iter().map(str::to_owned));
    let mut text = texts.join("; ");
    if text.len() > MAX_EVIDENCE {
        let end = (0..=MAX_EVIDENCE)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// ` (GPU 3 HwPowerBrake)`: what the node's agent found about clocks while the slot computed; nothing when it was nothing.
fn held_back(observed: &Observed, slot: &SlotRecord) -> String {
    let mut slots = observed.watched.slots.iter();
    let Some(known) = slots.find(|known| known.node_id == slot.node_id && !known.held_back.is_empty()) else {
        return String::new();
    };
    let named: Vec<&str> = known.held_back.iter().take(MAX_HELD_BACK).map(String::as_str).collect();
    let more = known.held_back.len() - named.len();
    let more = if more > 0 {
        format!(", {more} more")
    } else {
        String::new()
    };
    format!(" ({}{more})", named.join(", "))
}

fn conditions(observed: &Observed, status: &mut SprintRunStatus) {
    let before = observed.run.as_ref().and_then(|run| run.status.as_ref());
    let previous = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::unknown(&SprintRun::CONDITIONS);
    conditions.set_false(ConditionType::Stalled, Reason::AsExpected, "");
    if status.sealed_time.is_some() {
        conditions.set(ConditionType::Sealed, ConditionStatus::True, Reason::Sealed, "");
        conditions.set(ConditionType::Ready, ConditionStatus::True, Reason::Sealed, "");
        conditions.set_false(ConditionType::Reconciling, Reason::Sealed, "");
    } else {
        let waits = match observed.phase {
            Phase::Generating | Phase::Committed => "votes are awaited",
            Phase::Voted => "the weight is awaited",
            Phase::Weighed | Phase::Settled | Phase::Expired => "the settlement of its epoch is awaited",
        };
        conditions.set_false(ConditionType::Sealed, Reason::Collecting, waits);
        conditions.set_false(ConditionType::Ready, Reason::Collecting, waits);
        conditions.set(
            ConditionType::Reconciling,
            ConditionStatus::True,
            Reason::Collecting,
            waits,
        );
    }
    let generation = observed
        .run
        .as_ref()
        .and_then(|run| run.metadata.generation)
        .or(Some(1));
    status.observed_generation = generation;
    status.conditions = conditions.render(generation, &whole_seconds(observed.now_ms), previous);
}
