//! Box 2: exams of this epoch and the last as the chain lists them, so that one nobody watched gets its record too.

use std::sync::Arc;

use crds::GonkaHost;
use crds::references::ExamKind;
use crds::sprint_schedule::ChainParameters;
use serde_json::Value;

use super::answers;
use super::examined::{Examined, Phase};
use super::job::{Outcome, view};
use super::notes::Note;
use crate::chain::Queries;
use crate::chain::shapes::{ShapeError, integer, list, member, text};
use crate::facts::{Exam, Facts};

/// Most confirmations of one epoch that are read.
const MAX_EVENTS: usize = 64;

/// Exams of a host that are over as far as nonces go. A query that fails yields nothing; the next epoch scans again.
pub async fn scan(queries: Arc<Queries>, host: Arc<GonkaHost>, facts: Arc<Facts>) -> Outcome {
    let uid = host.metadata.uid.clone().unwrap_or_default();
    let missing = match &facts.parameters {
        Some(parameters) => exams(&queries, &host, &facts, parameters).await,
        None => None,
    };
    Outcome::Scanned {
        uid,
        epoch: facts.epoch,
        missing,
    }
}

async fn exams(queries: &Queries, host: &GonkaHost, facts: &Facts, parameters: &ChainParameters) -> Option<Vec<Note>> {
    let mut notes = Vec::new();
    for epoch in [facts.epoch, facts.epoch - 1].into_iter().filter(|epoch| *epoch > 0) {
        let start = sprint_start(queries, facts, epoch).await?;
        let mut exams = vec![Exam {
            kind: ExamKind::Sprint,
            trigger_height: start,
            generation_start_height: start,
            ..Exam::default()
        }];
        let events = queries
            .inference(&format!("confirmation_poc_events/{epoch}"))
            .await
            .ok()?;
        exams.extend(confirmations(&events).ok()?);
        for exam in exams {
            if let Some(mut note) = missed(host, facts, Examined::of(&exam, epoch, parameters)) {
                start_block(queries, &mut note).await;
                notes.push(note);
            }
        }
    }
    Some(notes)
}

/// The note of an exam that is over as far as nonces go, if the host was there. Pure.
pub fn missed(host: &GonkaHost, facts: &Facts, examined: Examined) -> Option<Note> {
    let concerns = examined.phase(facts) > Phase::Generating && was_there(host, facts, examined.start_height);
    concerns.then(|| Note {
        host: view(host),
        schedule: facts.schedule.clone(),
        exam: examined,
        unwatched: true,
        ..Note::default()
    })
}

async fn sprint_start(queries: &Queries, facts: &Facts, epoch: i64) -> Option<i64> {
    if epoch == facts.epoch {
        return facts.heights.as_ref().map(|heights| heights.poc_start_height);
    }
    let answer = queries.inference(&format!("epoch_group_data/{epoch}")).await.ok()?;
    let start = integer(member(&answer, "epoch_group_data")?, "poc_start_block_height").ok()?;
    (start > 0).then_some(start)
}

/// Reads `confirmation_poc_events/{epoch}`.
pub fn confirmations(answer: &Value) -> Result<Vec<Exam>, ShapeError> {
    list(answer, "events")?
        .iter()
        .take(MAX_EVENTS)
        .map(|event| {
            Ok(Exam {
                kind: ExamKind::Confirmation,
                trigger_height: integer(event, "trigger_height")?,
                generation_start_height: integer(event, "generation_start_height")?,
                seed: text(event, "poc_seed_block_hash")?,
                ..Exam::default()
            })
        })
        .collect()
}

/// Whether the host existed when the exam began, as far as the pace tells.
fn was_there(host: &GonkaHost, facts: &Facts, start_height: i64) -> bool {
    let created = host
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(i64::MAX, |time| time.0.as_millisecond());
    facts
        .predict(start_height)
        .is_some_and(|start| start.time_ms >= created)
}

/// Seed and time of the start block, where the chain still has it. Both may stay unknown.
async fn start_block(queries: &Queries, note: &mut Note) {
    let path = format!("/cosmos/base/tendermint/v1beta1/blocks/{}", note.exam.start_height);
    let Ok(answer) = queries.get(&path).await else { return };
    if let Ok((hash, millis)) = answers::block(&answer) {
        note.watched.start_ms = millis;
        if note.exam.kind == ExamKind::Sprint {
            note.exam.seed = hash;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_recorded_epoch_had_no_confirmation_yet() {
        let file: Value = serde_json::from_str(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-confirmation_poc_events_2__162.json"
        ))
        .expect("JSON");
        assert_eq!(confirmations(&file["body"]), Ok(Vec::new()));
    }

    #[test]
    fn a_confirmation_is_known_by_its_trigger() {
        let answer = json!({"events": [{"epoch_index": "2", "trigger_height": "180", "generation_start_height": "182",
            "phase": "CONFIRMATION_POC_COMPLETED", "poc_seed_block_hash": "7b15"}]});
        let exams = confirmations(&answer).expect("known");
        assert_eq!(
            (
                exams[0].trigger_height,
                exams[0].generation_start_height,
                exams[0].seed.as_str()
            ),
            (180, 182, "7b15")
        );
    }
}
