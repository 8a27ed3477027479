//! The records of exams: what the desk sees and asks for, asked and written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::SprintRun;
use crds::references::ExamKind;
use network_simulator::faults::Port;
use network_simulator::views::{View, dapi, rest_epoch, rest_exam, rest_host};
use network_simulator::virtual_time::door::{Door, NoAnswer};
use operator::change::{Change, Deletion};
use operator::facts::{Exam, Facts};
use operator::gonka_host::group;
use operator::gonka_host::observed::Reading;
use operator::sprint_run::answers;
use operator::sprint_run::desk::{Sight, Task};
use operator::sprint_run::examined::{Examined, Phase};
use operator::sprint_run::job::{self, Done, Error, Outcome, Work};
use operator::sprint_run::notes::Note;
use operator::sprint_run::observed::{Evidence, HostView};
use operator::sprint_run::{confirmations, retention, scan};

use super::host::ask;
use super::{Controller, Failure, Operator, answers as host};
use crate::agenda::Event;
use crate::ground::Ground;

/// Jobs at once, as the operator has it.
const CONCURRENCY: usize = operator::sprint_run::CONCURRENCY;
/// Questions of a job take so long.
const JOB_MS: (i64, i64) = (20, 120);
/// Notes are saved at most so often.
const SAVE_MS: i64 = 1_000;
/// Nothing is due.
const NEVER_MS: i64 = u32::MAX as i64;
/// Looks while something is open.
const LOOK_MS: i64 = 5_000;

impl Operator {
    /// One look.
    pub(super) fn pass_records(&mut self, ground: &mut Ground, door: &mut Door<'_>) -> i64 {
        let now_ms = Ground::now(door);
        let world = self.caches.world();
        let facts: BTreeMap<String, Arc<Facts>> = self
            .facts()
            .map(|facts| (facts.schedule.clone(), facts.clone()))
            .into_iter()
            .collect();
        let tasks = self.desk.look(&Sight {
            now_ms,
            facts: &facts,
            world: &world,
            whole: true,
            board: &self.board,
            install_id: &self.settings.install_id,
            room: CONCURRENCY.saturating_sub(self.jobs),
        });
        for task in tasks {
            self.jobs += 1;
            let life = self.life;
            let task = Box::new(task);
            let ms = ground.delays.between(JOB_MS.0, JOB_MS.1);
            ground.agenda.after(door, ms, Event::Job { life, task });
        }
        if now_ms - self.kept.saved_ms >= SAVE_MS && self.kept.notes != self.desk.notes {
            self.kept.saved_ms = now_ms;
            self.kept.notes = self.desk.notes.clone();
        }
        let wait = self.desk.next_ms(now_ms).map(|at| (at - now_ms).clamp(200, LOOK_MS));
        wait.unwrap_or(NEVER_MS)
    }

    /// A job's answers are there.
    pub fn job(&mut self, ground: &mut Ground, door: &mut Door<'_>, task: Task) {
        if !self.leads {
            return;
        }
        let now_ms = Ground::now(door);
        let outcome = match task {
            Task::Photograph { key, exam, .. } => Outcome::Photo {
                key,
                counts: photo(door, &exam),
            },
            Task::Scan { host, facts } => Outcome::Scanned {
                uid: host.metadata.uid.clone().unwrap_or_default(),
                epoch: facts.epoch,
                missing: missed(door, &host, &facts),
            },
            Task::Work(work) => {
                let (key, phase) = (work.key.clone(), work.phase);
                let result = match self.work(ground, door, *work, now_ms) {
                    Ok(done) => Ok(done),
                    Err(Failure::Again) => Err(Error::Silent),
                    Err(Failure::Died) => return,
                };
                Outcome::Worked { key, phase, result }
            }
        };
        self.jobs = self.jobs.saturating_sub(1);
        if let Some((host, key)) = self.desk.absorb(outcome, now_ms) {
            self.kept.rows.insert(format!("{}/{}", key.0, key.1));
            self.retain(ground, door, &host);
        }
        self.wake(ground, door, Controller::Records, 200);
    }

    fn work(&mut self, ground: &mut Ground, door: &mut Door<'_>, work: Work, now_ms: i64) -> Result<Done, Failure> {
        let evidence = if work.phase == Phase::Generating {
            Evidence::default()
        } else {
            evidence(door, &work)
        };
        let observed = job::snapshot(work, evidence, now_ms);
        let desired = operator::sprint_run::decide::decide(&observed);
        for change in job::changes(&observed, &desired) {
            self.write(ground, door, Controller::Records, change)?;
        }
        Ok(Done {
            complete: desired.complete,
            sealed: desired.row.is_some(),
        })
    }

    /// Deletes the oldest records of a host beyond the limit.
    fn retain(&mut self, ground: &mut Ground, door: &mut Door<'_>, host: &HostView) {
        let runs: Vec<Arc<SprintRun>> = self.caches.runs.values().cloned().collect();
        let of_host: Vec<&SprintRun> = runs
            .iter()
            .map(AsRef::as_ref)
            .filter(|run| run.spec.host_ref.uid == host.uid)
            .collect();
        let surplus: Vec<Change> = retention::surplus(&of_host, &self.kept.rows)
            .into_iter()
            .map(|run| Change::Delete(Deletion::of(run, None)))
            .collect();
        for change in surplus {
            if self.write(ground, door, Controller::Records, change).is_err() {
                return;
            }
        }
        if self.kept.rows.len() > 2 * retention::KEPT {
            let known = |row: &String| {
                let name = row.rsplit('/').next().unwrap_or_default();
                self.caches
                    .runs
                    .contains_key(&(crate::NAMESPACE.to_owned(), name.to_owned()))
            };
            let rows = self.kept.rows.iter().filter(|row| known(row)).cloned().collect();
            self.kept.rows = rows;
        }
    }
}

