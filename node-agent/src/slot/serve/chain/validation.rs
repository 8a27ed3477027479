//! `/api/v1/inference/pow/generate`: validation of other hosts' artifacts, and single nonces on request.

use super::{
    Context,
    answers::{Answer, detail},
    fields::{self, Fields, lax_integer},
    pow,
};
use crate::slot::{
    clock::now_ms,
    serve::{
        config::backend_port,
        jobs::{Job, MAX_QUEUED_NONCES, Outcome, merge},
        state::{Core, Phase},
    },
};
use http::StatusCode;
use kernels::scheme::{Artifact, StatTest};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A caller that waits is kept for this long per chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// `POST /generate`.
pub async fn generate(core: &Core, body: &[u8]) -> Answer {
    let (mut job, wait) = match parse(body, core) {
        Ok(parsed) => parsed,
        Err(answer) => return answer,
    };
    let now = now_ms();
    let chunks = job.nonces.len().div_ceil(job.request.batch_size.max(1) as usize).max(1);
    let queued = core.update(|state| {
        if state.jobs.queued_nonces() + job.nonces.len() > MAX_QUEUED_NONCES {
            return Err(detail(StatusCode::TOO_MANY_REQUESTS, "too many nonces are queued"));
        }
        let groups = &state.groups;
        let Some(group) = state.jobs.take_turn(|group| groups[group].phase == Phase::Ready) else {
            return Err(detail(StatusCode::SERVICE_UNAVAILABLE, "No healthy PoC backend"));
        };
        job.id = format!(
            "{}:{}",
            backend_port(group),
            new_uuid(&core.config.identity.pod_uid, now)
        );
        let id = job.id.clone();
        state.jobs.push(group, job, now);
        Ok(id)
    });
    match queued {
        Err(answer) => answer,
        Ok(id) if wait => wait_for(core, &id, chunks).await,
        Ok(id) => Answer::ok(json!({ "status": "queued", "request_id": id })),
    }
}

async fn wait_for(core: &Core, id: &str, chunks: usize) -> Answer {
    let pending = |outcome: Option<&Outcome>| matches!(outcome, Some(Outcome::Queued | Outcome::Running));
    let done = core.until(|state| !pending(state.jobs.outcome(id)));
    if tokio::time::timeout(CHUNK_TIMEOUT * chunks as u32, done).await.is_err() {
        return detail(StatusCode::SERVICE_UNAVAILABLE, "the backend did not answer in time");
    }
    match core.read(|state| state.jobs.outcome(id).cloned()) {
        Some(Outcome::Completed(fields)) => Answer::ok(with_status("completed", id, &fields)),
        Some(Outcome::Failed(reason)) => detail(StatusCode::BAD_GATEWAY, reason),
        _ => detail(StatusCode::SERVICE_UNAVAILABLE, "cancelled by a stop"),
    }
}

/// `GET /generate/{id}`.
pub fn result(context: &Context, id: &str) -> Answer {
    let Some(outcome) = context.core.read(|state| state.jobs.outcome(id).cloned()) else {
        return detail(StatusCode::NOT_FOUND, "Request not found");
    };
    Answer::ok(match outcome {
        Outcome::Queued => with_status("queued", id, &Value::Null),
        Outcome::Running => with_status("running", id, &Value::Null),
        Outcome::Completed(fields) => with_status("completed", id, &fields),
        Outcome::Failed(reason) => with_status("failed", id, &json!({ "error": reason })),
        Outcome::Cancelled => with_status("cancelled", id, &Value::Null),
    })
}

fn with_status(status: &str, id: &str, fields: &Value) -> Value {
    let mut body = json!({ "status": status, "request_id": id });
    merge(&mut body, fields);
    body
}

