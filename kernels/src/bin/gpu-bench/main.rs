//! `gpu-bench [--json FILE] [--write DOCS] [--python PROGRAM] [--replica FILE] [--experts FILE]`: what the proof costs on a GPU, ours and others' by
//! turns in one run.
//! `gpu-bench table DOCS`: the tables of `DOCS/benchmarks.md` anew from the reports in `DOCS/benchmarks`.
//! `gpu-bench soak --minutes N`: rounds that start and stop; exit status 1 when the process or the GPU holds more than before.
//!
//! | box | module |
//! |---|---|
//! | what it is asked | [`args`] |
//! | observe: our batches, timed by the device | [`ours`] |
//! | observe: a layer of experts and its products, timed by the device | [`experts`] |
//! | observe: torch's batches, in a process of its own | [`replica`] |
//! | observe: clocks | [`clocks`] |
//! | decide | `kernels::cuda::bench` |
//! | apply: everybody's turns | [`turns`] |
//! | apply: one model after the other, and what comes of it | [`measure`] |
//! | apply: an hour of rounds | [`soak`] |
//! | apply: reports and tables | [`document`] |
//!
//! Without a GPU one line says so and nothing is written. On the simulated driver it refuses: `--simulated` is for tests and marks what it writes.

mod args;
mod clocks;
mod document;
mod experts;
mod measure;
mod model;
mod ours;
mod replica;
mod soak;
mod turns;

use args::Task;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Why nothing came of it; a sentence for the person who asked.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let Some(task) = args::parse(std::env::args_os().skip(1)) else {
        eprintln!("{}", args::USAGE);
        return ExitCode::from(2);
    };
    let done = match task {
        Task::Measure(wanted) => measure::run(&wanted),
        Task::Table(documents) => document::renew(&documents),
        Task::Soak(wanted) => soak::run(&wanted),
    };
    match done {
        Ok(text) if writeln!(io::stdout(), "{}", text.trim_end()).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
