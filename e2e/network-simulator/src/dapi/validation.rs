//! Having our own ML nodes recompute samples of every host's artifacts, ours included: one request per host and model
//! to one node, the result as a callback, the vote from it.

use super::{Node, Status, job};
use crate::{
    event::{Answer, Call, Check, Effect, Origin, Request, Timer},
    exam::Exam,
    network::Network,
    rivals, sample,
    scenario::Model,
};
use kernels::{artifact, scheme::Artifact};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Then the vote is against the host.
const MAX_ATTEMPTS: u32 = 30;

/// How far each sample is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    exam: u64,
    samples: BTreeMap<(usize, String), Stage>,
    next_node: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be sent, after so many failed attempts.
    Due(u32),
    /// Sent; a node has it or is about to.
    Sent(u32),
    Done,
}

/// Sends what is due, and looks again later while anything is.
pub fn dispatch(net: &mut Network, exam_id: u64) -> Vec<Effect> {
    let height = net.height();
    let Some(exam) = net
        .exam
        .as_ref()
        .filter(|exam| exam.id == exam_id && exam.window.validates(height))
    else {
        return Vec::new();
    };
    if !net.dapi.up {
        return retry_later(net, exam_id);
    }
    if net.dapi.validation.exam != exam_id {
        let samples = subjects(exam).into_iter().map(|key| (key, Stage::Due(0))).collect();
        net.dapi.validation = Progress {
            exam: exam_id,
            samples,
            next_node: 0,
        };
    }
    let due: Vec<((usize, String), u32)> = net
        .dapi
        .validation
        .samples
        .iter()
        .filter_map(|(key, stage)| match stage {
            Stage::Due(attempts) => Some((key.clone(), *attempts)),
            Stage::Sent(_) | Stage::Done => None,
        })
        .collect();
    let mut effects = Vec::new();
    for (key, attempts) in due {
        effects.extend(attempt(net, exam_id, key, attempts));
    }
    if net.dapi.validation.samples.values().any(|stage| *stage != Stage::Done) {
        effects.extend(retry_later(net, exam_id));
    }
    effects
}

fn retry_later(net: &Network, exam: u64) -> Vec<Effect> {
    vec![Effect::After {
        ms: net.dapi.timing.retry_ms,
        timer: Timer::Dispatch { exam },
    }]
}

/// Every host and model with a commitment.
fn subjects(exam: &Exam) -> Vec<(usize, String)> {
    let committed = |(index, entry): (usize, &crate::exam::Entry)| {
        entry
            .books
            .iter()
            .filter(|(_, book)| book.committed() > 0)
            .map(move |(model, _)| (index, model.clone()))
            .collect()
    };
    exam.entries
        .iter()
        .enumerate()
        .flat_map(|pair| -> Vec<(usize, String)> { committed(pair) })
        .collect()
}

fn attempt(net: &mut Network, exam_id: u64, key: (usize, String), attempts: u32) -> Option<Effect> {
    if attempts >= MAX_ATTEMPTS {
        vote(net, key.0, -1);
        net.dapi.validation.samples.insert(key, Stage::Done);
        return None;
    }
    let call = request(net, exam_id, &key);
    let stage = if call.is_some() {
        Stage::Sent(attempts)
    } else {
        Stage::Due(attempts + 1)
    };
    net.dapi.validation.next_node += usize::from(call.is_some());
    net.dapi.validation.samples.insert(key, stage);
    call
}

