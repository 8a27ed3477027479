//! Bringing one node somewhere: a list of requests, the next sent when the one before is answered. A new job replaces
//! the old one; answers that come too late are ignored.

use super::{Node, PocStatus, Status};
use crate::{
    event::{Answer, Call, Effect, Origin, Request, Start},
    ledger::StartRequest,
    network::Network,
};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Prefix of every path to a node but that of its metrics: the chain's ML-node version, not the node's own.
pub const NODE_VERSION: &str = "v3.0.8";
/// DAPI waits so long for a model to load.
const UP_TIMEOUT_MS: u64 = 900_000;

/// Where a node is to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Ask how it is.
    Poll,
    /// Have it generate.
    Start,
    /// End generation at validation start.
    Halt,
    /// Back to inference, loading the model when it is not there.
    ToInference,
    /// Stop everything: the node is disabled.
    StopAll,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    State,
    PowStatus,
    Health,
    Models,
    Init,
    PowStop,
    Stop,
    Up,
}

/// A job under way.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: u64,
    pub purpose: Purpose,
    current: Ask,
    rest: VecDeque<Ask>,
    sent_ms: u64,
    healthy: bool,
}

/// Starts a job on a node and sends its first request.
pub fn begin(net: &mut Network, id: &str, purpose: Purpose) -> Vec<Effect> {
    let mut asks: VecDeque<Ask> = match purpose {
        Purpose::Poll => [Ask::State, Ask::PowStatus, Ask::Health, Ask::Models].into(),
        Purpose::Start => [Ask::PowStatus].into(),
        Purpose::Halt => [Ask::PowStop].into(),
        Purpose::ToInference => [Ask::State, Ask::Health, Ask::Models].into(),
        Purpose::StopAll => [Ask::Stop].into(),
    };
    let Some(current) = asks.pop_front() else {
        return Vec::new();
    };
    net.dapi.jobs += 1;
    let job = Job {
        id: net.dapi.jobs,
        purpose,
        current,
        rest: asks,
        sent_ms: net.now_ms,
        healthy: true,
    };
    let Some(place) = net.dapi.place(id) else {
        return Vec::new();
    };
    net.dapi.nodes[place].job = Some(job);
    call(net, place).into_iter().collect()
}

/// A node has answered, or not.
pub fn on_reply(net: &mut Network, id: &str, job_id: u64, result: &Result<Answer, String>) -> Vec<Effect> {
    let Some(place) = net.dapi.place(id) else {
        return Vec::new();
    };
    let running = &mut net.dapi.nodes[place].job;
    let Some(mut job) = running.take_if(|job| job.id == job_id) else {
        return Vec::new();
    };
    let ask = job.current;
    if ask == Ask::Init {
        note_start(net, place, &job, result);
    }
    let now_ms = net.now_ms;
    let node = &mut net.dapi.nodes[place];
    let more = match result {
        Ok(answer) if answer.is_success() => succeeded(node, &mut job, ask, answer, now_ms),
        Ok(answer) => failed(node, &mut job, ask, &status_text(answer), now_ms),
        Err(error) => failed(node, &mut job, ask, error, now_ms),
    };
    job.rest.extend(more);
    let Some(following) = job.rest.pop_front() else {
        return Vec::new();
    };
    job.current = following;
    job.sent_ms = now_ms;
    node.job = Some(job);
    call(net, place).into_iter().collect()
}

fn status_text(answer: &Answer) -> String {
    let text: String = answer.text().chars().take(200).collect();
    format!("status {}: {text}", answer.status)
}

fn succeeded(node: &mut Node, job: &mut Job, ask: Ask, answer: &Answer, now_ms: u64) -> Vec<Ask> {
    match ask {
        Ask::State => {
            let state = answer.json();
            state["version"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut node.version);
            node.poc_validation_inference = state["poc_validation_inference"] == Value::Bool(true);
            job.healthy &= state["state"] == "INFERENCE";
            if job.purpose == Purpose::Poll && !job.healthy {
                node.set_current((Status::Stopped, PocStatus::Idle), now_ms);
            }
        }
        Ask::PowStatus => return pow_status(node, job, &answer.json(), now_ms),
        Ask::Health | Ask::PowStop => {}
        Ask::Models => {
            job.healthy &= serves(node, &answer.json());
            match job.purpose {
                Purpose::ToInference => return arrived(node, job, now_ms),
                Purpose::Poll if !job.healthy && node.current.0 == Status::Inference => {
                    node.fail("the model is not served".to_owned(), now_ms);
                }
                Purpose::Poll | Purpose::Start | Purpose::Halt | Purpose::StopAll => {}
            }
        }
        Ask::Init => node.set_current((Status::Poc, PocStatus::Generating), now_ms),
        Ask::Stop => {
            if job.purpose == Purpose::StopAll {
                node.set_current((Status::Stopped, PocStatus::Idle), now_ms);
            }
        }
        Ask::Up => node.set_current((Status::Inference, PocStatus::Idle), now_ms),
    }
    Vec::new()
}

