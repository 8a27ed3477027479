//! What a restarted `serve` must know to reopen by itself: the assignment and the generations seen. Kept in the pod's
//! memory volume, so that it lives exactly as long as the pod does.

use super::fence::Seen;
use proto::v1::SlotKey;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Longest state file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Why the state could not be read or written.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system refuses.
    #[error("cannot {what} {path}")]
    File {
        /// Read or write.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not ours.
    #[error("{path} does not hold a slot's state: the door stays closed until the operator opens it")]
    Parse {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The slot this pod holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Deployment.
    pub deployment_uid: String,
    /// Index.
    pub slot: i32,
    /// Fence.
    pub generation: i64,
    /// DAPI's id of the node.
    pub node_id: String,
    /// DAPI's number of the node, 0 = not known.
    pub node_num: i32,
    /// Where callbacks go instead of the host the request names; empty = there.
    pub callback_base: String,
}

/// Which lives of the engines something is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineLives {
    /// Life of hold.
    pub boot_id: u64,
    /// Starts of all engines in it.
    pub starts: u32,
}

/// The last rehearsal; the default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Unix milliseconds of its end.
    pub time_ms: i64,
    /// The engines that rehearsed.
    pub lives: EngineLives,
    /// Nonce and vector.
    pub artifacts: Vec<(i32, String)>,
    /// Speed.
    pub nonces_per_second_milli: u64,
    /// Empty on success.
    pub error: String,
}

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Highest generation per slot.
    pub seen: Seen,
    /// The slot held; the chain door is open exactly then.
    pub assignment: Option<Assignment>,
    /// DAPI told the node to stop and has not called it up again.
    pub stopped: bool,
    /// A callback to DAPI was answered once.
    pub callback_proven: bool,
    /// Counts for as long as the same engines live.
    pub rehearsed: Rehearsed,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    pod_uid: String,
    seen: Vec<SeenEntry>,
    assignment: Option<Assignment>,
    #[serde(default)]
    stopped: bool,
    #[serde(default)]
    callback_proven: bool,
    #[serde(default)]
    rehearsed: Rehearsed,
}

#[derive(Serialize, Deserialize)]
struct SeenEntry {
    deployment_uid: String,
    slot: i32,
    generation: i64,
}

impl Memory {
    /// Notes the generation of a request that was let through.
    pub fn note(&mut self, key: &SlotKey) {
        let highest = self.seen.entry((key.deployment_uid.clone(), key.slot)).or_insert(0);
        *highest = key.generation.max(*highest);
    }

    /// Reads what an earlier life of this pod's `serve` left; another pod's state is nobody's.
    pub fn load(path: &Path, pod_uid: &str) -> Result<Self, Error> {
        let read = |source| Error::File {
            what: "read",
            path: path.to_owned(),
            source,
        };
        match fs::metadata(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(read(error)),
            Ok(found) if found.len() > MAX_FILE => return Err(read(io::ErrorKind::FileTooLarge.into())),
            Ok(_) => {}
        }
        let file: File = serde_json::from_slice(&fs::read(path).map_err(read)?).map_err(|source| Error::Parse {
            path: path.to_owned(),
            source,
        })?;
        if file.pod_uid != pod_uid {
            return Ok(Self::default());
        }
        Ok(Self {
            seen: file
                .seen
                .into_iter()
                .map(|entry| ((entry.deployment_uid, entry.slot), entry.generation))
                .collect(),
            assignment: file.assignment,
            stopped: file.stopped,
            callback_proven: file.callback_proven,
            rehearsed: file.rehearsed,
        })
    }

    /// Writes it; a reader never sees half of it.
    pub fn save(&self, path: &Path, pod_uid: &str) -> Result<(), Error> {
        let file = File {
            version: 1,
            pod_uid: pod_uid.to_owned(),
            seen: self
                .seen
                .iter()
                .map(|((deployment_uid, slot), generation)| SeenEntry {
                    deployment_uid: deployment_uid.clone(),
                    slot: *slot,
                    generation: *generation,
                })
                .collect(),
            assignment: self.assignment.clone(),
            stopped: self.stopped,
            callback_proven: self.callback_proven,
            rehearsed: self.rehearsed.clone(),
        };
        let temporary = path.with_extension("new");
        serde_json::to_vec(&file)
            .map_err(io::Error::from)
            .and_then(|json| fs::write(&temporary, json))
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(|source| Error::File {
                what: "write",
                path: path.to_owned(),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let mut memory = Memory {
            assignment: Some(Assignment {
                deployment_uid: "gmd".into(),
                slot: 2,
                generation: 9,
                node_id: "abc123-tiny-2".into(),
                node_num: 3,
                callback_base: "http://10.0.0.1:9100".into(),
            }),
            stopped: true,
            ..Memory::default()
        };
        for generation in [9, 4] {
            memory.note(&SlotKey {
                deployment_uid: "gmd".into(),
                slot: 2,
                pod_uid: "pod".into(),
                generation,
            });
        }
        memory
    }

    #[test]
    fn what_was_saved_is_loaded_by_the_same_pod_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(Memory::load(&path, "pod").unwrap(), Memory::default());
        memory().save(&path, "pod").unwrap();
        assert_eq!(Memory::load(&path, "pod").unwrap(), memory());
        assert_eq!(Memory::load(&path, "other").unwrap(), Memory::default());
        assert_eq!(memory().seen.values().copied().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn a_damaged_state_is_an_error_and_not_an_open_door() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(&path, "{\"version\":1,").unwrap();
        assert!(matches!(Memory::load(&path, "pod"), Err(Error::Parse { .. })));
    }
}
