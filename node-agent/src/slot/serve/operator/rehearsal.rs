//! Apply: a rehearsal. Every replica group computes the same test nonces and must agree; the way back to DAPI is tried
//! with an empty batch. A round that begins meanwhile goes first.

use crate::slot::{
    clock::now_ms,
    serve::{
        memory::{Assignment, Rehearsed},
        outbox::Outcome,
        report,
        request::RoundRequest,
        sender,
        state::{Core, Phase},
    },
    socket,
};
use kernels::scheme::StatTest;
use proto::v1::{Artifact, Rehearsal, RehearseRequest, ValidateRequest, engine_client::EngineClient};
use std::time::{Duration, Instant};
use tonic::Status;

/// Most nonces of one rehearsal.
const MAX_NONCES: usize = 64;
/// Longest rehearsal.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs it and remembers the result. Err only for a request that makes no sense; a rehearsal that fails is a result.
pub async fn run(core: &Core, client: &reqwest::Client, request: RehearseRequest) -> Result<Rehearsal, Status> {
    if request.nonces.is_empty() || request.nonces.len() > MAX_NONCES {
        return Err(Status::invalid_argument(format!(
            "{} nonces: rehearse with 1 to {MAX_NONCES}",
            request.nonces.len()
        )));
    }
    let round: RoundRequest = request
        .round
        .ok_or_else(|| Status::invalid_argument("a rehearsal needs a round"))?
        .into();
    let (active, lives, assignment) = core.read(|state| {
        (
            state.active().is_some(),
            state.engine_lives(),
            state.memory.assignment.clone(),
        )
    });
    if active {
        return Err(Status::failed_precondition("a round is active: rehearse after it"));
    }
    let computed = tokio::select! {
        computed = tokio::time::timeout(TIMEOUT, compute(core, &round, &request.nonces)) =>
            computed.unwrap_or_else(|_| Err(format!("not done within {}s", TIMEOUT.as_secs()))),
        () = core.until(|state| state.active().is_some()) => {
            return Err(Status::aborted("a round began: rehearse after it"));
        }
    };
    let proven = prove_callback(client, &round, assignment.as_ref()).await;
    let (artifacts, nonces_per_second_milli, mut error) = match computed {
        Ok((artifacts, speed)) => (artifacts, speed, String::new()),
        Err(error) => (Vec::new(), 0, error),
    };
    if error.is_empty()
        && let Err(reason) = &proven
    {
        error.clone_from(reason);
    }
    let rehearsed = Rehearsed {
        time_ms: now_ms(),
        lives,
        artifacts: artifacts
            .into_iter()
            .map(|artifact| (artifact.nonce, kernels::artifact::to_base64(&artifact.vector)))
            .collect(),
        nonces_per_second_milli,
        error,
    };
    let rehearsal = report::rehearsal(&rehearsed);
    core.remember(|state| {
        state.memory.rehearsed = rehearsed;
        match proven {
            Ok(tried) => state.memory.callback_proven |= tried,
            Err(_) => state.memory.callback_proven = false,
        }
    });
    Ok(rehearsal)
}

/// All groups compute the nonces, one after another; their vectors must match.
async fn compute(core: &Core, round: &RoundRequest, nonces: &[i32]) -> Result<(Vec<Artifact>, u64), String> {
    if round.model != core.config.model() {
        return Err(format!(
            "{} was asked for, {} is loaded",
            round.model,
            core.config.model()
        ));
    }
    let mut first: Option<Vec<Artifact>> = None;
    let mut speed = 0;
    for group in 0..core.config.replicas {
        if core.read(|state| state.groups[group as usize].phase) != Phase::Ready {
            return Err(format!("engine {group} is not ready"));
        }
        let begun = Instant::now();
        let artifacts = compute_on(core, group, round, nonces)
            .await
            .map_err(|error| format!("engine {group}: {error}"))?;
        if artifacts.len() != nonces.len() {
            return Err(format!(
                "engine {group} computed {} of {} nonces",
                artifacts.len(),
                nonces.len()
            ));
        }
        let micros = begun.elapsed().as_micros().max(1) as u64;
        let cap = match core.config.prepare.max_nonces_per_second {
            0 => u64::MAX,
            cap => cap.saturating_mul(1000),
        };
        speed += (nonces.len() as u64 * 1_000_000_000 / micros).min(cap);
        match &first {
            None => first = Some(artifacts),
            Some(first) => agree(first, &artifacts).map_err(|nonce| {
                format!("engines 0 and {group} differ at nonce {nonce}: one of them computes wrongly")
            })?,
        }
    }
    Ok((first.unwrap_or_default(), speed))
}

async fn compute_on(core: &Core, group: u32, round: &RoundRequest, nonces: &[i32]) -> Result<Vec<Artifact>, String> {
    let channel = socket::connect(&socket::engine_path(&core.config.run_dir, group))
        .await
        .map_err(|error| error.to_string())?;
    let reply = EngineClient::new(channel)
        .validate(ValidateRequest {
            request: Some(round.clone().into()),
            nonces: nonces.to_vec(),
            ..ValidateRequest::default()
        })
        .await
        .map_err(|status| status.message().to_owned())?;
    Ok(reply.into_inner().computed)
}

fn agree(first: &[Artifact], second: &[Artifact]) -> Result<(), i32> {
    let test = StatTest::default();
    first
        .iter()
        .zip(second)
        .find(|(left, right)| left.nonce != right.nonce || test.mismatches(&left.vector, &right.vector))
        .map_or(Ok(()), |(left, _)| Err(left.nonce))
}

/// Posts an empty batch. Taken, "not in phase" and "wrong height" all prove the way; true when there was one to try.
async fn prove_callback(
    client: &reqwest::Client,
    round: &RoundRequest,
    assignment: Option<&Assignment>,
) -> Result<bool, String> {
    let Some(base) = sender::callback_address(round, assignment) else {
        return Ok(false);
    };
    let url = format!("{base}/generated");
    match sender::probe(client, &url, &sender::generated_body(round, &[])).await {
        Ok(status) if Outcome::of_status(status) == Outcome::Accepted || status == 503 || status == 400 => Ok(true),
        Ok(status) => Err(format!("callback {url} is answered {status}")),
        Err(error) => Err(format!("callback {url} fails: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_that_disagree_are_found_out_at_their_first_nonce() {
        let artifact = |nonce, byte| Artifact {
            nonce,
            vector: vec![0x00, byte, 0x00, 0x38],
        };
        let first = [artifact(1, 0x3c), artifact(5, 0x3c)];
        assert_eq!(agree(&first, &first), Ok(()));
        assert_eq!(agree(&first, &[artifact(1, 0x3c), artifact(5, 0xbc)]), Err(5));
        assert_eq!(agree(&first, &[artifact(2, 0x3c), artifact(5, 0x3c)]), Err(1));
    }
}
