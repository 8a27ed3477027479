//! Answers of the DAPI's doors, as values.

use serde_json::{Value, json};

/// Status and body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Nothing is an empty body.
    pub body: Option<Value>,
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
        }
    }

    pub fn empty() -> Self {
        Self {
            status: 200,
            body: None,
        }
    }

    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, json!({"error": message}))
    }

    /// What a body that does not fit is answered with.
    pub fn undecodable(message: &str) -> Self {
        Self::json(400, json!({"error": {"message": message}}))
    }
}
