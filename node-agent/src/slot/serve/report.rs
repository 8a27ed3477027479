//! Decide: what the operator is told. Pure.

use super::{
    config::Config,
    memory::Rehearsed,
    round::Round,
    state::{Phase, State},
};
use crds::conditions::Reason;
use proto::v1::{Artifact, Door, Rehearsal, Resume, RoundProgress, RoundState, SlotKey, SlotReport};

/// The whole report.
pub fn render(state: &State, config: &Config, now_ms: i64) -> SlotReport {
    let open = state.memory.assignment.is_some();
    SlotReport {
        key: Some(own_key(state, config)),
        chain_door: if open { Door::Open } else { Door::Closed }.into(),
        gateway_door: Door::Closed.into(),
        loaded_model: if state.ready() > 0 {
            config.model().to_owned()
        } else {
            String::new()
        },
        backends_ready: state.ready() as u32,
        backends_expected: config.replicas,
        round: Some(state.newest().map_or_else(
            || RoundProgress {
                state: round_state(state, None).into(),
                ..RoundProgress::default()
            },
            |round| RoundProgress {
                state: round_state(state, Some(round)).into(),
                ..progress(round, now_ms)
            },
        )),
        rehearsal: Some(rehearsal(&state.memory.rehearsed)),
        journal_free_bytes: state.journal_free,
        not_ready_reasons: not_ready(state, config)
            .into_iter()
            .map(|reason| reason.to_string())
            .collect(),
        weights_digest: digest(state),
    }
}

/// A rehearsal as the wire shows it.
pub fn rehearsal(rehearsed: &Rehearsed) -> Rehearsal {
    Rehearsal {
        time_ms: rehearsed.time_ms,
        artifacts: rehearsed
            .artifacts
            .iter()
            .map(|(nonce, vector_b64)| Artifact {
                nonce: *nonce,
                vector: kernels::artifact::from_base64(vector_b64).unwrap_or_default(),
            })
            .collect(),
        nonces_per_second_milli: rehearsed.nonces_per_second_milli,
        error: rehearsed.error.clone(),
        engine_starts: rehearsed.lives.starts,
    }
}

/// The assignment, or a spare's key.
pub fn own_key(state: &State, config: &Config) -> SlotKey {
    match &state.memory.assignment {
        Some(held) => SlotKey {
            deployment_uid: held.deployment_uid.clone(),
            slot: held.slot,
            pod_uid: config.identity.pod_uid.clone(),
            generation: held.generation,
        },
        None => SlotKey {
            deployment_uid: config.identity.deployment_uid.clone(),
            slot: -1,
            pod_uid: config.identity.pod_uid.clone(),
            generation: 0,
        },
    }
}

/// A round's numbers.
pub fn progress(round: &Round, now_ms: i64) -> RoundProgress {
    use super::journal::record::End;
    let state = match round.end {
        None => RoundState::Generating,
        Some(End::Stopped) => RoundState::Stopped,
        Some(End::StoppedBySelf) => RoundState::StoppedBySelf,
        Some(End::Failed) => RoundState::Failed,
    };
    RoundProgress {
        height: round.request.height,
        seed: round.request.seed.clone(),
        state: state.into(),
        started_ms: round.id,
        first_nonce_ms: round.first_nonce_ms,
        first_callback_ms: round.first_callback_ms,
        generated: round.generated,
        accepted: round.accepted,
        refused: round.refused,
        next: (0..round.groups)
            .map(|group| Resume {
                group,
                next_index: round.resume_from(group),
            })
            .collect(),
        nonces_per_second_milli: round.meter.per_second_milli(now_ms),
        request: Some(round.request.clone().into()),
        generated_in_time: round.generated_in_time(),
    }
}

fn round_state(state: &State, newest: Option<&Round>) -> RoundState {
    match newest {
        Some(round) if round.is_active() => RoundState::Generating,
        _ if state.jobs.is_busy() => RoundState::Validating,
        Some(round) => progress(round, 0).state(),
        None => RoundState::Idle,
    }
}

fn digest(state: &State) -> String {
    state
        .groups
        .iter()
        .find(|group| !group.weights_digest.is_empty())
        .map_or_else(String::new, |group| group.weights_digest.clone())
}

/// Everything that keeps the slot from being ready, in the words of the conditions.
pub fn not_ready(state: &State, config: &Config) -> Vec<Reason> {
    let rehearsed = &state.memory.rehearsed;
    let void = rehearsed.time_ms == 0 || rehearsed.lives != state.engine_lives();
    let wrong_weights = !config.weights_digest.is_empty()
        && state
            .groups
            .iter()
            .any(|group| group.phase == Phase::Ready && group.weights_digest != config.weights_digest);
    [
        (state.ready() < config.replicas as usize, Reason::BackendsMissing),
        (wrong_weights, Reason::WeightsMismatch),
        (void, Reason::NotRehearsed),
        (!void && !rehearsed.error.is_empty(), Reason::RehearsalFailed),
        (!state.memory.callback_proven, Reason::CallbackUnproven),
        (
            state.journal.is_failing() || state.journal_free < config.journal_min_free,
            Reason::JournalFull,
        ),
    ]
    .into_iter()
    .filter_map(|(holds, reason)| holds.then_some(reason))
    .collect()
}

#[cfg(test)]
pub(crate) mod tests;
