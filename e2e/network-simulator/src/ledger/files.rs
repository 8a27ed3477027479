//! Writing the ledger: each file whole and then renamed, so that a reader never sees half of one.

use super::{ArtifactLine, Ledger};
use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Why the ledger is not on disk.
#[derive(Debug, Error)]
#[error("ledger: {path} could not be written: check the directory and its free space")]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// One host's artifacts in one exam.
#[derive(Debug, Clone)]
pub struct ArtifactsFile {
    /// Relative to the ledger's directory.
    pub name: String,
    pub lines: Vec<ArtifactLine>,
}

/// Writes the artifacts files, then the ledger that names them.
pub fn write(directory: &Path, ledger: &Ledger, artifacts: &[ArtifactsFile]) -> Result<(), Error> {
    for file in artifacts {
        let mut text = String::new();
        for line in &file.lines {
            text.push_str(&to_json(line));
            text.push('\n');
        }
        replace(&directory.join(&file.name), text.as_bytes())?;
    }
    replace(&directory.join("ledger.json"), to_json(ledger).as_bytes())
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("ledger values have text keys and finite numbers")
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let wrong = |source| Error {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(wrong)?;
    }
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary).map_err(wrong)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(wrong)?;
    fs::rename(&temporary, path).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let error = replace(Path::new("/proc/nowhere/ledger.json"), b"{}").expect_err("read-only");
        assert!(error.to_string().contains("/proc/nowhere/ledger.json"));
    }
}
