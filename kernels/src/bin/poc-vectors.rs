//! `poc-vectors [--large] DIR`: checks published reference vectors, one line per file. What takes minutes is checked with
//! `--large` only, and named where it is left out. Exit status 1 when anything fails or
//! nothing could be checked, 2 when it is not called like this.

use kernels::vectors::{Effort, Outcome, check_directory};
use std::{
    env,
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut arguments: Vec<_> = env::args_os().skip(1).collect();
    let given = arguments.len();
    arguments.retain(|argument| argument != "--large");
    let effort = if arguments.len() < given {
        Effort::Large
    } else {
        Effort::Standard
    };
    let [directory] = &arguments[..] else {
        eprintln!("usage: poc-vectors [--large] DIR");
        return ExitCode::from(2);
    };
    match run(&PathBuf::from(directory), effort) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            eprintln!("poc-vectors: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn run(directory: &Path, effort: Effort) -> Result<bool, Box<dyn Error>> {
    // A reader that went away must not look like a success, nor panic.
    let mut written = Ok(());
    let report = check_directory(directory, effort, &mut |file| {
        written = written.as_ref().map_or(Ok(()), |()| writeln!(io::stdout(), "{file}"));
    })?;
    written?;
    writeln!(io::stdout(), "{report}")?;
    if report.count(Outcome::Passed) + report.count(Outcome::Failed) == 0 {
        eprintln!("poc-vectors: {} holds no file with known checks", directory.display());
    }
    Ok(report.is_success())
}
