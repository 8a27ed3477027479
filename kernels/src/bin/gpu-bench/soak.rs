//! Apply: an hour of rounds that start and stop, models that load and go; what is held in the end is what was held in the beginning.

use crate::{
    Failure,
    args::Soak,
    model::{Drawn, Model, models},
    ours::{Ours, open, round},
};
use kernels::cuda::{
    CudaPrefillV2,
    bench::soak::{Bound, Held, lost},
    plan::Part,
};
use serde_json::json;
use std::{fs, time::Instant};

/// Rounds between two loads of the model.
const ROUNDS: usize = 200;
/// The same on the simulated driver.
const FEW_ROUNDS: usize = 12;
/// Loads before the first look: what is made once and kept is no growth.
const WARM: usize = 2;

pub(crate) fn run(wanted: &Soak) -> Result<String, Failure> {
    let [_, model] = models(wanted.simulated);
    let rounds = if wanted.simulated { FEW_ROUNDS } else { ROUNDS };
    let started = Instant::now();
    let (mut first, mut last, mut loads) = (None, None, 0);
    // Two lives at least behind the warm ones, however short the soak.
    while loads < WARM + 2 || started.elapsed() < wanted.length {
        live(wanted, &model, rounds)?;
        loads += 1;
        let held = held(wanted)?;
        if loads >= WARM {
            first.get_or_insert(held);
        }
        last = Some(held);
    }
    let (Some(first), Some(last)) = (first, last) else {
        return Err("nothing was looked at".into());
    };
    let grown = lost(first, last, Bound::SOAK);
    let report = json!({
        "simulated": wanted.simulated, "loads": loads, "rounds": loads * rounds, "seconds": started.elapsed().as_secs(),
        "first": first, "last": last, "bound": Bound::SOAK, "lost": grown,
    });
    if grown.is_empty() {
        Ok(report.to_string())
    } else {
        Err(format!("{}\n{report}", grown.join("; ")).into())
    }
}

/// A model is loaded, examined in rounds of different forms, most of them stopped, and goes.
fn live(wanted: &Soak, model: &Model, rounds: usize) -> Result<(), Failure> {
    let gpu = Box::new(open(wanted.simulated)?);
    let scheme = CudaPrefillV2::load(gpu, model.shape.clone(), &Drawn::new(), model.nonces, model.seq_len)?;
    let mut settled = None;
    for number in 0..rounds {
        let mut round = round(model.seq_len - number % 3);
        round.block_hash = format!("{number:064X}");
        round.stronger_rng = number % 2 == 1;
        let ours = Ours::new(&scheme, round, Part::Whole)?;
        if number % 4 == 0 {
            ours.run(3)?;
        } else {
            ours.stop(number % 4 - 1)?;
        }
        // Forms repeat after six rounds: from then on no round may take memory that one before it did not.
        if number + 1 == 6 {
            settled = Some(scheme.free_bytes()?);
        }
    }
    let free = scheme.free_bytes()?;
    match settled {
        Some(settled) if free < settled => Err(format!("rounds took {} bytes of the GPU", settled - free).into()),
        _ => Ok(()),
    }
}

/// What the process holds, and what is free on a GPU that it has just opened.
fn held(wanted: &Soak) -> Result<Held, Failure> {
    use kernels::cuda::Device as _;
    let mut gpu = open(wanted.simulated)?;
    let free_bytes = gpu.free_bytes()?;
    drop(gpu);
    let count = |folder: &str| -> Result<u64, Failure> { Ok(fs::read_dir(folder)?.count() as u64) };
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .ok_or("/proc/self/status has no VmRSS")?;
    Ok(Held {
        free_bytes,
        files: count("/proc/self/fd")?,
        threads: count("/proc/self/task")?,
        resident_bytes: resident << 10,
    })
}
