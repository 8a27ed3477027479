//! Box 4, the agent's memory on disk: `state.json` in its folder, replaced atomically. A file that cannot be read is set
//! aside and said so; the agent then starts with what it sees.

use std::path::{Path, PathBuf};

use super::history::{History, VERSION};

const NAME: &str = "state.json";
/// 32 GPUs with 32 kinds of XID errors each stay far below.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not readable.
    #[error("could not read {path}")]
    Read {
        /// File.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Not ours.
    #[error("{path} is not a state file of this version; it was set aside")]
    Parse {
        /// File.
        path: String,
        /// Cause.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// Not writable.
    #[error("could not write {path}: mount a folder of the host there")]
    Write {
        /// File.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// The file of a folder.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// In this folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(NAME),
        }
    }

    /// What was remembered; an empty memory when there is no file.
    pub fn load(&self) -> Result<History, Error> {
        let text = match std::fs::metadata(&self.path).and_then(|meta| self.read(meta.len())) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(History::default()),
            Err(source) => {
                return Err(Error::Read {
                    path: self.name(),
                    source,
                });
            }
        };
        match serde_json::from_str::<History>(&text) {
            Ok(history) if history.version == VERSION => Ok(history),
            other => {
                let aside = self.path.with_extension("json.bad");
                if let Err(error) = std::fs::rename(&self.path, &aside) {
                    tracing::warn!(%error, "could not set the state file aside");
                }
                Err(Error::Parse {
                    path: self.name(),
                    source: other.err(),
                })
            }
        }
    }

    /// Replaces the file.
    pub async fn save(&self, history: &History) -> Result<(), Error> {
        let write = |source| Error::Write {
            path: self.name(),
            source,
        };
        let text = serde_json::to_vec(history).map_err(|error| write(error.into()))?;
        if let Some(folder) = self.path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(write)?;
        }
        let next = self.path.with_extension("json.new");
        tokio::fs::write(&next, &text).await.map_err(write)?;
        tokio::fs::rename(&next, &self.path).await.map_err(write)
    }

    fn read(&self, length: u64) -> std::io::Result<String> {
        if length > MAX_BYTES {
            return Err(std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                "too long for a state file",
            ));
        }
        std::fs::read_to_string(&self.path)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::history::KnownGpu;

    fn history() -> History {
        let mut history = History {
            boot_id: Some("b1".to_owned()),
            ..History::default()
        };
        history.gpus.insert("GPU-a".to_owned(), KnownGpu::default());
        history
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(&folder.path().join("made-on-demand"));
        assert_eq!(file.load().unwrap(), History::default());
        file.save(&history()).await.unwrap();
        assert_eq!(file.load().unwrap(), history());
    }

    #[tokio::test]
    async fn a_broken_file_is_set_aside_and_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path());
        for text in ["{", "[]", r#"{"version": 99}"#] {
            std::fs::write(folder.path().join(NAME), text).unwrap();
            assert!(matches!(file.load(), Err(Error::Parse { .. })), "{text}");
            assert!(folder.path().join("state.json.bad").exists());
            assert_eq!(file.load().unwrap(), History::default());
        }
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_an_error_and_no_panic() {
        let file = StateFile::new(Path::new("/proc/no-such-folder"));
        assert!(matches!(file.save(&history()).await, Err(Error::Write { .. })));
    }
}
