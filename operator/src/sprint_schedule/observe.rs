//! Box 2: object, facts and clock as one value.

use crds::{SprintSchedule, SprintScheduleStatus};
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use serde::{Deserialize, Serialize};

use crate::chain::now_ms;
use crate::context::Book;
use crate::facts::Facts;

/// All a decision needs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The object; absent when it cannot be understood.
    #[serde(default)]
    pub object: Option<SprintSchedule>,
    /// Its name, generation and why it cannot be understood.
    #[serde(default)]
    pub invalid: Option<Invalid>,
    /// Status this process wrote last: stands in for one that cannot be understood.
    #[serde(default)]
    pub previous: Option<SprintScheduleStatus>,
    /// What the readers know.
    pub facts: Facts,
    /// When this process wrote the status last, Unix milliseconds.
    #[serde(default)]
    pub written_ms: Option<i64>,
    /// The clock, Unix milliseconds.
    pub now_ms: i64,
}

/// An object that cannot be understood.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Invalid {
    /// Name.
    pub name: String,
    /// Generation.
    #[serde(default)]
    pub generation: Option<i64>,
    /// Why.
    pub error: String,
}

/// What this process remembers of an object.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// When it wrote the status last, Unix milliseconds.
    pub written_ms: Option<i64>,
    /// What it wrote.
    pub previous: Option<SprintScheduleStatus>,
}

/// Reads.
pub fn observe(object: &DeserializeGuard<SprintSchedule>, book: &Book, past: Past) -> Observed {
    let (understood, invalid) = match &object.0 {
        Ok(schedule) => (Some(schedule.clone()), None),
        Err(error) => {
            let invalid = Invalid {
                name: object.name_any(),
                generation: error.metadata.generation,
                error: error.error.clone(),
            };
            (None, Some(invalid))
        }
    };
    Observed {
        object: understood,
        invalid,
        previous: past.previous,
        facts: book.facts(&object.name_any()).as_ref().clone(),
        written_ms: past.written_ms,
        now_ms: now_ms(),
    }
}
