//! What a watcher remembers of exams that are not closed yet: in memory, and on disk so that it outlives the process: a lost
//! lease ends it, and an API server that is away loses the lease. The API server is not needed for any of it.

use std::collections::BTreeMap;
use std::path::Path;

use crds::sprint_run::GateVerdict;
use serde::{Deserialize, Serialize};

use super::examined::{Examined, Phase};
use super::observed::{HostView, Watched};

/// Folder of notes inside the folder that is given.
const FOLDER: &str = "open";

/// One exam of one host that is not closed yet.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent marks, most of them of this process alone"
)]
pub struct Note {
    /// The host.
    pub host: HostView,
    /// Its schedule.
    pub schedule: String,
    /// The exam.
    pub exam: Examined,
    /// What only a watcher knows.
    pub watched: Watched,
    /// Nobody followed the exam from its start: slots are asked what they still know.
    pub unwatched: bool,
    /// The newest phase whose evidence is complete and written.
    pub done: Option<Phase>,
    /// The record exists, as far as this process knows.
    #[serde(skip)]
    pub created: bool,
    /// A job works on it.
    #[serde(skip)]
    pub busy: bool,
    /// A job takes the photo.
    #[serde(skip)]
    pub photographing: bool,
    /// Failures in a row.
    #[serde(skip)]
    pub failures: u32,
    /// Not to be worked on before, Unix milliseconds.
    #[serde(skip)]
    pub not_before_ms: i64,
}

/// Namespace and name of a record.
pub type Key = (String, String);

impl Note {
    /// Namespace and name of its record.
    pub fn key(&self) -> Key {
        (self.host.namespace.clone(), self.exam.name(&self.host.name))
    }
}

/// What is kept across restarts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Notes {
    /// Open exams.
    #[serde(with = "as_list")]
    pub open: BTreeMap<Key, Note>,
    /// Verdicts for Sprints that have not begun: by host UID and start height.
    #[serde(with = "verdicts_as_list")]
    pub verdicts: BTreeMap<(String, i64), Vec<GateVerdict>>,
}

mod as_list {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{BTreeMap, Key, Note};

    pub fn serialize<S: Serializer>(notes: &BTreeMap<Key, Note>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(notes.values())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Key, Note>, D::Error> {
        Ok(Vec::<Note>::deserialize(deserializer)?
            .into_iter()
            .map(|note| (note.key(), note))
            .collect())
    }
}

mod verdicts_as_list {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{BTreeMap, GateVerdict};

    type Verdicts = BTreeMap<(String, i64), Vec<GateVerdict>>;

    pub fn serialize<S: Serializer>(verdicts: &Verdicts, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(verdicts)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Verdicts, D::Error> {
        Ok(Vec::<((String, i64), Vec<GateVerdict>)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

/// Reads what an earlier process left. Whatever cannot be read is as if nobody had watched.
pub async fn load(records: &Path) -> Notes {
    let path = records.join(FOLDER).join("notes.json");
    let Ok(bytes) = tokio::fs::read(&path).await else {
        return Notes::default();
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, path = %path.display(), "notes of open exams cannot be read");
        Notes::default()
    })
}

/// Writes them, whole or not at all.
pub async fn save(records: &Path, notes: &Notes) -> std::io::Result<()> {
    let folder = records.join(FOLDER);
    tokio::fs::create_dir_all(&folder).await?;
    let bytes = serde_json::to_vec(notes).map_err(std::io::Error::other)?;
    let draft = folder.join("notes.json.new");
    tokio::fs::write(&draft, bytes).await?;
    tokio::fs::rename(&draft, folder.join("notes.json")).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprint_run::observed::Expectation;

    #[tokio::test]
    async fn notes_outlive_the_process_and_progress_of_jobs_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(load(folder.path()).await, Notes::default());
        let mut note = Note {
            busy: true,
            created: true,
            ..Note::default()
        };
        note.watched.slots.push(Expectation {
            node_id: "a".to_owned(),
            ..Expectation::default()
        });
        let mut notes = Notes::default();
        notes.open.insert(note.key(), note.clone());
        notes
            .verdicts
            .insert(("uid".to_owned(), 5), vec![GateVerdict::default()]);
        save(folder.path(), &notes).await.expect("saved");
        let read = load(folder.path()).await;
        note.busy = false;
        note.created = false;
        assert_eq!(read.open.values().collect::<Vec<_>>(), [&note]);
        assert_eq!(read.verdicts, notes.verdicts);
    }

    #[tokio::test]
    async fn spoiled_notes_are_as_if_nobody_had_watched() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(FOLDER)).expect("a folder");
        std::fs::write(folder.path().join(FOLDER).join("notes.json"), "{").expect("written");
        assert_eq!(load(folder.path()).await, Notes::default());
    }
}
