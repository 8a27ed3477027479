//! Checks published reference vectors against this crate (`docs/poc-v2.md`, section 9; `docs/poc-v1.md`, section 5).
//!
//! Input: a directory of JSON files. Output: one report per file. A file is recognised by what is in it, then by its
//! name, so directories made elsewhere work too. Files are foreign: sizes are bounded, and what is malformed becomes
//! a problem with its JSON path.

mod array;
mod commitment;
mod item;
mod misc;
mod rng;
mod tally;
mod tiny_models;
mod v1_main_net;
mod v1_model;
mod v1_rng;
mod validation;

use crate::cuda::{self, Device};
use item::Item;
use serde_json::Value;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use tally::Tally;
use thiserror::Error;

/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;
/// Problems printed per file; the rest is counted.
const PROBLEMS_SHOWN: usize = 8;

/// Why a directory could not be checked at all.
#[derive(Debug, Error)]
pub enum Error {
    /// The directory cannot be listed.
    #[error("cannot list {}: give a directory of vector files", path.display())]
    List {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What became of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Recognised, something was checked, and all of it holds.
    Passed,
    /// Something does not hold, is malformed or could not be read.
    Failed,
    /// Not a file this crate has checks for.
    Skipped,
}

/// Something in a file that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a JSON path; `$` is the document.
    pub path: String,
    /// What was expected and what was found.
    pub what: String,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// File name without its directory.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Comparisons that were made.
    pub checks: u64,
    /// What does not hold; empty unless failed.
    pub problems: Vec<Problem>,
    /// Facts that decide nothing.
    pub notes: Vec<String>,
    /// What the file holds and [`Effort::Standard`] leaves unchecked.
    pub left_out: Vec<String>,
}

/// How much time a check may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Seconds per file, and memory for no more than a small model.
    Standard,
    /// Everything a file holds: for the main network's v1 model 36 Tflop and 2 GB.
    Large,
}

/// All files of a directory, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One entry per JSON file.
    pub files: Vec<FileReport>,
}

impl Report {
    /// Number of files with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.files.iter().filter(|file| file.outcome == outcome).count()
    }

    /// Whether something was checked and all of it holds.
    pub fn is_success(&self) -> bool {
        self.count(Outcome::Failed) == 0 && self.count(Outcome::Passed) > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|outcome| self.count(outcome));
        let in_part = self.files.iter().filter(|file| !file.left_out.is_empty()).count();
        let in_part = match in_part {
            0 => String::new(),
            count => format!(" ({count} of them in part: see what needs --large)"),
        };
        write!(f, "{passed} passed{in_part}, {failed} failed, {skipped} skipped")
    }
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let notes = self.notes.join("; ");
        match self.outcome {
            Outcome::Passed => write!(f, "passed   {}: {} checks", self.name, self.checks)?,
            Outcome::Skipped => return write!(f, "skipped  {}: {notes}", self.name),
            Outcome::Failed => {
                write!(
                    f,
                    "FAILED   {}: {} problems in {} checks",
                    self.name,
                    self.problems.len(),
                    self.checks
                )?;
            }
        }
        if !notes.is_empty() {
            write!(f, " ({notes})")?;
        }
        if !self.left_out.is_empty() {
            write!(
                f,
                "\n           NOT CHECKED without --large: {}",
                self.left_out.join("; ")
            )?;
        }
        for problem in self.problems.iter().take(PROBLEMS_SHOWN) {
            write!(f, "\n           {}: {}", problem.path, problem.what)?;
        }
        match self.problems.len().saturating_sub(PROBLEMS_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n           and {more} more"),
        }
    }
}

/// Kinds of files with checks, and those known to belong elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rng,
    TinyModels,
    Misc,
    Commitment,
    V1Rng,
    V1Model,
    V1MainNet,
}

/// Checks every file `*.json` of a directory (not of its subdirectories), in order of name; `each` hears of every
/// file as soon as it is done.
pub fn check_directory(directory: &Path, effort: Effort, each: &mut dyn FnMut(&FileReport)) -> Result<Report, Error> {
    check_files(
        directory,
        &mut |name, document| check_document(name, document, effort),
        each,
    )
}

/// As [`check_directory`], for what a GPU computes: the bf16 artifacts of dense models and v1 models, with the device that `open` gives.
pub fn check_directory_on(
    directory: &Path,
    effort: Effort,
    open: &dyn Fn() -> Result<Box<dyn Device>, cuda::Error>,
    each: &mut dyn FnMut(&FileReport),
) -> Result<Report, Error> {
    let mut check = |name: &str, document: &Value| match recognise(name, document) {
        Some(Kind::TinyModels) => {
            let mut tally = Tally::default();
            tiny_models::check_on(&Item::root(document), open, &mut tally);
            tally.report(name)
        }
        Some(Kind::V1Model) => {
            let mut tally = Tally::default();
            v1_model::check_on(&Item::root(document), effort, open, &mut tally);
            tally.report(name)
        }
        Some(Kind::V1MainNet) if effort == Effort::Large => {
            let mut tally = Tally::default();
            let result = v1_main_net::check_on(&Item::root(document), open, &mut tally);
            tally.absorb(result);
            tally.report(name)
        }
        _ => skipped(name, "nothing a GPU computes"),
    };
    check_files(directory, &mut check, each)
}

