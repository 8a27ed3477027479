//! Apply: the journal of rounds, one file each, on the pod's memory volume.
//!
//! It serves resume and evidence and never refuses an exam: a write that fails is noted, and the round goes on in
//! memory. [`copier`] brings the files to disk behind its back.

pub mod copier;
pub mod record;

use record::Record;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Rounds kept on the memory volume.
const KEPT_ROUNDS: usize = 16;
/// Bytes of old rounds kept on the memory volume.
const KEPT_BYTES: u64 = 4 << 20;
/// Longest file that is read back.
const MAX_FILE: u64 = 256 << 20;
/// Suffix of a round's file.
const SUFFIX: &str = ".journal";

/// The journal.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    current: Option<Current>,
    failing: bool,
    writes: bool,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Journal {
    /// One that keeps nothing: for a slot that has no disk to die with.
    pub fn nowhere() -> Self {
        Self {
            folder: PathBuf::new(),
            current: None,
            failing: false,
            writes: false,
        }
    }

    /// Opens the folder, and tells every round in it, oldest first. A folder that cannot be used is a failing journal.
    pub fn open(folder: PathBuf) -> (Self, Vec<Vec<Record>>) {
        let mut journal = Self {
            folder,
            current: None,
            failing: false,
            writes: true,
        };
        let told = fs::create_dir_all(&journal.folder).and_then(|()| journal.recover());
        let rounds = match told {
            Ok(rounds) => rounds,
            Err(error) => {
                journal.note_failure("open", &error);
                Vec::new()
            }
        };
        (journal, rounds)
    }

    fn recover(&mut self) -> io::Result<Vec<Vec<Record>>> {
        let files = files(&self.folder)?;
        let mut rounds = Vec::new();
        let newest = files.len().saturating_sub(1);
        for (index, path) in files.iter().enumerate() {
            let length = fs::metadata(path)?.len();
            if length > MAX_FILE {
                tracing::warn!(path = %path.display(), length, "journal file is too long to be read");
                continue;
            }
            let (records, whole) = record::decode(&fs::read(path)?);
            if index == newest {
                // What follows the last whole record was cut off by the end of the writer.
                let file = OpenOptions::new().append(true).open(path)?;
                file.set_len(whole as u64)?;
                self.current = Some(Current {
                    path: path.clone(),
                    file,
                    length: whole as u64,
                });
            }
            rounds.push(records);
        }
        Ok(rounds)
    }

    /// Begins the file of a round.
    pub fn begin(&mut self, round_id: i64, started: &Record) {
        self.current = None;
        self.failing = false;
        if !self.writes {
            return;
        }
        if let Err(error) = self
            .make_room(KEPT_ROUNDS, KEPT_BYTES)
            .and_then(|()| self.create(round_id, started))
        {
            // Old rounds are worth less than this one.
            let again = self.make_room(0, 0).and_then(|()| self.create(round_id, started));
            if again.is_err() {
                self.note_failure("begin a round in", &error);
            }
        }
    }

    fn create(&mut self, round_id: i64, started: &Record) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{round_id:016}{SUFFIX}"));
        // Appending: after half a line was cut off, the next one must follow what is left.
        let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let line = record::encode(started);
        file.write_all(&line)?;
        self.current = Some(Current {
            path,
            file,
            length: line.len() as u64,
        });
        Ok(())
    }

    /// Appends. Old rounds make room; a batch that still has none for its artifacts is noted without them, so that a
    /// resume skips nothing.
    pub fn append(&mut self, record: &Record) {
        let Some(current) = &mut self.current else {
            return;
        };
        let mut written = current.append(record);
        if written.is_err() && remove_others(&self.folder, &current.path) {
            written = current.append(record);
        }
        if written.is_err()
            && let Some(short) = without_artifacts(record)
        {
            self.failing = true;
            written = current.append(&short);
        }
        if let Err(error) = written {
            self.note_failure("append to", &error);
        }
    }

    /// Whether the last round could not be written in full.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn make_room(&self, keep: usize, keep_bytes: u64) -> io::Result<()> {
        let mut bytes = 0;
        for (age, path) in files(&self.folder)?.iter().rev().enumerate() {
            bytes += fs::metadata(path)?.len();
            if age >= keep || bytes > keep_bytes {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn note_failure(&mut self, what: &str, error: &io::Error) {
        if !self.failing {
            tracing::error!(folder = %self.folder.display(), %error, "cannot {what} the journal; rounds go on in memory");
        }
        self.failing = true;
    }
}

impl Current {
    /// All of the line or nothing of it.
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let line = record::encode(record);
        if let Err(error) = self.file.write_all(&line) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

/// The record of a batch that lists no artifacts; none for any other record.
fn without_artifacts(record: &Record) -> Option<Record> {
    match record {
        Record::Batch {
            at, group, next, count, ..
        } => Some(Record::Batch {
            at: *at,
            group: *group,
            next: *next,
            count: *count,
            artifacts: Vec::new(),
        }),
        Record::Started { .. }
        | Record::Answered { .. }
        | Record::Sent { .. }
        | Record::StageEnd { .. }
        | Record::Ended { .. } => None,
    }
}

/// Removes every round but one; true when that freed anything.
fn remove_others(folder: &Path, kept: &Path) -> bool {
    let removed = files(folder).map(|files| {
        let others = files.iter().filter(|path| *path != kept);
        others.filter(|path| fs::remove_file(path).is_ok()).count()
    });
    removed.is_ok_and(|count| count > 0)
}

/// The files of a journal folder, oldest first.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(SUFFIX) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::serve::round::{Round, tests::request};

    fn started(at: i64) -> Record {
        Record::Started {
            request: request(),
            at,
            groups: 1,
            resume: vec![0],
        }
    }

    fn batch(next: u64) -> Record {
        Record::Batch {
            at: 5,
            group: 0,
            next,
            count: 1,
            artifacts: vec![(next as i32, "AAAA".into())],
        }
    }

    #[test]
    fn a_second_life_appends_to_what_the_first_one_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, rounds) = Journal::open(folder.path().join("journal"));
        assert!(rounds.is_empty());
        first.begin(7, &started(7));
        first.append(&batch(1));
        drop(first);
        let (mut second, rounds) = Journal::open(folder.path().join("journal"));
        assert_eq!(rounds, [vec![started(7), batch(1)]]);
        second.append(&batch(2));
        let (_, rounds) = Journal::open(folder.path().join("journal"));
        assert_eq!(rounds, [vec![started(7), batch(1), batch(2)]]);
    }

    #[test]
    fn half_a_line_is_cut_off_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, _) = Journal::open(folder.path().to_owned());
        first.begin(7, &started(7));
        first.append(&batch(1));
        let path = files(folder.path()).unwrap().remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 3);
        fs::write(&path, bytes).unwrap();
        let (mut second, rounds) = Journal::open(folder.path().to_owned());
        assert_eq!(rounds, [vec![started(7)]]);
        second.append(&batch(1));
        second.append(&batch(2));
        let (_, rounds) = Journal::open(folder.path().to_owned());
        assert_eq!(Round::replay(&rounds[0]).unwrap().next, [2]);
    }

    #[test]
    fn old_rounds_make_room_for_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path().to_owned());
        for id in 1..40 {
            journal.begin(id, &started(id));
        }
        let (_, rounds) = Journal::open(folder.path().to_owned());
        assert_eq!(rounds.len(), KEPT_ROUNDS + 1);
        assert_eq!(rounds.last(), Some(&vec![started(39)]));
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_noted_and_refuses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let (mut journal, rounds) = Journal::open(file.join("journal"));
        assert!(rounds.is_empty() && journal.is_failing());
        journal.begin(1, &started(1));
        journal.append(&batch(1));
        assert!(journal.is_failing());
    }

    /// A memory file system of one page, as a pod's volume with a size limit is one; needs root.
    struct Volume(tempfile::TempDir);

    impl Volume {
        fn mount() -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let flags = nix::mount::MsFlags::empty();
            let mounted = nix::mount::mount(Some("tmpfs"), folder.path(), Some("tmpfs"), flags, Some("size=16k"));
            match mounted {
                Ok(()) => Some(Self(folder)),
                Err(error) => {
                    eprintln!("not run: a small file system cannot be mounted here: {error}");
                    None
                }
            }
        }
    }

    impl Drop for Volume {
        fn drop(&mut self) {
            if let Err(error) = nix::mount::umount(self.0.path()) {
                eprintln!("{} stays mounted: {error}", self.0.path().display());
            }
        }
    }

    #[test]
    fn a_full_volume_loses_artifacts_first_and_never_a_whole_record() {
        let Some(volume) = Volume::mount() else { return };
        let (mut journal, _) = Journal::open(volume.0.path().to_owned());
        journal.begin(1, &started(1));
        let long = |next: u64| Record::Batch {
            at: 5,
            group: 0,
            next,
            count: 32,
            artifacts: vec![(1, "A".repeat(32)); 32],
        };
        for next in 1..200 {
            journal.append(&long(next));
        }
        assert!(journal.is_failing());
        drop(journal);
        let (mut second, rounds) = Journal::open(volume.0.path().to_owned());
        let round = Round::replay(&rounds[0]).unwrap();
        assert!(
            round.next[0] > 10,
            "positions fit where artifacts no longer do: {:?}",
            round.next
        );
        assert!(round.outbox.len() < round.generated as usize);
        second.begin(2, &started(2));
        second.append(&batch(1));
        assert!(!second.is_failing(), "the next round takes the room of the old one");
        let (_, rounds) = Journal::open(volume.0.path().to_owned());
        assert_eq!(rounds.last().map(Vec::len), Some(2));
    }
}