fn photo(door: &mut Door<'_>, exam: &Examined) -> Option<BTreeMap<String, i64>> {
    let answer = ask(door, |view| {
        rest_exam::all_poc_v2_store_commits(view, exam.trigger_height)
    })?;
    let mut counts = BTreeMap::new();
    for commit in answers::commits(&answer).ok()? {
        *counts.entry(commit.address).or_insert(0) += commit.count;
    }
    Some(counts)
}

/// Exams of this epoch and the last, as the chain lists them.
fn missed(door: &mut Door<'_>, host: &crds::GonkaHost, facts: &Facts) -> Option<Vec<Note>> {
    let parameters = facts.parameters.as_ref()?;
    let mut notes = Vec::new();
    for epoch in [facts.epoch, facts.epoch - 1].into_iter().filter(|epoch| *epoch > 0) {
        let (start, hash, events) = ask(door, |view| {
            let start = view.net.lengths().poc_start(epoch.unsigned_abs());
            let hash = view.block(start).map(|block| (block.hash.clone(), block.unix_ms));
            (
                start,
                hash,
                rest_epoch::confirmation_poc_events(view, epoch.unsigned_abs()),
            )
        })?;
        let mut exams = vec![Exam {
            kind: ExamKind::Sprint,
            trigger_height: start,
            generation_start_height: start,
            ..Exam::default()
        }];
        exams.extend(confirmations(&events).ok()?);
        for exam in exams {
            if let Some(mut note) = scan::missed(host, facts, Examined::of(&exam, epoch, parameters)) {
                if let Some((hash, ms)) = hash.clone().filter(|_| note.exam.kind == ExamKind::Sprint) {
                    note.exam.seed = hash;
                    note.watched.start_ms = i64::try_from(ms).unwrap_or_default();
                }
                notes.push(note);
            }
        }
    }
    Some(notes)
}

fn read<T, E: std::error::Error>(answer: Option<Result<T, E>>) -> Reading<T> {
    match answer {
        Some(answer) => Reading::of(answer),
        None => Reading::of::<NoAnswer>(Err(NoAnswer)),
    }
}

/// Everything a phase can tell, by the operator's own parsers.
fn evidence(door: &mut Door<'_>, work: &Work) -> Evidence {
    let (exam, phase) = (&work.note.exam, work.phase);
    let (height, address) = (exam.trigger_height, work.note.host.address.as_str());
    let mut evidence = Evidence {
        commits: read(ask(door, |view| {
            answers::commits(&rest_exam::all_poc_v2_store_commits(view, height))
        })),
        distribution: read(ask(door, |view| {
            answers::distribution(&rest_exam::all_mlnode_weight_distributions(view, height), address)
        })),
        powers: read(ask(door, |view| {
            answers::powers(&rest_exam::poc_validation_snapshot(view, height))
        })),
        accepted: accepted(door, height),
        ..Evidence::default()
    };
    if phase >= Phase::Voted {
        evidence.ballot = read(ask(door, |view| {
            answers::ballot(&rest_exam::poc_v2_validations_for_stage(view, height), address)
        }));
        evidence.weight = weight(door, exam, address);
    }
    if phase >= Phase::Weighed && exam.kind == ExamKind::Confirmation && work.facts.epoch == exam.epoch {
        evidence.confirmation_ratio = read(ask(door, |view| {
            answers::confirmation_ratio(&rest_host::participant(view, view.net.ours))
        }));
    }
    if phase >= Phase::Settled {
        evidence.reward = reward(door, exam.epoch);
    }
    evidence
}

fn accepted(door: &mut Door<'_>, height: i64) -> Reading<Option<i64>> {
    let mut sum = None;
    let models: Vec<String> = door
        .net()
        .scenario
        .models
        .iter()
        .map(|model| model.id.clone())
        .collect();
    for model in &models {
        let answer = door
            .view(Port::DapiPublic)
            .map(|view| dapi::artifacts_state(view.net, height, model));
        match answer {
            Err(silent) => return Reading::of::<NoAnswer>(Err(silent)),
            Ok(None) => {}
            Ok(Some(answer)) => match operator::dapi::answers::artifact_state(&answer) {
                Ok(state) => *sum.get_or_insert(0) += state.count,
                Err(error) => return Reading::of(Err(error)),
            },
        }
    }
    Reading::known(sum)
}

fn weight(door: &mut Door<'_>, exam: &Examined, address: &str) -> Reading<Option<i64>> {
    let confirmation = exam.kind != ExamKind::Sprint;
    let answer = ask(door, |view| {
        rest_epoch::epoch_group_data(view, exam.epoch.unsigned_abs(), None)
    });
    match answer.flatten() {
        None => Reading::of::<NoAnswer>(Err(NoAnswer)),
        Some(answer) => Reading::of(group(&answer, address).map(|group| {
            (group.members > 0).then(|| {
                group.member.map_or(0, |member| {
                    if confirmation {
                        member.confirmation_weight
                    } else {
                        member.weight
                    }
                })
            })
        })),
    }
}

fn reward(door: &mut Door<'_>, epoch: i64) -> Reading<Option<u64>> {
    let read = |view: &View<'_>| {
        let open = host::settlement(view).filter(|open| open.epoch == epoch);
        let paid = || host::summary(view, epoch).filter(|paid| paid.claimed);
        open.map(|open| open.amount).or_else(|| paid().map(|paid| paid.amount))
    };
    match ask(door, read) {
        Some(amount) => Reading::known(amount),
        None => Reading::of::<NoAnswer>(Err(NoAnswer)),
    }
}