fn check_files(
    directory: &Path,
    check: &mut dyn FnMut(&str, &Value) -> FileReport,
    each: &mut dyn FnMut(&FileReport),
) -> Result<Report, Error> {
    let list = |source| Error::List {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        {
            paths.push(path);
        }
    }
    paths.sort();
    let mut report = Report::default();
    for path in paths {
        let file = check_file(&path, check);
        each(&file);
        report.files.push(file);
    }
    Ok(report)
}

fn check_file(path: &Path, check: &mut dyn FnMut(&str, &Value) -> FileReport) -> FileReport {
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let read = fs::metadata(path).and_then(|metadata| {
        if metadata.len() > MAX_FILE {
            return Err(io::Error::other(format!(
                "{} bytes: at most {MAX_FILE} are read",
                metadata.len()
            )));
        }
        fs::read(path)
    });
    match read {
        Ok(bytes) => parse(&name, &bytes, check),
        Err(error) => failed(name, format!("cannot be read: {error}")),
    }
}

fn parse(name: &str, text: &[u8], check: &mut dyn FnMut(&str, &Value) -> FileReport) -> FileReport {
    match serde_json::from_slice(text) {
        Ok(document) => check(name, &document),
        Err(error) => failed(name.to_owned(), format!("is not JSON: {error}")),
    }
}

/// Checks the text of one file; the name serves the report, and recognition where the content does not tell.
pub fn check_text(name: &str, text: &[u8], effort: Effort) -> FileReport {
    parse(name, text, &mut |name, document| check_document(name, document, effort))
}

/// As [`check_text`], for a document already parsed.
pub fn check_document(name: &str, document: &Value, effort: Effort) -> FileReport {
    let root = Item::root(document);
    let mut tally = Tally::default();
    match recognise(name, document) {
        None => return skipped(name, "not a file with known checks"),
        Some(Kind::Rng) => rng::check(&root, &mut tally),
        Some(Kind::TinyModels) => tiny_models::check(&root, &mut tally),
        Some(Kind::Misc) => misc::check(&root, &mut tally),
        Some(Kind::Commitment) => commitment::check(&root, &mut tally),
        Some(Kind::V1Rng) => v1_rng::check(&root, &mut tally),
        Some(Kind::V1Model) => v1_model::check(&root, effort, &mut tally),
        Some(Kind::V1MainNet) => {
            let result = v1_main_net::check(&root, effort, &mut tally);
            tally.absorb(result);
        }
    }
    tally.report(name)
}

fn recognise(name: &str, document: &Value) -> Option<Kind> {
    let first_of = |list: &str| document.get(list).and_then(|list| list.get(0));
    let within = |entry: Option<&Value>, keys: &[&str]| {
        entry.is_some_and(|entry| keys.iter().any(|key| entry.get(key).is_some()))
    };
    if within(
        first_of("sets"),
        &["seeds_from_string", "murmur3_32", "pick_indices", "haar_rotation"],
    ) {
        return Some(Kind::Rng);
    }
    if within(first_of("cases"), &["runs", "reference_validation"]) {
        return Some(Kind::TinyModels);
    }
    if within(
        Some(document),
        &["encode_decode", "fraud_test_table", "critical_counts", "nonce_iterator"],
    ) {
        return Some(Kind::Misc);
    }
    if within(Some(document), &["sum_trees"]) {
        return Some(Kind::Commitment);
    }
    if within(first_of("sets"), &["rng_layers"]) {
        return Some(Kind::V1Rng);
    }
    if within(first_of("cases"), &["pool_fraction"]) {
        return Some(Kind::V1Model);
    }
    if within(Some(document), &["pool_f16", "hidden_last_token_after_layer"]) {
        return Some(Kind::V1MainNet);
    }
    let patterns = [
        ("v2_rng", Kind::Rng),
        ("v2_tiny_models", Kind::TinyModels),
        ("v2_misc", Kind::Misc),
        ("v2_commitment", Kind::Commitment),
        ("v1_rng", Kind::V1Rng),
        ("v1_model_mainnet", Kind::V1MainNet),
        ("v1_model", Kind::V1Model),
    ];
    patterns
        .into_iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, kind)| kind)
}

fn failed(name: String, what: String) -> FileReport {
    let problems = vec![Problem {
        path: "$".to_owned(),
        what,
    }];
    FileReport {
        name,
        outcome: Outcome::Failed,
        checks: 0,
        problems,
        notes: Vec::new(),
        left_out: Vec::new(),
    }
}

fn skipped(name: &str, note: &str) -> FileReport {
    FileReport {
        name: name.to_owned(),
        outcome: Outcome::Skipped,
        checks: 0,
        problems: Vec::new(),
        notes: vec![note.to_owned()],
        left_out: Vec::new(),
    }
}
