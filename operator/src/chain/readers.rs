//! Which schedules are read. Filled from the cache at start, kept current by the API server's word, stopped only by an
//! observed deletion.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crds::sprint_schedule::SprintScheduleSpec;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Cached};
use super::decide::Memory;
use super::reader::Reader;
use crate::context::Book;
use crate::metrics::Metrics;

/// What readers need.
#[derive(Clone, Debug)]
pub struct ReadersSettings {
    /// Folder that survives a restart of the container.
    pub cache_dir: PathBuf,
    /// Where facts are found.
    pub book: Arc<Book>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// HTTP client of all readers.
    pub http: reqwest::Client,
}

/// Handle on all readers.
#[derive(Debug)]
pub struct Readers {
    commands: mpsc::UnboundedSender<Command>,
    specs: RwLock<BTreeMap<String, SprintScheduleSpec>>,
}

#[derive(Debug)]
enum Command {
    Set(Box<Cached>),
    Remove(String),
}

#[derive(Debug)]
struct Running {
    spec: watch::Sender<SprintScheduleSpec>,
    stop: CancellationToken,
}

impl Readers {
    /// The handle, and the task that owns the readers: spawn it once. It starts from the cache at once and ends after
    /// `stop`, with every reader joined.
    pub fn start(settings: ReadersSettings, stop: CancellationToken) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (commands, received) = mpsc::unbounded_channel();
        let readers = Arc::new(Self {
            commands,
            specs: RwLock::default(),
        });
        let own = Arc::clone(&readers);
        (readers, async move { own.run(settings, received, stop).await })
    }

    /// Reads `name` with a valid spec from now on.
    pub fn set(&self, name: &str, spec: &SprintScheduleSpec) {
        let known = self
            .specs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), spec.clone());
        if known.as_ref() != Some(spec) {
            self.send(Command::Set(Box::new(Cached {
                name: name.to_owned(),
                spec: spec.clone(),
                memory: Memory::default(),
            })));
        }
    }

    /// Stops reading `name`: its deletion was observed.
    pub fn remove(&self, name: &str) {
        let mut specs = self.specs.write().unwrap_or_else(PoisonError::into_inner);
        if specs.remove(name).is_some() {
            self.send(Command::Remove(name.to_owned()));
        }
    }

    /// The spec `name` is read with; absent when it is not read.
    pub fn spec(&self, name: &str) -> Option<SprintScheduleSpec> {
        self.specs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    fn send(&self, command: Command) {
        // The receiver ends only with the process.
        drop(self.commands.send(command));
    }

    /// What the cache holds, unless the API server was quicker.
    fn adopt(&self, cached: Cached) {
        let mut specs = self.specs.write().unwrap_or_else(PoisonError::into_inner);
        if !specs.contains_key(&cached.name) {
            specs.insert(cached.name.clone(), cached.spec.clone());
            self.send(Command::Set(Box::new(cached)));
        }
    }

    async fn run(
        &self,
        settings: ReadersSettings,
        mut commands: mpsc::UnboundedReceiver<Command>,
        stop: CancellationToken,
    ) {
        let cache = Cache::new(&settings.cache_dir);
        for cached in cache.load().await {
            tracing::info!(
                schedule = cached.name,
                chain = cached.spec.chain_id,
                "reading from the cache's word"
            );
            self.adopt(cached);
        }
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        loop {
            let command = tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = commands.recv() => command,
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(error = &error as &dyn std::error::Error, "a chain reader ended by itself");
                    }
                    continue;
                }
            };
            match command {
                Command::Set(cached) => {
                    if let Some(known) = running.get(&cached.name) {
                        known.spec.send_replace(cached.spec);
                        continue;
                    }
                    let stop = stop.child_token();
                    let (spec, reader) = reader(&settings, &cache, *cached);
                    let name = reader.name.clone();
                    tasks.spawn(reader.run(stop.clone()));
                    running.insert(name, Running { spec, stop });
                }
                Command::Remove(name) => {
                    if let Some(gone) = running.remove(&name) {
                        gone.stop.cancel();
                    }
                    cache.remove(&name).await;
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

fn reader(settings: &ReadersSettings, cache: &Cache, cached: Cached) -> (watch::Sender<SprintScheduleSpec>, Reader) {
    let (sender, spec) = watch::channel(cached.spec);
    let reader = Reader {
        name: cached.name,
        spec,
        memory: cached.memory,
        cache: cache.clone(),
        book: Arc::clone(&settings.book),
        metrics: Arc::clone(&settings.metrics),
        http: settings.http.clone(),
    };
    (sender, reader)
}
