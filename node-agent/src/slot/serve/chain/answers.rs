//! Answers of the chain door, as values.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// What goes back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Body.
    pub body: Content,
    /// One header more.
    pub header: Option<(HeaderName, HeaderValue)>,
}

/// A body.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// JSON.
    Json(Value),
    /// Text for Prometheus, or nothing at all.
    Text(String),
}

impl Answer {
    /// 200 with JSON.
    pub fn ok(body: Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// JSON with a status.
    pub fn json(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body: Content::Json(body),
            header: None,
        }
    }

    /// 200 with text.
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            body: Content::Text(body.into()),
            header: None,
        }
    }

    /// For the wire.
    pub fn into_response(self) -> Response<Body> {
        let mut response = match self.body {
            Content::Json(value) => (
                self.status,
                [(header::CONTENT_TYPE, "application/json")],
                value.to_string(),
            )
                .into_response(),
            Content::Text(text) => (self.status, text).into_response(),
        };
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An error as upstream's framework words it.
pub fn detail(status: StatusCode, text: impl Into<Value>) -> Answer {
    Answer::json(status, json!({ "detail": text.into() }))
}

/// No such path.
pub fn not_found() -> Answer {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

/// The path exists, the method does not.
pub fn wrong_method() -> Answer {
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

/// Done.
pub fn done() -> Answer {
    Answer::ok(json!({ "status": "OK" }))
}
