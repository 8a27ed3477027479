//! What every controller is given. Made once, in [`crate::run`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::watch;

use crate::args::Args;
use crate::certificate::Keeper;
use crate::chain::Queries;
use crate::facts::Facts;
use crate::gate::history::History;
use crate::live::Board;
use crate::metrics::Metrics;
use crate::trust::Trust;

/// Shared by all controllers of the leader.
#[derive(Clone)]
pub struct Context {
    /// The one API server client.
    pub client: Client,
    /// Who we are in Events.
    pub reporter: Reporter,
    /// Facts and queries per SprintSchedule.
    pub book: Arc<Book>,
    /// What slots report.
    pub live: Arc<Board>,
    /// What the gate answered whom.
    pub gate: Arc<History>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Flags.
    pub settings: Arc<Settings>,
    /// Keys that sign service-account tokens.
    pub trust: Arc<Trust>,
    /// What proves to FleetSignal's clients who serves.
    pub certificate: Arc<Keeper>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Writes Events.
    pub fn recorder(&self) -> Recorder {
        Recorder::new(self.client.clone(), self.reporter.clone())
    }
}

/// Flags that controllers read.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The operator's own namespace.
    pub namespace: String,
    /// Six hex digits that mark everything this installation makes outside the cluster.
    pub install_id: String,
    /// Image of slot pods whose engine names none, and of the init container that copies `slot`.
    pub slot_image: String,
    /// `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Name of the Service of FleetSignal in the operator's namespace.
    pub signal_service: String,
    /// File with the operator's token for slots' operator doors, re-read at each connect.
    pub slot_token_file: PathBuf,
    /// File with the agent DaemonSet from the chart; absent when Helm owns the DaemonSet.
    pub agent_template_file: Option<PathBuf>,
    /// Label that marks nodes with GPUs, `key` or `key=value`.
    pub gpu_node_selector: String,
    /// Folder that outlives this process, but not its pod.
    pub cache_dir: PathBuf,
    /// Admission policies that must be there.
    pub admission_policies: Vec<String>,
    /// How long a glass stays broken, seconds.
    pub break_glass_seconds: u32,
    /// Folder for records (JSON lines); absent when no volume is mounted.
    pub records_dir: Option<PathBuf>,
    /// How often external state is compared with the spec, seconds.
    pub resync_seconds: u64,
    /// PriorityClass of slot pods; empty = none.
    pub slot_priority_class: String,
    /// Callback interval passed to slots, seconds.
    pub callback_interval_seconds: u32,
}

impl From<&Args> for Settings {
    /// Every flag by name, so that a new one cannot be forgotten. `install_id` is read from the cluster by the leader.
    fn from(args: &Args) -> Self {
        let Args {
            namespace,
            name: _,
            cache_dir,
            signal_address: _,
            signal_audience: _,
            signal_service,
            signal_secret: _,
            signal_secret_provided: _,
            signal_plaintext: _,
            probe_address: _,
            metrics_address: _,
            lease_name: _,
            lease_seconds: _,
            slot_image,
            image_pull_policy,
            slot_priority_class,
            slot_token_file,
            agent_template_file,
            gpu_node_selector,
            admission_policies,
            break_glass_seconds,
            records_dir,
            resync_seconds,
            callback_interval_seconds,
            log_format: _,
            log_filter: _,
        } = args.clone();
        Self {
            namespace,
            install_id: String::new(),
            cache_dir,
            slot_image,
            image_pull_policy,
            signal_service,
            slot_token_file,
            agent_template_file,
            gpu_node_selector,
            admission_policies,
            break_glass_seconds,
            records_dir,
            resync_seconds,
            slot_priority_class,
            callback_interval_seconds,
        }
    }
}

/// Facts and queries per SprintSchedule. Filled by the chain readers, without the API server.
#[derive(Debug, Default)]
pub struct Book {
    entries: RwLock<BTreeMap<String, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    facts: watch::Receiver<Arc<Facts>>,
    queries: Arc<Queries>,
}

impl Book {
    /// Registers the reader of a schedule; replaces an earlier one.
    pub fn insert(&self, schedule: &str, facts: watch::Receiver<Arc<Facts>>, queries: Arc<Queries>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(schedule.to_owned(), Entry { facts, queries });
    }

    /// Forgets a schedule.
    pub fn remove(&self, schedule: &str) {
        self.entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(schedule);
    }

    /// The newest facts; `Unknown` ones when nobody reads this schedule.
    pub fn facts(&self, schedule: &str) -> Arc<Facts> {
        self.entry(schedule).map_or_else(
            || {
                Arc::new(Facts {
                    schedule: schedule.to_owned(),
                    ..Facts::default()
                })
            },
            |entry| entry.facts.borrow().clone(),
        )
    }

    /// Wakes with each change of the facts.
    pub fn subscribe(&self, schedule: &str) -> Option<watch::Receiver<Arc<Facts>>> {
        self.entry(schedule).map(|entry| entry.facts)
    }

    /// REST queries against the schedule's endpoints.
    pub fn queries(&self, schedule: &str) -> Option<Arc<Queries>> {
        self.entry(schedule).map(|entry| entry.queries)
    }

    /// Names of all schedules that are read.
    pub fn schedules(&self) -> Vec<String> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect()
    }

    fn entry(&self, schedule: &str) -> Option<Entry> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(schedule)
            .cloned()
    }
}
