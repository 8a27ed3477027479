//! SprintRun controller: a record of every exam of every host.
//!
//! ```text
//!  facts, caches, live board ─► watch ─► notes (memory, volume)        no API server, no request
//!                                          │ a phase begins
//!  chain, DAPI ─────────► collect ─► decide ─► create · status · row · seal
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`examined`], [`gates`], [`watch`], [`notes`] | what is seen while an exam goes by |
//! | [`desk`] | what is open, what is due and what came of it, pure |
//! | [`answers`], [`collect`], [`scan`] | what the chain says, of exams nobody watched too |
//! | [`observed`], [`decide`], [`record`], [`cause`] | the record, pure |
//! | [`job`], [`rows`], [`retention`] | writing it |
//!
//! The API server may be away during a whole exam: the notes go on, and the record is made when it is back.

pub mod answers;
pub mod cause;
pub mod collect;
pub mod decide;
pub mod desk;
pub mod examined;
pub mod gates;
pub mod job;
pub mod notes;
pub mod observed;
pub mod record;
pub mod retention;
pub mod rows;
pub mod scan;
pub mod stores;
pub mod watch;

pub use scan::confirmations;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crds::SprintRun;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;

use crate::chain::now_ms;
use crate::context::Context;
use crate::facts::Facts;
use desk::{Desk, Sight, Task};
use job::Outcome;
use notes::Notes;
use rows::Rows;
use stores::{Stores, World};

/// Field manager and metric label.
const CONTROLLER: &str = "sprint-run";
/// Between looks at the facts; a block of the fastest test network takes longer.
pub const LOOK: Duration = Duration::from_millis(200);
/// Jobs at once.
pub const CONCURRENCY: usize = 8;

/// Why the controller ended.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// Every watch ended.
    #[error("the SprintRun controller lost its watches")]
    Ended,
}

/// Keeps records until cancelled.
pub async fn run(context: Context) -> Result<(), Error> {
    let (stores, mut changes) = Stores::start(&context.client);
    let notes = notes::load(&notes_folder(&context)).await;
    let rows = Rows::new(context.settings.records_dir.clone());
    let mut keeper = Keeper::new(context, stores, notes, rows);
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(()) => keeper.stale = true,
                None => return Err(Error::Ended),
            },
            Some(outcome) = keeper.jobs.next(), if !keeper.jobs.is_empty() => keeper.absorb(outcome).await,
            _ = looks.tick() => keeper.look().await,
        }
    }
}

struct Keeper {
    context: Context,
    stores: Stores,
    world: Arc<World>,
    stale: bool,
    desk: Desk,
    saved: Notes,
    rows: Rows,
    saved_ms: i64,
    jobs: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

impl Keeper {
    fn new(context: Context, stores: Stores, notes: Notes, rows: Rows) -> Self {
        Self {
            context,
            stores,
            world: Arc::default(),
            stale: true,
            saved: notes.clone(),
            desk: Desk::new(notes),
            rows,
            saved_ms: 0,
            jobs: FuturesUnordered::new(),
        }
    }

    /// One look: sees, then starts what is due.
    async fn look(&mut self) {
        let now = now_ms();
        if std::mem::take(&mut self.stale) {
            self.world = Arc::new(self.stores.world());
        }
        let schedules = self.context.book.schedules();
        let facts: BTreeMap<String, Arc<Facts>> = schedules
            .into_iter()
            .map(|schedule| (schedule.clone(), self.context.book.facts(&schedule)))
            .collect();
        let tasks = self.desk.look(&Sight {
            now_ms: now,
            facts: &facts,
            world: &self.world,
            whole: self.stores.are_ready(),
            board: &self.context.live,
            install_id: &self.context.settings.install_id,
            room: CONCURRENCY.saturating_sub(self.jobs.len()),
        });
        for task in tasks {
            self.start(task);
        }
        self.save(now).await;
    }

    fn start(&mut self, task: Task) {
        let queries = self.context.book.queries(task.schedule());
        let job: BoxFuture<'static, Outcome> = match (task, queries) {
            (task, None) => Box::pin(std::future::ready(job::unanswered(task))),
            (Task::Photograph { key, exam, .. }, Some(queries)) => Box::pin(job::photograph(key, queries, exam)),
            (Task::Scan { host, facts }, Some(queries)) => Box::pin(scan::scan(queries, host, facts)),
            (Task::Work(work), Some(queries)) => Box::pin(job::work(self.context.clone(), queries, *work)),
        };
        self.jobs.push(job);
    }

    /// Takes a finished job's result.
    async fn absorb(&mut self, outcome: Outcome) {
        if let Outcome::Worked {
            key,
            result: Err(error),
            ..
        } = &outcome
        {
            let category: &str = error.into();
            self.context.metrics.ended(CONTROLLER, category);
            tracing::warn!(
                error = error as &dyn std::error::Error,
                category,
                record = key.1,
                "a record was not written"
            );
        }
        let sealed = self.desk.absorb(outcome, now_ms());
        self.context.metrics.failed(CONTROLLER, self.desk.failing());
        let Some((host, key)) = sealed else {
            return;
        };
        self.rows.add(&host.name, &key.0, &key.1);
        self.retain(&host).await;
    }

    /// Deletes the oldest records of a host beyond the limit, if their lines are on the volume.
    async fn retain(&mut self, host: &observed::HostView) {
        let names = match self.rows.names(&host.name).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old records are kept");
                return;
            }
        };
        let runs = &self.world.runs;
        let of_host: Vec<&SprintRun> = runs
            .iter()
            .map(AsRef::as_ref)
            .filter(|run| run.spec.host_ref.uid == host.uid)
            .collect();
        let surplus: Vec<SprintRun> = retention::surplus(&of_host, names).into_iter().cloned().collect();
        if let Err(error) = job::delete(&self.context, &surplus).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old records are kept");
        }
    }

    /// Keeps notes on disk, at most once a second and only when they changed.
    async fn save(&mut self, now: i64) {
        if now - self.saved_ms < 1000 || self.desk.notes == self.saved {
            return;
        }
        self.saved_ms = now;
        match notes::save(&notes_folder(&self.context), &self.desk.notes).await {
            Ok(()) => self.saved = self.desk.notes.clone(),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "notes of open exams were not saved"
            ),
        }
    }
}

/// Notes are with the records where there is a volume, since another replica may need them; else they outlive this process.
fn notes_folder(context: &Context) -> PathBuf {
    context
        .settings
        .records_dir
        .clone()
        .unwrap_or_else(|| context.settings.cache_dir.clone())
}

#[cfg(test)]
mod tests;
