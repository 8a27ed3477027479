//! The inference port. The engine behind it proves and does not chat, and says so.

use super::{
    Context,
    answers::{self, Answer, detail},
};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

/// Answers one request.
pub fn answer(context: &Context, method: &Method, path: &str) -> Answer {
    let core = &context.core;
    let (serving, generating) =
        core.read(|state| (!state.memory.stopped && state.ready() > 0, state.active().is_some()));
    match (method, path) {
        (&Method::GET, "/health") if serving => Answer::text(""),
        (&Method::GET, "/health") => detail(StatusCode::SERVICE_UNAVAILABLE, "no backend is healthy"),
        (&Method::GET, "/livez" | "/readyz") => Answer::ok(json!({ "ready": serving })),
        (&Method::GET, "/v1/models") => {
            let models = if serving {
                vec![json!({ "id": core.config.model(), "object": "model", "owned_by": "gonka-fleet" })]
            } else {
                Vec::new()
            };
            Answer::ok(json!({ "object": "list", "data": models }))
        }
        (&Method::POST, "/v1/chat/completions" | "/v1/completions") if generating => busy(),
        (&Method::POST, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings") => {
            let body = json!({
                "error": {
                    "message": "the engine of this slot computes proofs only: it has no text generation",
                    "type": "not_implemented",
                    "code": 501,
                },
            });
            Answer::json(StatusCode::NOT_IMPLEMENTED, body)
        }
        (_, "/health" | "/v1/models" | "/v1/chat/completions" | "/v1/completions") => answers::wrong_method(),
        _ => answers::not_found(),
    }
}

/// As upstream's plugin while a round runs.
fn busy() -> Answer {
    let body = json!({
        "error": {
            "message": "PoC generation is active: try again shortly",
            "type": "poc_generation_active",
            "code": 503,
        },
    });
    Answer {
        header: Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
        ..Answer::json(StatusCode::SERVICE_UNAVAILABLE, body)
    }
}
