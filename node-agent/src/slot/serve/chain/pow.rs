//! `/api/v1/inference/pow`: status, start and stop of a round.

use super::{
    answers::{Answer, detail},
    fields::{self, Fields},
    ports,
};
use crate::slot::{
    clock::now_ms,
    serve::{
        config::backend_port,
        journal::record::{End, Record},
        request::RoundRequest,
        round::admission::{self, Admission},
        stagger,
        state::{Core, Phase, StartPhase, State},
    },
};
use http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// Engines that have not taken a round after this time are reported as errors; they still take it later.
const ENGINES_ANSWER: Duration = Duration::from_secs(2);
/// Defaults of upstream's proxy; DAPI omits both.
const BATCH_SIZE: u32 = 32;
const K_DIM: i32 = 12;

/// One word for the whole node.
pub fn summary(state: &State) -> &'static str {
    match (state.ready(), state.active()) {
        (0, _) => "NO_BACKENDS",
        (_, Some(_)) => "GENERATING",
        (_, None) => "IDLE",
    }
}

/// `GET /status`.
pub fn status(core: &Core) -> Answer {
    let ports = ports(core);
    Answer::ok(core.read(|state| {
        let word = if state.active().is_some() { "GENERATING" } else { "IDLE" };
        let backends: Vec<Value> = ports
            .filter(|(group, _)| state.groups[*group].phase == Phase::Ready)
            .map(|(_, port)| json!({ "port": port, "status": word }))
            .collect();
        json!({ "status": summary(state), "backends": backends })
    }))
}

