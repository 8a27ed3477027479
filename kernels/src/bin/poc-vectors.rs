//! `poc-vectors [--large] [--engine cuda] DIR`: checks published reference vectors, one line per file. What takes minutes is
//! checked with `--large` only, and named where it is left out; with `--engine cuda` what a GPU computes. Exit status 1 when
//! anything fails or nothing could be checked, 2 when it is not called like this.

use kernels::{
    cuda::driver::{Gpu, Options},
    vectors::{Effort, Outcome, Report, check_directory, check_directory_on},
};
use std::{
    env,
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let Some((directory, engine)) = arguments() else {
        eprintln!("usage: poc-vectors [--large] [--engine cuda] DIR");
        return ExitCode::from(2);
    };
    match run(&directory, &engine) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            eprintln!("poc-vectors: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

enum Engine {
    Cpu(Effort),
    Cuda(Effort),
}

fn arguments() -> Option<(PathBuf, Engine)> {
    let (mut effort, mut on_gpu, mut directory) = (Effort::Standard, false, None);
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--large") => effort = Effort::Large,
            Some("--engine") if arguments.next()? == "cuda" => on_gpu = true,
            Some(option) if option.starts_with("--") => return None,
            _ if directory.is_none() => directory = Some(PathBuf::from(argument)),
            _ => return None,
        }
    }
    let engine = if on_gpu {
        Engine::Cuda(effort)
    } else {
        Engine::Cpu(effort)
    };
    directory.map(|directory| (directory, engine))
}

fn check(directory: &Path, engine: &Engine, written: &mut io::Result<()>) -> Result<Report, Box<dyn Error>> {
    // A reader that went away must not look like a success, nor panic.
    let mut each = |file: &_| {
        if written.is_ok() {
            *written = writeln!(io::stdout(), "{file}");
        }
    };
    match engine {
        Engine::Cpu(effort) => Ok(check_directory(directory, *effort, &mut each)?),
        Engine::Cuda(effort) => {
            // Without a GPU one sentence, and not one for every case.
            drop(Gpu::open(&Options::default())?);
            let open = || Gpu::open(&Options::default()).map(|gpu| Box::new(gpu) as _);
            Ok(check_directory_on(directory, *effort, &open, &mut each)?)
        }
    }
}

fn run(directory: &Path, engine: &Engine) -> Result<bool, Box<dyn Error>> {
    let mut written = Ok(());
    let report = check(directory, engine, &mut written)?;
    written?;
    writeln!(io::stdout(), "{report}")?;
    if report.count(Outcome::Passed) + report.count(Outcome::Failed) == 0 {
        eprintln!("poc-vectors: {} holds no file with known checks", directory.display());
    }
    Ok(report.is_success())
}