/// Reads the body: the job and whether the caller waits.
fn parse(body: &[u8], core: &Core) -> Result<(Job, bool), Answer> {
    let object = fields::parse(body)?;
    let mut wrong = Vec::new();
    let mut fields = Fields::new(&object, &mut wrong);
    let request = pow::read_round(&mut fields, &core.config.prepare.scheme);
    let wait = fields.switch("wait");
    let nonces = read_nonces(&mut fields);
    let received = fields.inner("validation", false, read_artifacts);
    let default = StatTest::default();
    // DAPI's p_value_threshold is not read, as upstream does not read it.
    let test = fields
        .inner("stat_test", false, |test| StatTest {
            dist_threshold: test.number_or("dist_threshold", default.dist_threshold),
            p_mismatch: test.number_or("p_mismatch", default.p_mismatch),
            fraud_threshold: test.number_or("fraud_threshold", default.fraud_threshold),
        })
        .unwrap_or(default);
    if !wrong.is_empty() {
        return Err(fields::unprocessable(&wrong));
    }
    let bad = |text: String| detail(StatusCode::BAD_REQUEST, text);
    crate::slot::serve::round::admission::check(&request).map_err(bad)?;
    test.check().map_err(|error| bad(error.to_string()))?;
    if request.model != core.config.model() {
        return Err(detail(
            StatusCode::CONFLICT,
            json!({
                "error": "params mismatch",
                "requested": { "model": request.model },
                "deployed": { "model": core.config.model() },
            }),
        ));
    }
    let asked: BTreeSet<i64> = nonces.iter().copied().collect();
    if let Some(received) = &received
        && received.keys().copied().collect::<BTreeSet<_>>() != asked
    {
        return Err(bad(
            "validation artifacts must be of exactly the nonces asked for".to_owned()
        ));
    }
    let received = received.map(|mut by_nonce| {
        let in_order = |nonce: &i64| by_nonce.remove(nonce).map(|vector| Artifact { nonce: *nonce, vector });
        nonces.iter().filter_map(in_order).collect()
    });
    let job = Job {
        id: String::new(),
        request,
        nonces,
        received,
        test,
        done: 0,
        computed: Vec::new(),
    };
    Ok((job, wait))
}

/// Nonces in the order asked, each once.
fn read_nonces(fields: &mut Fields<'_>) -> Vec<i64> {
    let items = fields.list("nonces");
    let mut seen = BTreeSet::new();
    let mut nonces = Vec::new();
    for item in items {
        match lax_integer(item).filter(|nonce| i32::try_from(*nonce).is_ok()) {
            Some(nonce) if seen.insert(nonce) => nonces.push(nonce),
            Some(_) => {}
            None => {
                fields.complain("nonces", "int_parsing", "Input should be 32-bit integers");
                break;
            }
        }
    }
    if items.is_empty() {
        fields.complain("nonces", "missing", "Field required");
    }
    nonces
}

/// Received artifacts by nonce. A vector that is no base64 is one that does not match.
fn read_artifacts(validation: &mut Fields<'_>) -> BTreeMap<i64, Vec<u8>> {
    let mut artifacts = BTreeMap::new();
    for item in validation.list("artifacts") {
        let nonce = item.get("nonce").and_then(lax_integer);
        let vector = item.get("vector_b64").and_then(Value::as_str);
        let (Some(nonce), Some(vector)) = (nonce, vector) else {
            validation.complain("artifacts", "missing", "each artifact needs nonce and vector_b64");
            break;
        };
        artifacts.insert(nonce, kernels::artifact::from_base64(vector).unwrap_or_default());
    }
    artifacts
}

/// An id no other job of this pod has, in the form of a version 4 UUID.
fn new_uuid(pod_uid: &str, now_ms: i64) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let digest = Sha256::digest(format!("{pod_uid}/{now_ms}/{count}"));
    let text = hex::encode(&digest[..16]);
    format!(
        "{}-{}-4{}-8{}-{}",
        &text[..8],
        &text[8..12],
        &text[13..16],
        &text[17..20],
        &text[20..]
    )
}