fn pow_status(node: &mut Node, job: &Job, answer: &Value, now_ms: u64) -> Vec<Ask> {
    let generating = answer["status"] == "GENERATING";
    match job.purpose {
        Purpose::Start if generating => {
            node.set_current((Status::Poc, PocStatus::Generating), now_ms);
            Vec::new()
        }
        Purpose::Start => vec![Ask::Init],
        Purpose::Poll => {
            let current = match node.current {
                // Found idle while it should generate: started again at the next block.
                (Status::Poc, PocStatus::Generating) if !generating => (Status::Inference, PocStatus::Idle),
                (Status::Unknown, _) if job.healthy => (Status::Inference, PocStatus::Idle),
                current => current,
            };
            node.set_current(current, now_ms);
            Vec::new()
        }
        Purpose::Halt | Purpose::ToInference | Purpose::StopAll => Vec::new(),
    }
}

fn serves(node: &Node, models: &Value) -> bool {
    let Some(wanted) = node.model() else {
        return false;
    };
    models["data"]
        .as_array()
        .is_some_and(|list| list.iter().any(|model| model["id"] == **wanted))
}

/// After the look: nothing to do when the right model serves, else stop and load it.
fn arrived(node: &mut Node, job: &Job, now_ms: u64) -> Vec<Ask> {
    if job.healthy {
        node.set_current((Status::Inference, PocStatus::Idle), now_ms);
        vec![Ask::PowStatus]
    } else {
        node.set_current((Status::Stopped, PocStatus::Idle), now_ms);
        vec![Ask::Stop, Ask::Up, Ask::PowStatus]
    }
}

fn failed(node: &mut Node, job: &mut Job, ask: Ask, error: &str, now_ms: u64) -> Vec<Ask> {
    match (job.purpose, ask) {
        // A node that serves nothing yet is not lost: it gets its model.
        (Purpose::ToInference, Ask::Health) => {
            job.healthy = false;
            Vec::new()
        }
        (Purpose::ToInference, Ask::Models) => {
            job.healthy = false;
            arrived(node, job, now_ms)
        }
        (Purpose::Poll, Ask::State) => {
            job.rest.clear();
            node.fail(format!("status query failed: {error}"), now_ms);
            Vec::new()
        }
        (Purpose::Poll, _) if node.current.0 == Status::Inference => {
            job.rest.clear();
            node.fail(format!("inference is not healthy: {error}"), now_ms);
            Vec::new()
        }
        (Purpose::Poll, _) => {
            node.status_ms = now_ms;
            Vec::new()
        }
        (Purpose::Halt, _) | (_, Ask::Stop) => Vec::new(),
        (Purpose::Start | Purpose::ToInference | Purpose::StopAll, _) => {
            job.rest.clear();
            node.fail(format!("{ask:?} failed: {error}"), now_ms);
            Vec::new()
        }
    }
}

fn note_start(net: &mut Network, place: usize, job: &Job, result: &Result<Answer, String>) {
    let ours = net.ours;
    let status = result.as_ref().map_or(0, |answer| answer.status);
    let known = &net.dapi.nodes[place];
    let Some(exam) = &mut net.exam else {
        return;
    };
    let t_ms = exam.since_start(job.sent_ms);
    let noted = exam.entries[ours].node_mut(known.node_num);
    if let Some(node) = noted.filter(|node| node.node_id == known.spec.id) {
        node.requests.push(StartRequest { t_ms, status });
    }
}