/// `POST /init/generate`.
pub async fn start(core: &Core, body: &[u8]) -> Answer {
    let asked = std::time::Instant::now();
    let request = match parse(body, &core.config.prepare.scheme) {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let now = now_ms();
    let begun = core.update(|state| match state.admit(&request, &core.config, now) {
        Admission::Start(resume) => {
            let slot = state.memory.assignment.as_ref().map_or(0, |assignment| assignment.slot);
            let delay = stagger::delay(slot, core.config.start_stagger);
            let id = state.begin_round(request.clone(), resume, now);
            state.hold_back(delay.as_millis() as i64);
            Ok(id)
        }
        refusal => Err(refusal),
    });
    match begun {
        Ok(id) => {
            if core.read(|state| state.memory.stopped) {
                // A stop of days ago must not cost an exam.
                core.remember(|state| state.memory.stopped = false);
            }
            tracing::info!(
                height = request.height,
                seed = request.seed,
                node_num = request.node_num,
                "round begins"
            );
            engines_answer(core, id, asked).await
        }
        Err(refusal) => refused(core, &request, refusal),
    }
}

/// The answer to a start that begins nothing.
fn refused(core: &Core, request: &RoundRequest, refusal: Admission) -> Answer {
    match refusal {
        Admission::Repeat(body) => Answer::ok(body.unwrap_or_else(|| core.read(started_body))),
        Admission::WrongModel => detail(
            StatusCode::CONFLICT,
            json!({
                "error": "params mismatch",
                "requested": { "model": request.model, "seq_len": request.seq_len, "k_dim": request.k_dim },
                "deployed": { "model": core.config.model(), "scheme": core.config.prepare.scheme },
            }),
        ),
        Admission::NoBackend => detail(StatusCode::SERVICE_UNAVAILABLE, "No healthy PoC backend"),
        Admission::NoSlot => detail(StatusCode::SERVICE_UNAVAILABLE, "this pod holds no slot any more"),
        Admission::OtherNode(own) => {
            tracing::warn!(
                own,
                asked = request.node_num,
                height = request.height,
                "a start is for another node"
            );
            detail(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("this is node {own}, not node {}: ask again", request.node_num),
            )
        }
        Admission::Conflict | Admission::Start(_) => detail(
            StatusCode::CONFLICT,
            "PoC generation already in progress for another round",
        ),
    }
}

/// Waits for the engines' word and tells DAPI.
async fn engines_answer(core: &Core, id: i64, asked: std::time::Instant) -> Answer {
    let all_took_it = core.until(|state| {
        !state.is_active(id)
            || state
                .groups
                .iter()
                .filter(|group| group.phase == Phase::Ready)
                .all(|group| group.round == Some(id))
    });
    let in_time = tokio::time::timeout(ENGINES_ANSWER, all_took_it).await.is_ok();
    let seconds = asked.elapsed().as_secs_f64();
    core.update(|state| {
        let body = started_body(state);
        let took = body["results"].as_array().map_or(0, Vec::len);
        if took == 0 {
            tracing::error!(in_time, "no engine took the round");
            if state.is_active(id) {
                state.end_round(End::Failed, 0, now_ms());
            }
            return detail(StatusCode::BAD_GATEWAY, "No backend started generation");
        }
        state.start_times.push((StartPhase::RequestToEngine, seconds));
        state.note(&Record::Answered { body: body.clone() });
        Answer::ok(body)
    })
}

/// Body of the first answer, from what the engines have taken.
fn started_body(state: &State) -> Value {
    let id = state.newest().map(|round| round.id);
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for (group, entry) in state.groups.iter().enumerate() {
        let port = backend_port(group);
        if entry.round.is_some() && entry.round == id {
            results.push(json!({ "port": port, "status": "OK" }));
        } else {
            let error = if entry.error.is_empty() {
                "not ready"
            } else {
                &entry.error
            };
            errors.push(json!({ "port": port, "error": error }));
        }
    }
    json!({
        "status": "OK",
        "backends": results.len(),
        "n_groups": state.groups.len(),
        "results": results,
        "errors": if errors.is_empty() { Value::Null } else { errors.into() },
    })
}

/// `POST /stop`: generation and queued jobs end at once.
pub fn stop(core: &Core) -> Answer {
    let now = now_ms();
    core.update(|state| {
        state.end_round(End::Stopped, 0, now);
        state.jobs.cancel_all(now);
    });
    let results: Vec<Value> = ports(core)
        .map(|(_, port)| json!({ "port": port, "status": "stopped" }))
        .collect();
    Answer::ok(json!({ "status": "OK", "results": results, "errors": null }))
}

/// Reads the body of a start.
fn parse(body: &[u8], scheme: &str) -> Result<RoundRequest, Answer> {
    let object = fields::parse(body)?;
    let mut wrong = Vec::new();
    let request = read_round(&mut Fields::new(&object, &mut wrong), scheme);
    if !wrong.is_empty() {
        return Err(fields::unprocessable(&wrong));
    }
    admission::check(&request).map_err(|text| detail(StatusCode::BAD_REQUEST, text))?;
    Ok(request)
}

/// The fields that a start and a validation have in common.
pub fn read_round(fields: &mut Fields<'_>, scheme: &str) -> RoundRequest {
    let (model, seq_len, k_dim) = fields
        .inner("params", true, |params| {
            params.forbid_others(&["model", "seq_len", "k_dim"]);
            (
                params.text("model"),
                params.integer("seq_len"),
                params.integer_or("k_dim", K_DIM),
            )
        })
        .unwrap_or_default();
    let callback_url = fields.optional_text("url").unwrap_or_default();
    if !callback_url.is_empty() && !callback_url.starts_with("http://") && !callback_url.starts_with("https://") {
        fields.complain("url", "url_scheme", "URL scheme should be 'http' or 'https'");
    }
    RoundRequest {
        height: fields.integer("block_height"),
        seed: fields.text("block_hash"),
        public_key: fields.text("public_key"),
        node_num: fields.integer("node_id"),
        node_count: fields.integer("node_count"),
        model,
        seq_len,
        k_dim,
        batch_size: fields.integer_or("batch_size", BATCH_SIZE).clamp(1, 4_096),
        stronger_rng: fields.switch("poc_stronger_rng"),
        callback_url,
        scheme: scheme.to_owned(),
    }
}

#[cfg(test)]
mod tests;