fn request(net: &Network, exam_id: u64, key: &(usize, String)) -> Option<Effect> {
    let (subject, model_id) = key;
    let exam = net.exam.as_ref()?;
    let model = net.model(model_id)?;
    let capable: Vec<&Node> = net
        .dapi
        .nodes
        .iter()
        .filter(|node| node.current.0 == Status::Poc && node.model() == Some(model_id))
        .collect();
    let node = capable.get(net.dapi.validation.next_node % capable.len().max(1))?;
    let book = exam.entries.get(*subject)?.books.get(model_id)?;
    let name = format!(
        "{exam_id}/{}/{}",
        net.hosts[net.ours].address, net.hosts[*subject].address
    );
    let most = net.scenario.parameters.validation_sample_size;
    let sample = sample::draw(book, most, &name);
    let mut body = request_body(net, exam, model, &sample);
    body["public_key"] = net.hosts[*subject].public_key.clone().into();
    body["node_id"] = node.node_num.into();
    body["node_count"] = capable.len().into();
    let check = Check {
        stage_height: exam.window.stage_height,
        node_num: node.node_num,
        public_key: net.hosts[*subject].public_key.clone(),
        model: model_id.clone(),
        total: sample::size(book, most),
        fraud: rivals::is_fraud(net, *subject),
    };
    Some(Effect::Call(Call {
        request: Request::Validate(check),
        origin: Origin::Validation {
            exam: exam_id,
            subject: *subject,
            model: model_id.clone(),
        },
        host: node.spec.host.clone(),
        port: node.spec.poc_port,
        method: "POST",
        path: format!(
            "/{}{}/api/v1/inference/pow/generate",
            job::NODE_VERSION,
            job::segment_path(&node.spec.poc_segment)
        ),
        body: Some(body.to_string()),
        timeout_ms: net.dapi.timing.request_timeout_ms,
    }))
}

/// All but who is asked and about whom.
fn request_body(net: &Network, exam: &Exam, model: &Model, sample: &[Artifact]) -> Value {
    let nonces: Vec<i64> = sample.iter().map(|item| item.nonce).collect();
    let artifacts: Vec<Value> = sample
        .iter()
        .map(|item| json!({"nonce": item.nonce, "vector_b64": artifact::to_base64(&item.vector)}))
        .collect();
    let mut body = json!({
        "block_hash": exam.seed,
        "block_height": exam.window.stage_height,
        "nonces": nonces,
        "params": {"model": model.id, "seq_len": model.seq_len},
        "url": job::callback_url(net, &model.id),
        "validation": {"artifacts": artifacts},
        "stat_test": {
            "dist_threshold": f64::from(model.stat_test.dist_milli) / 1000.0,
            "p_mismatch": f64::from(model.stat_test.p_mismatch_bp) / 10_000.0,
            "p_value_threshold": f64::from(model.stat_test.p_value_threshold_bp) / 10_000.0,
        },
    });
    if exam.stronger_rng {
        body["poc_stronger_rng"] = true.into();
    }
    body
}

/// The node took the request, or did not; a refused one goes to the next node at the next look.
pub fn on_reply(net: &mut Network, exam: u64, key: &(usize, String), result: &Result<Answer, String>) {
    let accepted = result.as_ref().is_ok_and(Answer::is_success);
    let progress = &mut net.dapi.validation;
    if progress.exam == exam
        && !accepted
        && let Some(stage @ Stage::Sent(_)) = progress.samples.get_mut(key)
        && let Stage::Sent(attempts) = *stage
    {
        *stage = Stage::Due(attempts + 1);
    }
}

/// A node has recomputed a sample.
pub fn finished(net: &mut Network, subject: usize, model: &str, total: i64, fraud: bool) {
    let key = (subject, model.to_owned());
    match net.dapi.validation.samples.get_mut(&key) {
        Some(Stage::Done) | None => return,
        Some(stage) => *stage = Stage::Done,
    }
    vote(net, subject, if fraud { -1 } else { total });
}

/// A vote is a transaction: without a fee grant or a running DAPI it does not exist.
fn vote(net: &mut Network, subject: usize, value: i64) {
    let ours = net.ours;
    if !net.dapi.can_transact() {
        return;
    }
    if let Some(exam) = &mut net.exam {
        exam.entries[subject].ballot.cast(ours, value);
    }
}
