//! What a GPU's times mean: the order in which contestants run, what their samples say, and the rows of `docs/benchmarks.md`. Values only; who measures is
//! `gpu-bench`.
//!
//! | box | module |
//! |---|---|
//! | decide: who runs when | [`schedule`] |
//! | decide: samples to medians, ratios and their spread | [`samples`] |
//! | decide: which figures there are, what they are made of and what is wanted of them | [`rows`] |
//! | decide: the tables of the document | [`table`] |
//! | decide: whether a soak lost anything | [`soak`] |

pub mod rows;
pub mod samples;
pub mod schedule;
pub mod soak;
pub mod table;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one run of `gpu-bench` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the driver was the simulated one: then its times mean nothing and no document may show them.
    pub simulated: bool,
    /// The GPU's product.
    pub device: String,
    /// Its name.
    pub uuid: String,
    /// What torch said of itself; none when it did not run.
    pub torch: Option<String>,
    /// What each of torch's contestants computes with, by name of its series.
    #[serde(default)]
    pub means: BTreeMap<String, String>,
    /// Clocks before the first batch.
    pub before: Clocks,
    /// Clocks right behind the last one.
    pub after: Clocks,
    /// Samples, or why there are none, by name: model, a slash, contestant.
    pub series: BTreeMap<String, samples::Measured>,
    /// The figures.
    pub rows: Vec<rows::Found>,
}

/// Clocks of a GPU at a moment, as NVML tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Clocks {
    /// What it said.
    Read {
        /// MHz of the multiprocessors.
        sm: u32,
        /// MHz of the memory.
        memory: u32,
        /// Why clocks are lower than they could be.
        throttled: Vec<String>,
    },
    /// Why it said nothing.
    NotRead {
        /// The reason.
        reason: String,
    },
}