fn call(net: &Network, place: usize) -> Option<Effect> {
    let node = net.dapi.nodes.get(place)?;
    let job = node.job.as_ref()?;
    let request = request(net, node, job.current)?;
    let (method, inference_port, path) = match job.current {
        Ask::State => ("GET", false, "/api/v1/state"),
        Ask::PowStatus => ("GET", false, "/api/v1/inference/pow/status"),
        Ask::Health => ("GET", true, "/health"),
        Ask::Models => ("GET", true, "/v1/models"),
        Ask::Init => ("POST", false, "/api/v1/inference/pow/init/generate"),
        Ask::PowStop => ("POST", false, "/api/v1/inference/pow/stop"),
        Ask::Stop => ("POST", false, "/api/v1/stop"),
        Ask::Up => ("POST", false, "/api/v1/inference/up"),
    };
    let body = match job.current {
        Ask::State | Ask::PowStatus | Ask::Health | Ask::Models => None,
        Ask::Init => Some(init_body(net, node)?.to_string()),
        Ask::PowStop | Ask::Stop => Some("{}".to_owned()),
        Ask::Up => Some(up_body(net, node)?.to_string()),
    };
    let (port, segment) = if inference_port {
        (node.spec.inference_port, &node.spec.inference_segment)
    } else {
        (node.spec.poc_port, &node.spec.poc_segment)
    };
    let timeout_ms = if job.current == Ask::Up {
        UP_TIMEOUT_MS
    } else {
        net.dapi.timing.request_timeout_ms
    };
    Some(Effect::Call(Call {
        request,
        origin: Origin::Job {
            node_id: node.spec.id.clone(),
            job: job.id,
        },
        host: node.spec.host.clone(),
        port,
        method,
        path: format!("/{NODE_VERSION}{}{path}", segment_path(segment)),
        body,
        timeout_ms,
    }))
}

fn request(net: &Network, node: &Node, ask: Ask) -> Option<Request> {
    Some(match ask {
        Ask::State => Request::State,
        Ask::PowStatus => Request::PowStatus,
        Ask::Health => Request::Health,
        Ask::Models => Request::Models,
        Ask::Init => Request::Init(Start {
            stage_height: net.exam.as_ref()?.window.stage_height,
            node_num: node.node_num,
            node_count: net.dapi.node_count(),
            model: node.model()?.clone(),
        }),
        Ask::PowStop => Request::PowStop,
        Ask::Stop => Request::Stop,
        Ask::Up => Request::Up(node.model()?.clone()),
    })
}

/// A path segment with exactly one slash before it.
pub fn segment_path(segment: &str) -> String {
    let trimmed = segment.trim_matches('/');
    if trimmed.is_empty() {
        String::new()
    } else {
        format!("/{trimmed}")
    }
}

/// The start request: no batch size, no `k_dim`, and `poc_stronger_rng` only when it is true.
fn init_body(net: &Network, node: &Node) -> Option<Value> {
    let exam = net.exam.as_ref()?;
    let model = net.model(node.model()?)?;
    let mut body = json!({
        "block_hash": exam.seed,
        "block_height": exam.window.stage_height,
        "public_key": net.hosts[net.ours].public_key,
        "node_id": node.node_num,
        "node_count": net.dapi.node_count(),
        "params": {"model": model.id, "seq_len": model.seq_len},
        "url": callback_url(net, &model.id),
    });
    if exam.stronger_rng {
        body["poc_stronger_rng"] = true.into();
    }
    Some(body)
}

/// The model to load, with the chain's arguments first and the node's own after them, unless the chain's have the same
/// flag spelled the same.
fn up_body(net: &Network, node: &Node) -> Option<Value> {
    let (model, given) = node.spec.models.iter().next()?;
    let chain = crate::views::rest_epoch::model_args(net, model);
    let own = given.args.chunk_by(|_, next| !next.starts_with("--"));
    let added = own.filter(|flag| !chain.contains(&flag[0])).flatten();
    let arguments: Vec<&String> = chain.iter().chain(added).collect();
    Some(json!({"model": model, "dtype": "float16", "additional_args": arguments}))
}

/// Where a model's results go; the model id in it is percent-encoded twice.
pub fn callback_url(net: &Network, model: &str) -> String {
    let twice = crate::http::percent_encode(&crate::http::percent_encode(model));
    format!("{}/v2/poc-batches/{twice}", net.dapi.callback_base)
}
