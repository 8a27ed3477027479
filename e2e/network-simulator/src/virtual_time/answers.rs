//! What ML nodes answer, as values.

use crate::scenario::Scenario;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Answers that are always the same, made once.
#[derive(Debug)]
pub struct Answers {
    pub serving: Arc<Value>,
    pub stopped: Arc<Value>,
    pub generating: Arc<Value>,
    pub idle: Arc<Value>,
    pub fine: Arc<Value>,
    pub no: Arc<Value>,
    /// By model id.
    pub models: BTreeMap<String, Arc<Value>>,
}

impl Answers {
    pub fn new(scenario: &Scenario) -> Self {
        let state =
            |state: &str| Arc::new(json!({"state": state, "version": "3.0.16", "poc_validation_inference": true}));
        let models = scenario.models.iter().map(|model| {
            let list = Arc::new(json!({"data": [{"id": model.id}]}));
            (model.id.clone(), list)
        });
        Self {
            serving: state("INFERENCE"),
            stopped: state("STOPPED"),
            generating: Arc::new(json!({"status": "GENERATING"})),
            idle: Arc::new(json!({"status": "IDLE"})),
            fine: Arc::new(json!({"status": "OK"})),
            no: Arc::new(json!({"error": "not now"})),
            models: models.collect(),
        }
    }
}
