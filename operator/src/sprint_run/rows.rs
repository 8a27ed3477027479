//! Box 4: the records volume. One JSON line per closed record in `<host>.jsonl`, on disk before the record is closed.
//!
//! A crash between the line and the seal leaves the line to be written again: readers keep the last line of a name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crds::sprint_run::SlotRecord;
use crds::{SprintRunSpec, SprintRunStatus};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// Why a line was not written or the file not read.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// The volume refused.
    #[error("records file {} cannot be {verb}; check the records volume", path.display())]
    Io {
        /// read or written.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record is not JSON.
    #[error("a record cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// One line: the whole record with every slot.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row<'a> {
    /// Shape of this line.
    pub version: u32,
    /// Namespace of the record.
    pub namespace: &'a str,
    /// Name of the record.
    pub name: &'a str,
    /// Which exam.
    pub spec: &'a SprintRunSpec,
    /// The record as it is closed.
    pub status: &'a SprintRunStatus,
    /// Every slot, not the worst alone.
    pub all_slots: &'a [SlotRecord],
}

/// Name of a line, when reading back.
#[derive(Deserialize)]
struct Named {
    namespace: String,
    name: String,
}

/// The records volume.
#[derive(Debug, Default)]
pub struct Rows {
    folder: Option<PathBuf>,
    written: BTreeMap<String, BTreeSet<String>>,
}

impl Rows {
    /// Records in `folder`; none are kept without one.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            written: BTreeMap::new(),
        }
    }

    /// Whether lines are written at all.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Names of records of `host` that have a line, `namespace/name`. Read from the file once.
    pub async fn names(&mut self, host: &str) -> Result<&BTreeSet<String>, Error> {
        let Some(folder) = self.folder.clone() else {
            return Ok(self.written.entry(host.to_owned()).or_default());
        };
        if !self.written.contains_key(host) {
            let names = read_names(&file(&folder, host)).await?;
            self.written.insert(host.to_owned(), names);
        }
        Ok(self.written.entry(host.to_owned()).or_default())
    }

    /// Notes that a line was written.
    pub fn add(&mut self, host: &str, namespace: &str, name: &str) {
        if let Some(names) = self.written.get_mut(host) {
            names.insert(format!("{namespace}/{name}"));
        }
    }
}

/// Host names are DNS labels, so they are file names too.
fn file(folder: &Path, host: &str) -> PathBuf {
    folder.join(format!("{host}.jsonl"))
}

async fn read_names(path: &Path) -> Result<BTreeSet<String>, Error> {
    let failed = |source| Error::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    };
    let opened = match tokio::fs::File::open(path).await {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut lines = BufReader::new(opened).lines();
    let mut names = BTreeSet::new();
    while let Some(line) = lines.next_line().await.map_err(failed)? {
        // A line cut by a crash has no name; its record is still open and gets another.
        if let Ok(named) = serde_json::from_str::<Named>(&line) {
            names.insert(format!("{}/{}", named.namespace, named.name));
        }
    }
    Ok(names)
}

/// Appends one line and waits until it is on disk.
pub async fn append(folder: &Path, host: &str, row: &Row<'_>) -> Result<(), Error> {
    let path = file(folder, host);
    let mut line = serde_json::to_vec(row).map_err(Error::Json)?;
    line.push(b'\n');
    let failed = |source| Error::Io {
        verb: "written",
        path: path.clone(),
        source,
    };
    tokio::fs::create_dir_all(folder).await.map_err(failed)?;
    let mut file = tokio::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(&path)
        .await
        .map_err(failed)?;
    if ends_in_the_middle(&mut file).await.map_err(failed)? {
        line.insert(0, b'\n');
    }
    file.write_all(&line).await.map_err(failed)?;
    file.sync_all().await.map_err(failed)
}

/// A crash may have cut the last line; the next must not be glued to it.
async fn ends_in_the_middle(file: &mut tokio::fs::File) -> std::io::Result<bool> {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    if file.metadata().await?.len() == 0 {
        return Ok(false);
    }
    file.seek(std::io::SeekFrom::End(-1)).await?;
    let mut last = [0];
    file.read_exact(&mut last).await?;
    Ok(last[0] != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(name: &'a str, spec: &'a SprintRunSpec, status: &'a SprintRunStatus) -> Row<'a> {
        Row {
            version: 1,
            namespace: "gonka",
            name,
            spec,
            status,
            all_slots: &[],
        }
    }

    #[tokio::test]
    async fn lines_are_appended_and_their_names_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (spec, status) = (SprintRunSpec::default(), SprintRunStatus::default());
        append(folder.path(), "ours", &row("ours-s-1", &spec, &status))
            .await
            .expect("written");
        append(folder.path(), "ours", &row("ours-s-2", &spec, &status))
            .await
            .expect("written");
        let mut rows = Rows::new(Some(folder.path().to_owned()));
        let names = rows.names("ours").await.expect("read");
        assert_eq!(
            names.iter().map(String::as_str).collect::<Vec<_>>(),
            ["gonka/ours-s-1", "gonka/ours-s-2"]
        );
        assert!(rows.names("other").await.expect("read").is_empty());
    }

    #[tokio::test]
    async fn a_line_cut_by_a_crash_spoils_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ours.jsonl");
        std::fs::write(&path, "{\"namespace\":\"gonka\",\"na").expect("written");
        let (spec, status) = (SprintRunSpec::default(), SprintRunStatus::default());
        append(folder.path(), "ours", &row("ours-s-2", &spec, &status))
            .await
            .expect("written");
        let names = read_names(&path).await.expect("read");
        assert_eq!(names, BTreeSet::from(["gonka/ours-s-2".to_owned()]));
    }

    #[tokio::test]
    async fn a_volume_that_refuses_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "").expect("written");
        let (spec, status) = (SprintRunSpec::default(), SprintRunStatus::default());
        let error = append(&blocked, "ours", &row("x", &spec, &status))
            .await
            .expect_err("a file is no folder");
        assert!(error.to_string().contains("ours.jsonl"));
    }
}
