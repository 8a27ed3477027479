//! The rest of the management port: state, health, the model's life, GPUs, versions.
//!
//! The operator owns which model is loaded. `stop` and `down` end the work and close inference; the model stays in
//! memory, and an exam that comes anyway is not refused: during a Sprint nobody would call the model up again.

use super::{
    Context,
    answers::{self, Answer, detail},
    fields::{self, Fields},
    pow,
};
use crate::slot::{
    clock::now_ms,
    serve::{
        journal::{copier, record::End},
        state::{Core, State},
    },
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a blocking `up` waits for the model.
const LOAD: Duration = Duration::from_secs(1_200);

/// Everything below management that is not PoC.
pub async fn answer(context: &Context, method: &Method, path: &str, body: &[u8]) -> Answer {
    let core = &context.core;
    let (get, post, delete) = (method == Method::GET, method == Method::POST, method == Method::DELETE);
    match path {
        "/health" if get => health(core),
        "/livez" if get => Answer::ok(json!({ "status": "alive" })),
        "/readyz" if get => readyz(context),
        "/api/v1/state" if get => Answer::ok(core.read(|state| state_body(state, core))),
        "/api/v1/stop" | "/api/v1/inference/down" if post => stop(core),
        "/api/v1/inference/up" if post => up(core, body, true).await,
        "/api/v1/inference/up/async" if post => up(core, body, false).await,
        "/api/v1/inference/up/status" if get => up_status(core),
        "/api/v1/versions" if get => Answer::ok(json!({
            "version": version(),
            "vllm_version": null,
            "poc_validation_inference": true,
        })),
        "/api/v1/metrics" if get => Answer::text(format!(
            "mlnode_config_info{{schema=\"v1\"}} 1\n{}",
            context.metrics.render(core)
        )),
        "/api/v1/gpu/devices" | "/api/v1/gpu/driver" if get => {
            detail(StatusCode::SERVICE_UNAVAILABLE, "NVML is not available in this process")
        }
        "/api/v1/models/status" if post => model_status(core, body),
        "/api/v1/models/download" if post => download(core, body),
        "/api/v1/models" if delete => detail(
            StatusCode::CONFLICT,
            "weights belong to the operator of this slot and are mounted read-only",
        ),
        "/api/v1/models/list" if get => Answer::ok(json!({
            "models": [{ "model": model_of(core.config.model()), "status": "DOWNLOADED" }],
        })),
        "/api/v1/models/space" if get => space(core),
        _ if is_known(path) => answers::wrong_method(),
        _ => answers::not_found(),
    }
}

fn is_known(path: &str) -> bool {
    [
        "/health",
        "/livez",
        "/readyz",
        "/api/v1/state",
        "/api/v1/stop",
        "/api/v1/inference/down",
        "/api/v1/inference/up",
        "/api/v1/inference/up/async",
        "/api/v1/inference/up/status",
        "/api/v1/versions",
        "/api/v1/metrics",
        "/api/v1/gpu/devices",
        "/api/v1/gpu/driver",
        "/api/v1/models",
        "/api/v1/models/status",
        "/api/v1/models/download",
        "/api/v1/models/list",
        "/api/v1/models/space",
    ]
    .contains(&path)
}

fn version() -> String {
    format!("gonka-fleet-{}", env!("CARGO_PKG_VERSION"))
}

fn state_body(state: &State, core: &Core) -> Value {
    let up = !state.memory.stopped;
    let ready = state.ready() > 0;
    json!({
        "version": version(),
        "state": service_state(state),
        "poc_status": if up { pow::summary(state).into() } else { Value::Null },
        "inference_healthy": if up { ready.into() } else { Value::Null },
        "loaded_model": if up && ready { core.config.model().into() } else { Value::Null },
        "poc_validation_inference": true,
    })
}

/// INFERENCE also while the model loads, as upstream.
fn service_state(state: &State) -> &'static str {
    if state.memory.stopped { "STOPPED" } else { "INFERENCE" }
}

