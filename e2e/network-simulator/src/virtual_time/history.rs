//! What a run in virtual time leaves behind, written while it goes on, so that no run is too long for memory.
//!
//! | file | what |
//! |---|---|
//! | `ledger.json` | as in real time, one exam and one epoch a line |
//! | `facts.jsonl` | the network at every full hour ([`super::facts`]) |
//! | `scenario.yaml`, `run.json` | what it takes to do it again |
//!
//! Artifacts are not there: they were counted.

use super::{Driver, facts};
use crate::{ledger, views::control};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};
use thiserror::Error;

pub const LEDGER: &str = "ledger.json";
pub const FACTS: &str = "facts.jsonl";
pub const SCENARIO: &str = "scenario.yaml";
pub const RUN: &str = "run.json";
/// Settled epochs until the end, when their place in the ledger comes.
const EPOCHS: &str = "epochs.new";
const NEW_LEDGER: &str = "ledger.new";

/// Why a history is not on disk, or could not be read back.
#[derive(Debug, Error)]
#[error("history: {path}: check the directory and its free space")]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// What a run started from, beside its scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub seed: u64,
    pub epochs: u64,
    pub started_ms: u64,
}

/// A history being written.
#[derive(Debug)]
pub struct History {
    directory: PathBuf,
    ledger: BufWriter<File>,
    epochs: BufWriter<File>,
    facts: BufWriter<File>,
    /// What of the ledger comes after its exams and after its epochs.
    between: String,
    after: String,
    exams_written: u64,
    epochs_written: u64,
}

impl History {
    /// Begins a history in a directory, in place of one that may be there.
    pub fn begin(directory: &Path, driver: &Driver, scenario: &str) -> Result<Self, Error> {
        let wrong = at(directory);
        fs::create_dir_all(directory).map_err(&wrong)?;
        let start = Start {
            seed: driver.net().scenario.network.seed,
            epochs: driver.net().scenario.network.epochs,
            started_ms: driver.net().started_ms,
        };
        write(directory, SCENARIO, scenario.as_bytes())?;
        write(directory, RUN, to_json(&start).as_bytes())?;
        let create = |name: &str| {
            let path = directory.join(name);
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path);
            file.map(BufWriter::new).map_err(at(&path))
        };
        let (before, between, after) = frame(driver);
        let mut ledger = create(NEW_LEDGER)?;
        ledger.write_all(before.as_bytes()).map_err(&wrong)?;
        Ok(Self {
            directory: directory.to_owned(),
            ledger,
            epochs: create(EPOCHS)?,
            facts: create(FACTS)?,
            between,
            after,
            exams_written: 0,
            epochs_written: 0,
        })
    }

    pub fn exams(&mut self, exams: &[ledger::Exam]) -> Result<(), Error> {
        for exam in exams {
            line(&mut self.ledger, self.exams_written, exam).map_err(at(&self.directory))?;
            self.exams_written += 1;
        }
        Ok(())
    }

    pub fn epochs(&mut self, epochs: &[ledger::Epoch]) -> Result<(), Error> {
        for epoch in epochs {
            line(&mut self.epochs, self.epochs_written, epoch).map_err(at(&self.directory))?;
            self.epochs_written += 1;
        }
        Ok(())
    }

    /// The network as it is at a full hour.
    pub fn hour(&mut self, facts: &facts::Facts) -> Result<(), Error> {
        writeln!(self.facts, "{}", to_json(facts)).map_err(at(&self.directory))
    }

    /// Puts the parts together; only then the ledger has its name.
    pub fn finish(mut self) -> Result<(), Error> {
        let new = self.directory.join(NEW_LEDGER);
        let wrong = at(&new);
        let mut join = || -> io::Result<()> {
            self.ledger.write_all(b"\n")?;
            self.ledger.write_all(self.between.as_bytes())?;
            self.epochs.flush()?;
            let epochs = self.epochs.get_mut();
            epochs.rewind()?;
            io::copy(epochs, &mut self.ledger)?;
            self.ledger.write_all(b"\n")?;
            self.ledger.write_all(self.after.as_bytes())?;
            self.ledger.flush()?;
            self.facts.flush()?;
            fs::rename(&new, self.directory.join(LEDGER))?;
            fs::remove_file(self.directory.join(EPOCHS))
        };
        join().map_err(wrong)
    }
}

/// What a history in a directory started from.
pub fn read_start(directory: &Path) -> Result<(Start, String), Error> {
    let text = |name: &str| {
        let path = directory.join(name);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(crate::scenario::MAX_BYTES).read_to_string(&mut text))
            .map_err(at(&path))?;
        Ok::<_, Error>(text)
    };
    let start = serde_json::from_str(&text(RUN)?).map_err(|error| at(&directory.join(RUN))(error.into()))?;
    Ok((start, text(SCENARIO)?))
}

/// The ledger around its exams and epochs.
fn frame(driver: &Driver) -> (String, String, String) {
    let empty = to_json(&control::ledger_frame(driver.net()));
    let cut = |text: &str, name: &str| {
        let mark = format!("\"{name}\":[");
        let place = text.rfind(&mark).map_or(text.len(), |start| start + mark.len());
        (text[..place].to_owned(), text[place..].to_owned())
    };
    let (before, rest) = cut(&empty, "exams");
    let (between, after) = cut(&rest, "epochs");
    (before, between, after)
}

fn line<T: Serialize>(file: &mut BufWriter<File>, written: u64, value: &T) -> io::Result<()> {
    file.write_all(if written == 0 { b"\n" } else { b",\n" })?;
    serde_json::to_writer(file, value).map_err(io::Error::from)
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = directory.join(name);
    fs::write(&path, bytes).map_err(at(&path))
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("histories have text keys and finite numbers")
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error {
        path: path.clone(),
        source,
    }
}
