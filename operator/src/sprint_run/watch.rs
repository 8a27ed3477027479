//! Box 2: what is seen while an exam goes by: verdicts at their moments, slots at the start, rounds and takeovers on the way.
//! From facts, caches and the live board alone: no request is made here.

use std::collections::BTreeMap;

use crds::model_deployment::RolloutState;
use crds::references::ExamKind;
use crds::sprint_run::Gate;
use crds::sprint_schedule::Margins;
use crds::{GonkaHost, ModelDeployment};
use proto::v1::RoundState;

use super::examined::{Examined, Phase};
use super::gates;
use super::notes::{Note, Notes};
use super::observed::{Expectation, HostView, Moved, Round, Watched};
use crate::facts::Facts;
use crate::gonka_host::slots::node_id;
use crate::live::{Board, Observation};

/// Most takeovers of one exam that are remembered.
const MAX_TAKEOVERS: usize = 1024;
/// Most findings of a machine that are looked at.
const MAX_HELD_BACK: usize = 64;

/// One host of a schedule, from the caches.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The host.
    pub host: &'a GonkaHost,
    /// Its deployments.
    pub deployments: Vec<&'a ModelDeployment>,
    /// Lead times of its schedule.
    pub margins: &'a Margins,
    /// This installation.
    pub install_id: &'a str,
    /// What holds clocks of a machine's GPUs back, by its name.
    pub held_back: &'a BTreeMap<String, Vec<String>>,
}

impl Seen<'_> {
    fn view(&self) -> HostView {
        let metadata = &self.host.metadata;
        HostView {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            address: self.host.spec.account.address.clone(),
        }
    }
}

