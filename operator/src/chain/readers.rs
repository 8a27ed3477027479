//! Which schedules are read. Filled from the cache at start, kept current by the API server's word, stopped only by an
//! observed deletion.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crds::sprint_schedule::SprintScheduleSpec;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
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
        let mut all = All {
            settings,
            cache,
            stop: stop.clone(),
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            ending: BTreeMap::new(),
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = commands.recv() => all.obey(command),
                Some(ended) = all.tasks.join_next() => all.ended(ended).await,
            }
        }
        while all.tasks.join_next().await.is_some() {}
    }
}

/// The readers that run.
struct All {
    settings: ReadersSettings,
    cache: Cache,
    stop: CancellationToken,
    tasks: JoinSet<String>,
    running: BTreeMap<String, Running>,
    /// Told to stop, not ended yet; with what is to be read next under the same name.
    ending: BTreeMap<String, Option<Cached>>,
}

impl All {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Set(cached) => {
                if let Some(next) = self.ending.get_mut(&cached.name) {
                    *next = Some(*cached);
                } else if let Some(known) = self.running.get(&cached.name) {
                    known.spec.send_replace(cached.spec);
                } else {
                    self.begin(*cached);
                }
            }
            Command::Remove(name) => {
                if let Some(gone) = self.running.remove(&name) {
                    gone.stop.cancel();
                    self.ending.insert(name, None);
                } else if let Some(next) = self.ending.get_mut(&name) {
                    *next = None;
                }
            }
        }
    }

    fn begin(&mut self, cached: Cached) {
        let (spec, reader) = reader(&self.settings, &self.cache, cached);
        let (name, stop) = (reader.name.clone(), self.stop.child_token());
        self.running.insert(
            name.clone(),
            Running {
                spec,
                stop: stop.clone(),
            },
        );
        self.tasks.spawn(async move {
            reader.run(stop).await;
            name
        });
    }

    /// A reader that was told to stop is forgotten once it has written its last word. One that panicked takes the process
    /// with it: facts that nobody keeps current are worse than none.
    async fn ended(&mut self, ended: Result<String, JoinError>) {
        match ended {
            Ok(name) => match self.ending.remove(&name) {
                Some(Some(next)) => self.begin(next),
                Some(None) => self.cache.remove(&name).await,
                None => {}
            },
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
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
