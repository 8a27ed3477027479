//! `poc-vectors DIR`: checks published reference vectors, one line per file. Exit status 1 when anything fails or
//! nothing could be checked.

#![expect(clippy::print_stdout, reason = "the report is this program's output")]

use kernels::vectors::{Outcome, check_directory};
use std::{env, error::Error, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: poc-vectors DIR");
        return ExitCode::from(2);
    };
    let directory = PathBuf::from(directory);
    let report = match check_directory(&directory, &mut |file| println!("{file}")) {
        Ok(report) => report,
        Err(error) => {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            eprintln!("poc-vectors: {error}{cause}");
            return ExitCode::FAILURE;
        }
    };
    println!("{report}");
    if report.count(Outcome::Passed) + report.count(Outcome::Failed) == 0 {
        eprintln!("poc-vectors: {} holds no file with known checks", directory.display());
    }
    if report.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
