//! What a pod says over its operator door, as a decision sees it. Foreign: sizes are bounded here. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use proto::v1::{Door, RoundProgress, RoundState, SlotReport, StartRequest};

use crate::live::Board;
use crate::model_deployment::observed::{Link, Live, Rehearsed, Round, Start};
use crate::slot_door::DoorState;

/// Artifacts of a rehearsal that are kept.
const MAX_ARTIFACTS: usize = 64;
/// Bytes of one artifact.
const MAX_VECTOR: usize = 8_192;
/// Reasons that are kept.
const MAX_REASONS: usize = 16;
/// Bytes of a text that is kept.
const MAX_TEXT: usize = 512;

/// The pod's door and its last report; absent before the door was tried.
pub fn hear(board: &Board, door: Option<DoorState>, pod_uid: &str) -> Option<Live> {
    let door = door?;
    let seen = board.of_pod(pod_uid, |seen| (seen.received_ms, of_report(&seen.report)));
    let told_of_it = seen.as_ref().is_none_or(|(at, _)| *at >= door.rehearsed_ms);
    let reported = seen.is_some();
    let mut live = seen.map_or_else(unheard, |(_, live)| live);
    live.link = door.link;
    live.since_ms = door.since_ms;
    live.held_since_ms = door.held_since_ms;
    live.engines_since_ms = door.engines_since_ms;
    live.told = door.told;
    live.fence = door.fence;
    live.rehearsing = door.rehearsing || !told_of_it;
    // A connection without a report says nothing yet.
    if live.link == Link::Connected && !reported {
        live.link = Link::Connecting;
    }
    Some(live)
}

fn unheard() -> Live {
    Live {
        slot: -1,
        ..Live::default()
    }
}

/// One report.
pub fn of_report(report: &SlotReport) -> Live {
    let key = report.key.clone().unwrap_or_default();
    let door_open = report.chain_door() == Door::Open;
    Live {
        slot: if door_open { key.slot } else { -1 },
        generation: key.generation,
        door_open,
        loaded_model: clipped(&report.loaded_model),
        backends_ready: report.backends_ready,
        backends_expected: report.backends_expected,
        weights_digest: clipped(&report.weights_digest),
        round: report.round.as_ref().filter(|round| round.height > 0).map(round),
        rehearsal: report
            .rehearsal
            .as_ref()
            .filter(|rehearsal| rehearsal.time_ms > 0)
            .map(|rehearsal| Rehearsed {
                time_ms: rehearsal.time_ms,
                rate_milli: rehearsal.nonces_per_second_milli,
                error: clipped(&rehearsal.error),
                artifacts: rehearsal
                    .artifacts
                    .iter()
                    .take(MAX_ARTIFACTS)
                    .filter(|artifact| artifact.vector.len() <= MAX_VECTOR)
                    .map(|artifact| {
                        let text = base64::engine::general_purpose::STANDARD.encode(&artifact.vector);
                        (artifact.nonce, text)
                    })
                    .collect(),
            }),
        not_ready: report
            .not_ready_reasons
            .iter()
            .take(MAX_REASONS)
            .map(|reason| clipped(reason))
            .collect(),
        ..Live::default()
    }
}

/// One round.
pub fn round(progress: &RoundProgress) -> Round {
    Round {
        height: progress.height,
        active: matches!(progress.state(), RoundState::Generating | RoundState::Validating),
        first_nonce_ms: progress.first_nonce_ms,
        request: progress.request.as_ref().map(start),
        next: progress
            .next
            .iter()
            .take(64)
            .map(|resume| (resume.group, resume.next_index))
            .collect(),
        waiting: progress
            .generated
            .saturating_sub(progress.accepted.saturating_add(progress.refused)),
    }
}

fn start(request: &StartRequest) -> Start {
    Start {
        height: request.height,
        seed: clipped(&request.seed),
        public_key: clipped(&request.public_key),
        node_num: request.node_num,
        node_count: request.node_count,
        model: clipped(&request.model),
        seq_len: request.seq_len,
        k_dim: request.k_dim,
        batch_size: request.batch_size,
        stronger_rng: request.stronger_rng,
        callback_url: clipped(&request.callback_url),
        scheme: clipped(&request.scheme),
    }
}

fn clipped(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    text.chars().take(MAX_TEXT).collect()
}

/// What of a report can change a decision; progress within a round cannot.
pub fn significant(report: &SlotReport) -> Live {
    let mut live = of_report(report);
    if let Some(round) = &mut live.round {
        round.next = BTreeMap::new();
        round.waiting = 0;
        round.first_nonce_ms = round.first_nonce_ms.min(1);
    }
    live
}
