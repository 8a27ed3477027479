//! Boxes 2 to 4 for one record: collects what its phase can tell, decides, and writes: row first, then record and status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::{GonkaHost, SprintRun, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::CONTROLLER;
use super::collect::{self, Inquiry};
use super::decide::{Desired, decide};
use super::examined::{Examined, Phase};
use super::notes::{Key, Note};
use super::observed::{Evidence, HostView, Observed, Reference};
use super::rows::{self, Row};
use crate::apply::{self, apply};
use crate::chain::{Queries, now_ms};
use crate::change::{Change, Deletion, Object};
use crate::context::Context;
use crate::facts::Facts;

/// Longest wait for the API server in one job.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a record was not written.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The API server refused.
    #[error("the record could not be written to the API server")]
    Apply(#[source] apply::Error),
    /// The API server did not answer.
    #[error("the API server did not answer in time")]
    Silent,
    /// The records volume refused; the record stays open.
    #[error("the record's line could not be written")]
    Row(#[source] rows::Error),
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Commits at the photo; absent when nobody answered.
    Photo {
        /// Of which record.
        key: Key,
        /// By account.
        counts: Option<BTreeMap<String, i64>>,
    },
    /// Exams the chain lists; absent when it could not be asked.
    Scanned {
        /// Of which host.
        uid: String,
        /// In which epoch.
        epoch: i64,
        /// Exams without a record may be among them.
        missing: Option<Vec<Note>>,
    },
    /// A record was worked on.
    Worked {
        /// Which.
        key: Key,
        /// In which phase.
        phase: Phase,
        /// How it went.
        result: Result<Done, Error>,
    },
}

/// A record that was written, or needed no write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Nothing of this phase is missing.
    pub complete: bool,
    /// It is closed.
    pub sealed: bool,
}

/// Everything a job needs.
#[derive(Clone, Debug)]
pub struct Work {
    /// Which record.
    pub key: Key,
    /// What was seen.
    pub note: Note,
    /// How far the exam is.
    pub phase: Phase,
    /// The chain.
    pub facts: Arc<Facts>,
    /// The record as cached.
    pub run: Option<Arc<SprintRun>>,
    /// The host; absent when it was deleted.
    pub host: Option<Arc<GonkaHost>>,
    /// Models of its deployments.
    pub models: BTreeSet<String>,
    /// What a nonce was worth before.
    pub reference: Option<Reference>,
}

/// The host as its records need it.
pub fn view(host: &GonkaHost) -> HostView {
    HostView {
        namespace: host.metadata.namespace.clone().unwrap_or_default(),
        name: host.metadata.name.clone().unwrap_or_default(),
        uid: host.metadata.uid.clone().unwrap_or_default(),
        address: host.spec.account.address.clone(),
    }
}

/// Namespace and name of a record.
pub fn key(run: &SprintRun) -> Key {
    (
        run.metadata.namespace.clone().unwrap_or_default(),
        run.metadata.name.clone().unwrap_or_default(),
    )
}

/// Commits as they stand at the photo.
pub async fn photograph(key: Key, queries: Arc<Queries>, exam: Examined) -> Outcome {
    let counts = collect::photo(&queries, &exam).await;
    Outcome::Photo { key, counts }
}

/// The newest closed Sprint before `height` that earned something.
pub fn reference(runs: &[Arc<SprintRun>], host_uid: &str, height: i64) -> Option<Reference> {
    let mut runs: Vec<_> = runs
        .iter()
        .filter(|run| run.spec.host_ref.uid == host_uid && run.spec.poc_start_height < height)
        .filter(|run| run.spec.kind == crds::references::ExamKind::Sprint)
        .collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.spec.poc_start_height));
    runs.iter().find_map(|run| {
        let status = run.status.as_ref()?;
        let reward: u64 = status.reward_ngonka.as_ref()?.parse().ok()?;
        let committed = status.totals.as_ref()?.committed;
        (reward > 0 && committed > 0).then_some(Reference { reward, committed })
    })
}

/// Works on one record.
pub async fn work(context: Context, queries: Arc<Queries>, work: Work) -> Outcome {
    let (key, phase) = (work.key.clone(), work.phase);
    let timer = context
        .metrics
        .reconcile_duration
        .with_label_values(&[CONTROLLER])
        .start_timer();
    let result = write(&context, &queries, work).await;
    timer.observe_duration();
    if result.is_ok() {
        context.metrics.ended(CONTROLLER, "ok");
    }
    Outcome::Worked { key, phase, result }
}