/// Takes the verdicts whose moment passed since the last look.
pub fn take_verdicts(notes: &mut Notes, clock: &mut gates::Clock, seen: &[Seen<'_>], facts: &Facts, now_ms: i64) {
    let Some(next) = facts.next_poc_start().filter(|next| *next > facts.height) else {
        return;
    };
    let Some(millis) = facts.millis_until(next, now_ms) else {
        return;
    };
    let before = clock.insert(next, millis);
    clock.retain(|height, _| *height >= next);
    for host in seen {
        let view = host.view();
        for gate in gates::passed(host.margins, before, millis) {
            let verdicts = notes.verdicts.entry((view.uid.clone(), next)).or_default();
            if verdicts.iter().all(|verdict| verdict.gate != gate) {
                verdicts.push(gates::verdict(gate, host.host, now_ms));
            }
        }
    }
}

/// Whether the host is older than the exam, as far as the pace tells. An exam that began before is not this host's: a host of
/// the same name that was deleted may have its record, by the same name.
fn was_there(host: &GonkaHost, facts: &Facts, start_height: i64) -> bool {
    let Some(created) = &host.metadata.creation_timestamp else {
        return true;
    };
    facts.height <= start_height
        || facts
            .predict(start_height)
            .is_none_or(|start| start.time_ms >= created.0.as_millisecond())
}

/// Opens a note for the exam the chain announces, and keeps it up to date while it runs.
pub fn follow(notes: &mut Notes, seen: &Seen<'_>, facts: &Facts, board: &Board, now_ms: i64) {
    let (Some(exam), Some(parameters)) = (&facts.exam, &facts.parameters) else {
        return;
    };
    let examined = Examined::of(exam, facts.epoch, parameters);
    if !was_there(seen.host, facts, examined.start_height) {
        return;
    }
    let view = seen.view();
    let key = (view.namespace.clone(), examined.name(&view.name));
    let open = notes.open.entry(key).or_insert_with(|| {
        let late = facts.height > examined.start_height;
        let mut watched = Watched {
            // Whoever comes late asks slots first: one that does not answer yet may have done its work.
            slots: if late { Vec::new() } else { expectations(seen) },
            ..Watched::default()
        };
        watched.block_millis = facts.pace.block_millis;
        watched.first_nonce_millis = i64::from(seen.margins.first_nonce_seconds) * 1000;
        watched.gates = notes
            .verdicts
            .remove(&(view.uid.clone(), examined.start_height))
            .unwrap_or_default();
        if examined.kind == ExamKind::Confirmation && facts.height <= examined.start_height {
            watched.gates.push(gates::verdict(Gate::Notice, seen.host, now_ms));
        }
        Note {
            host: view,
            schedule: facts.schedule.clone(),
            exam: examined.clone(),
            watched,
            unwatched: late,
            ..Note::default()
        }
    });
    if open.exam.seed.is_empty() {
        open.exam.seed.clone_from(&examined.seed);
    }
    if !examined.preserved.is_empty() {
        open.exam.preserved.clone_from(&examined.preserved);
    }
    let unpayable = crds::conditions::ConditionType::FeesPayable.to_string();
    open.watched.fees_unpayable |= seen
        .host
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .any(|condition| condition.type_ == unpayable && condition.status == "False");
    start_time(open, facts);
    watch_slots(open, board, facts);
    watch_clocks(open, seen, facts);
}

/// Fills in, of an exam that nobody followed, what slots still tell of their round: the API server may have been away for all
/// of it, and the leader with it. A slot that tells nothing stays unknown, which is not the same as nothing done. True when
/// something was learned.
pub fn catch_up(note: &mut Note, seen: &Seen<'_>, board: &Board, facts: &Facts) -> bool {
    if !note.unwatched {
        return false;
    }
    let height = note.exam.trigger_height;
    // While the exam is on, the newest round of a pod is this one or there is none.
    let is_on = facts.exam.as_ref().is_some_and(|exam| exam.trigger_height == height);
    let tells = |slot: &Expectation| {
        let answers = || board.of_pod(&slot.pod_uid, |pod| pod.connected) == Some(true);
        !board.rounds(&slot.node_id, height).is_empty() || (is_on && answers())
    };
    let mut learned = false;
    for slot in expectations(seen) {
        match note
            .watched
            .slots
            .iter_mut()
            .find(|known| known.node_id == slot.node_id)
        {
            None if tells(&slot) => note.watched.slots.push(slot),
            // Its rate is told once its pod was heard.
            Some(known) if known.nonces_per_minute.is_none() && slot.nonces_per_minute.is_some() => {
                known.nonces_per_minute = slot.nonces_per_minute;
            }
            _ => continue,
        }
        learned = true;
    }
    if !learned {
        return false;
    }
    note.watched.block_millis = facts.pace.block_millis;
    note.watched.first_nonce_millis = i64::from(seen.margins.first_nonce_seconds) * 1000;
    true
}

/// Slots as they are now: of deployments whose slots are registered.
fn expectations(seen: &Seen<'_>) -> Vec<Expectation> {
    let registered = seen
        .host
        .status
        .as_ref()
        .map(|status| status.registrations.as_slice())
        .unwrap_or_default();
    let mut expectations = Vec::new();
    for deployment in &seen.deployments {
        let status = deployment.status.as_ref();
        let rollout = status
            .and_then(|status| status.rollout.as_ref())
            .filter(|rollout| rollout.state == RolloutState::Canary);
        for index in deployment.examined_slots() {
            let id = node_id(seen.install_id, deployment, index);
            if !registered
                .iter()
                .any(|entry| entry.node_id == id && entry.node_num.is_some())
            {
                continue;
            }
            let slot = status.and_then(|status| status.slots.iter().find(|slot| slot.index == index));
            expectations.push(Expectation {
                node_id: id,
                slot: index,
                node_name: slot.and_then(|slot| slot.node_name.clone()).unwrap_or_default(),
                pod_uid: slot
                    .and_then(|slot| slot.pod_ref.as_ref())
                    .map(|pod| pod.uid.clone())
                    .unwrap_or_default(),
                nonces_per_minute: slot.and_then(|slot| slot.nonces_per_minute),
                canary: rollout
                    .is_some_and(|rollout| slot.is_some_and(|slot| slot.revision.as_ref() == Some(&rollout.revision))),
                ..Expectation::default()
            });
        }
    }
    expectations
}

/// The start block's own time where it is seen, else as far as the pace tells.
fn start_time(note: &mut Note, facts: &Facts) {
    let start = note.exam.start_height;
    if facts.height == start {
        note.watched.start_ms = facts.block_time_ms;
    } else if note.watched.start_ms == 0 && facts.height > start {
        note.watched.start_ms = facts.predict(start).map_or(0, |prediction| prediction.time_ms);
    }
}

fn is_generating(note: &Note, facts: &Facts) -> bool {
    (note.exam.start_height..note.exam.validation_start_height).contains(&facts.height)
}

/// Remembers what held clocks back while the exam ran: it is gone with the load.
fn watch_clocks(note: &mut Note, seen: &Seen<'_>, facts: &Facts) {
    if seen.held_back.is_empty() || !is_generating(note, facts) {
        return;
    }
    for slot in &mut note.watched.slots {
        let found = seen.held_back.get(&slot.node_name).into_iter().flatten();
        slot.held_back.extend(found.take(MAX_HELD_BACK).cloned());
    }
}

/// Takes over what slots say of this exam's round.
pub fn watch_slots(note: &mut Note, board: &Board, facts: &Facts) {
    let generating = is_generating(note, facts);
    let height = note.exam.trigger_height;
    for slot in &mut note.watched.slots {
        let rounds: Vec<Round> = board.of_rounds(&slot.node_id, height, round);
        if !rounds.is_empty() {
            merge(note.watched.rounds.entry(slot.node_id.clone()).or_default(), rounds);
        }
        // A takeover that is decided once the exam is announced belongs to it.
        if note.watched.start_ms > 0 && note.exam.phase(facts) == Phase::Generating {
            for event in board.takeovers(&slot.node_id, note.watched.start_ms) {
                remember(&mut note.watched.takeovers, moved(&event));
            }
        }
        let missing = |pod: &Observation| pod.report.backends_ready < pod.report.backends_expected;
        let seen = board.of_pod(&slot.pod_uid, |pod| (pod.connected, missing(pod)));
        if generating && let Some((connected, missing)) = seen {
            slot.engines_missing |= connected && missing;
            slot.disconnected = !connected;
        }
    }
}

fn remember(takeovers: &mut Vec<Moved>, event: Moved) {
    let same = |known: &Moved| known.node_id == event.node_id && known.generation == event.generation;
    match takeovers.iter().position(same) {
        Some(position) => takeovers[position] = event,
        None if takeovers.len() < MAX_TAKEOVERS => takeovers.push(event),
        None => {}
    }
}

fn moved(event: &crate::live::TakeoverEvent) -> Moved {
    Moved {
        node_id: event.node_id.clone(),
        slot: event.slot,
        from_pod: event.from_pod.clone(),
        to_pod: event.to_pod.clone(),
        generation: event.generation,
        decided_ms: event.decided_ms,
        promoted_ms: event.promoted_ms,
    }
}

fn round(progress: &proto::v1::RoundProgress) -> Round {
    Round {
        started_ms: progress.started_ms,
        first_nonce_ms: progress.first_nonce_ms,
        first_callback_ms: progress.first_callback_ms,
        generated: progress.generated_in_time,
        accepted: progress.accepted,
        failed: progress.state() == RoundState::Failed,
    }
}

/// Newer reports replace older ones of the same round; a round that left the board is kept.
fn merge(known: &mut Vec<Round>, rounds: Vec<Round>) {
    let mut by_start: BTreeMap<i64, Round> = known.drain(..).map(|round| (round.started_ms, round)).collect();
    for round in rounds {
        let older = by_start
            .get(&round.started_ms)
            .is_some_and(|known| known.generated > round.generated);
        if !older {
            by_start.insert(round.started_ms, round);
        }
    }
    known.extend(by_start.into_values());
}

#[cfg(test)]
mod tests;