fn health(core: &Core) -> Answer {
    let (service, up, ready) = core.read(|state| {
        (
            service_state(state),
            !state.memory.stopped,
            state.ready() as u32 == core.config.replicas,
        )
    });
    let on_gpu = core.config.prepare.device.eq_ignore_ascii_case("cuda");
    // Upstream is unhealthy without NVML; that is no fault of an engine that needs no GPU.
    let healthy = (!up || ready) && !on_gpu;
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Answer::json(
        status,
        json!({
            "status": if healthy { "healthy" } else { "unhealthy" },
            "service_state": service,
            "gpu": { "available": false, "count": 0, "devices": [] },
            "managers": {
                "pow": { "running": false, "healthy": false },
                "inference": { "running": up, "healthy": up && ready },
                "train": { "running": false, "healthy": false },
            },
        }),
    )
}

fn readyz(context: &Context) -> Answer {
    let ready = context.doors.is_open() && context.core.read(|state| state.ready() > 0);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Answer::json(status, json!({ "ready": ready }))
}

fn stop(core: &Core) -> Answer {
    let now = now_ms();
    core.remember(|state| {
        state.end_round(End::Stopped, 0, now);
        state.jobs.cancel_all(now);
        state.memory.stopped = true;
    });
    answers::done()
}

async fn up(core: &Core, body: &[u8], wait: bool) -> Answer {
    let object = match fields::parse(body) {
        Ok(object) => object,
        Err(answer) => return answer,
    };
    let mut wrong = Vec::new();
    let model = Fields::new(&object, &mut wrong).text("model");
    if !wrong.is_empty() {
        return fields::unprocessable(&wrong);
    }
    if model != core.config.model() {
        return detail(
            StatusCode::CONFLICT,
            format!(
                "this slot serves {}: its operator decides what is loaded",
                core.config.model()
            ),
        );
    }
    core.remember(|state| state.memory.stopped = false);
    if !wait {
        return Answer::ok(json!({ "status": "accepted" }));
    }
    let loaded = core.until(|state| state.ready() > 0);
    if tokio::time::timeout(LOAD, loaded).await.is_err() {
        return detail(StatusCode::INTERNAL_SERVER_ERROR, "the model did not load in time");
    }
    answers::done()
}

fn up_status(core: &Core) -> Answer {
    Answer::ok(core.read(|state| {
        let ready = state.ready() > 0;
        let error = state
            .groups
            .iter()
            .map(|group| &group.error)
            .find(|error| !error.is_empty());
        let status = match (state.memory.stopped, ready) {
            (true, _) => "not_started",
            (false, true) => "completed",
            (false, false) => "in_progress",
        };
        json!({
            "status": status,
            "is_starting": status == "in_progress",
            "is_running": status == "completed",
            "elapsed_seconds": null,
            "error": error,
        })
    }))
}

fn model_of(id: &str) -> Value {
    json!({ "hf_repo": id, "hf_commit": null })
}

fn asked_model(body: &[u8]) -> Result<String, Answer> {
    let object = fields::parse(body)?;
    let mut wrong = Vec::new();
    let model = Fields::new(&object, &mut wrong).text("hf_repo");
    if wrong.is_empty() {
        Ok(model)
    } else {
        Err(fields::unprocessable(&wrong))
    }
}

fn model_status(core: &Core, body: &[u8]) -> Answer {
    let model = match asked_model(body) {
        Ok(model) => model,
        Err(answer) => return answer,
    };
    let status = if model == core.config.model() {
        "DOWNLOADED"
    } else {
        "NOT_FOUND"
    };
    Answer::ok(json!({ "model": model_of(&model), "status": status, "progress": null, "error_message": null }))
}

/// Nothing is ever downloaded here: weights are staged by the operator.
fn download(core: &Core, body: &[u8]) -> Answer {
    let model = match asked_model(body) {
        Ok(model) => model,
        Err(answer) => return answer,
    };
    let status = if model == core.config.model() {
        "DOWNLOADED"
    } else {
        "IGNORED"
    };
    let body = json!({ "task_id": model, "status": status, "model": model_of(&model) });
    Answer::json(StatusCode::ACCEPTED, body)
}

fn space(core: &Core) -> Answer {
    let free = copier::free_bytes(&core.config.run_dir);
    Answer::ok(json!({
        "cache_size_gb": 0.0,
        "available_gb": free as f64 / f64::from(1 << 30),
        "cache_path": core.config.prepare.weights_path,
    }))
}
