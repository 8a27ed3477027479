//! What one pass over a GonkaHost knows, as one plain serialisable value: box 2's output, box 3's only input.

use std::collections::BTreeMap;

use crds::gonka_host::ExamSummary;
use crds::references::Window;
use crds::{GonkaHost, ModelDeployment};
use serde::{Deserialize, Serialize};

use crate::dapi::{Registered, SetupReport};
use crate::facts::Facts;

/// One snapshot. Whatever is absent here is not known; nothing is written because of an absence.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Unix milliseconds when this was read.
    pub now_ms: i64,
    /// Six hex digits of this installation.
    pub install_id: String,
    /// Seconds between comparisons.
    pub resync_seconds: u64,
    /// The object itself.
    pub host: GonkaHost,
    /// Whether its SprintSchedule exists.
    pub schedule_exists: bool,
    /// Why the Secret of the spec cannot be used; empty when it can or none is named.
    #[serde(default)]
    pub secret_problem: String,
    /// Other GonkaHosts of the cluster.
    #[serde(default)]
    pub others: Vec<Other>,
    /// ModelDeployments that name this host.
    #[serde(default)]
    pub deployments: Vec<ModelDeployment>,
    /// Addresses of slot Services by name; a Service without one is left out.
    #[serde(default)]
    pub addresses: BTreeMap<String, String>,
    /// GPUs of machines by Node name.
    #[serde(default)]
    pub machines: BTreeMap<String, Machine>,
    /// DAPI's nodes.
    #[serde(default)]
    pub nodes: Reading<Vec<Registered>>,
    /// DAPI's own checks.
    #[serde(default)]
    pub report: Reading<SetupReport>,
    /// Account the public API signs for.
    #[serde(default)]
    pub identity: Reading<String>,
    /// Newest block DAPI has seen.
    #[serde(default)]
    pub dapi_height: Reading<i64>,
    /// What the chain says to everybody.
    #[serde(default)]
    pub facts: Facts,
    /// What the chain says about this account.
    #[serde(default)]
    pub chain: ChainView,
    /// Callback base of the last start request a slot of this host was sent; empty when none was seen.
    #[serde(default)]
    pub callback_base: String,
    /// The newest records of this host's exams, newest first.
    #[serde(default)]
    pub exams: Vec<ExamSummary>,
}

/// Something that was read, or why it was not.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading<T> {
    /// What was read.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub value: Option<T>,
    /// Why it was not read, for people; empty when nobody tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self {
            value: None,
            failure: String::new(),
        }
    }
}

impl<T> Reading<T> {
    /// Something that was read.
    pub fn known(value: T) -> Self {
        Self {
            value: Some(value),
            failure: String::new(),
        }
    }

    /// A result with its failure in words, the causes included.
    pub fn of<E: std::error::Error>(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::known(value),
            Err(error) => Self {
                value: None,
                failure: in_words(&error),
            },
        }
    }
}

/// An error and its causes in one line.
pub fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words.push_str(": ");
        words.push_str(&inner.to_string());
        cause = inner.source();
    }
    words
}

/// Another GonkaHost.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Other {
    /// `namespace/name`.
    pub name: String,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
    /// Its schedule.
    pub schedule: String,
    /// Its account.
    pub account: String,
    /// Its admin URL; empty when it has none.
    pub admin_url: String,
}

/// GPUs of one machine.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Machine {
    /// Product of all its GPUs; empty when they differ or are not known.
    pub product: String,
    /// Memory of one GPU, MiB.
    pub memory_mebibytes: i64,
}

/// What the chain says about this account.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ChainView {
    /// Weight in the current epoch; 0 when the account is not in its group.
    pub weight: Reading<i64>,
    /// The settled reward that was not claimed yet.
    pub settlement: Reading<Option<Settlement>>,
    /// Performance summaries by epoch; an epoch without one is left out.
    pub summaries: Reading<BTreeMap<i64, Summary>>,
    /// Weight per nonce by model id, decimal, where the chain moves it per epoch.
    pub scales: BTreeMap<String, String>,
}

/// A reward that waits to be claimed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Settlement {
    /// Epoch it is for.
    pub epoch: i64,
    /// ngonka.
    pub amount: u64,
}

/// What an epoch brought.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Summary {
    /// ngonka, rewards and earnings.
    pub amount: u64,
    /// Whether it was claimed.
    pub claimed: bool,
}

impl Observed {
    /// Name of the host.
    pub fn name(&self) -> &str {
        self.host.metadata.name.as_deref().unwrap_or_default()
    }

    /// The network's window; `Unknown` when the facts are old.
    pub fn window(&self) -> Window {
        if self.facts.is_stale(self.now_ms) {
            Window::Unknown
        } else {
            self.facts.window
        }
    }

    /// Namespace of the host.
    pub fn namespace(&self) -> &str {
        self.host.metadata.namespace.as_deref().unwrap_or_default()
    }
}