async fn write(context: &Context, queries: &Queries, work: Work) -> Result<Done, Error> {
    let observed = observe(context, queries, work).await;
    let desired = decide(&observed);
    if let (Some(folder), Some(slots), Some(status)) = (&context.settings.records_dir, &desired.row, &desired.status) {
        let spec = observed.exam.spec(crds::references::UidReference {
            name: observed.host.name.clone(),
            uid: observed.host.uid.clone(),
        });
        let name = observed.exam.name(&observed.host.name);
        let row = Row {
            version: 1,
            namespace: &observed.host.namespace,
            name: &name,
            spec: &spec,
            status,
            all_slots: slots,
        };
        rows::append(folder, &observed.host.name, &row)
            .await
            .map_err(Error::Row)?;
    }
    let changes = changes(&observed, &desired);
    let manager = labels::field_manager(CONTROLLER);
    let recorder = context.recorder();
    let writing = apply(&context.client, &recorder, &manager, &changes);
    let applied = tokio::time::timeout(PATIENCE, writing)
        .await
        .map_err(|_| Error::Silent)?
        .map_err(Error::Apply)?;
    context.metrics.wrote(CONTROLLER, applied.writes);
    let sealed = desired.row.is_some();
    if let Some(status) = desired.status.as_ref().filter(|_| sealed) {
        count_loss(context, status);
    }
    Ok(Done {
        complete: desired.complete,
        sealed,
    })
}

fn count_loss(context: &Context, status: &crds::SprintRunStatus) {
    let lost: f64 = status
        .lost_ngonka
        .as_ref()
        .and_then(|lost| lost.parse().ok())
        .unwrap_or(0.0);
    let cause: &str = status.cause.into();
    context
        .metrics
        .sprint_lost_ngonka_total
        .with_label_values(&[cause])
        .inc_by(lost.max(0.0));
}

async fn observe(context: &Context, queries: &Queries, work: Work) -> Observed {
    let evidence = if work.phase == Phase::Generating {
        Evidence::default()
    } else {
        let inquiry = Inquiry {
            exam: &work.note.exam,
            phase: work.phase,
            host: work.host.as_deref(),
            address: &work.note.host.address,
            models: work.models.clone(),
            epoch: work.facts.epoch,
        };
        collect::evidence(context, queries, &inquiry).await
    };
    snapshot(work, evidence, now_ms())
}

/// What is known, as one value. Pure.
pub fn snapshot(work: Work, evidence: Evidence, now_ms: i64) -> Observed {
    let (facts, note) = (&work.facts, work.note);
    let claim = facts.heights.as_ref().map_or(i64::MAX, |heights| heights.claim_height);
    Observed {
        now_ms,
        claims_open: facts.epoch > note.exam.epoch && (facts.epoch > note.exam.epoch + 1 || facts.height > claim),
        host: note.host,
        exam: note.exam,
        phase: work.phase,
        run: work.run.map(|run| SprintRun::clone(&run)),
        watched: note.watched,
        evidence,
        reference: work.reference,
    }
}

/// What became of a task whose chain nobody reads any more. Pure.
pub(super) fn unanswered(task: super::desk::Task) -> Outcome {
    use super::desk::Task;
    match task {
        Task::Photograph { key, .. } => Outcome::Photo { key, counts: None },
        Task::Scan { host, facts } => Outcome::Scanned {
            uid: host.metadata.uid.clone().unwrap_or_default(),
            epoch: facts.epoch,
            missing: None,
        },
        Task::Work(work) => Outcome::Worked {
            key: work.key,
            phase: work.phase,
            result: Err(Error::Silent),
        },
    }
}

/// What is written to the API server. Pure.
pub fn changes(observed: &Observed, desired: &Desired) -> Vec<Change> {
    let mut object = SprintRun::new(&observed.exam.name(&observed.host.name), crds::SprintRunSpec::default());
    object.metadata = ObjectMeta {
        name: object.metadata.name,
        namespace: Some(observed.host.namespace.clone()),
        labels: Some(
            [
                (labels::HOST.to_owned(), observed.host.name.clone()),
                (labels::PROTECTED.to_owned(), "true".to_owned()),
            ]
            .into(),
        ),
        ..ObjectMeta::default()
    };
    let mut changes = Vec::new();
    if let Some(spec) = &desired.create {
        object.spec = spec.clone();
        changes.push(Change::Apply(Object::of(&object)));
    }
    if let Some(status) = &desired.status {
        changes.push(Change::Status(Object::status_of(&object, status)));
    }
    changes
}

/// Deletes records.
pub async fn delete(context: &Context, runs: &[SprintRun]) -> Result<(), Error> {
    let changes: Vec<Change> = runs.iter().map(|run| Change::Delete(Deletion::of(run, None))).collect();
    let manager = labels::field_manager(CONTROLLER);
    let recorder = context.recorder();
    let deleting = apply(&context.client, &recorder, &manager, &changes);
    tokio::time::timeout(PATIENCE, deleting)
        .await
        .map_err(|_| Error::Silent)?
        .map_err(Error::Apply)?;
    Ok(())
}
