//! The process that burns in: opens CUDA, says what it measures line by line, and may be killed at any time. Nothing of it is kept elsewhere.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kernels::cuda::burn::{filling, golden, memory, multiprocessors, rate};
use kernels::cuda::driver::{Gpu, Options, Wanted, peer, uuid_of};
use kernels::cuda::{Device, Error};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::wire::{Part, Said};
use crate::agent::args::BurnArgs;
use crate::agent::engine;
use crate::slot::engine::model;

/// Why the burn-in ends early: it was said already, or nobody listens.
enum Ended {
    Said,
    Unheard(anyhow::Error),
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Unheard(error)
    }
}

/// Burns in what the arguments name.
pub fn burn(args: &BurnArgs) -> anyhow::Result<()> {
    // Who watches is killed with its pod: nothing may go on burning then.
    prctl::set_pdeathsig(Signal::SIGKILL).context("could not ask to end with the parent")?;
    let ended = if args.gpus.len() == 1 {
        one(&args.gpus[0], args)
    } else {
        between(args)
    };
    match ended {
        Ok(()) => say(&Said::Done),
        Err(Ended::Said) => Ok(()),
        Err(Ended::Unheard(error)) => Err(error),
    }
}

fn say(said: &Said) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, said).context("could not say what was found")?;
    writeln!(out)?;
    out.flush().context("could not say what was found")
}

/// Says how a part begins and what came of it.
fn part<T>(part: Part, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Ended> {
    say(&Said::Begun { part })?;
    run().map_err(|error| {
        let why = error.to_string();
        let said = match error {
            Error::NoDriver | Error::NoGemm => Said::Absent { why },
            Error::NoDevice(_) | Error::OldDriver { .. } | Error::Shared { .. } | Error::Capability { .. } => {
                Said::Refused { why }
            }
            Error::Memory { .. } if part == Part::Memory => Said::Refused { why },
            _ => Said::Failed { part, why },
        };
        say(&said).map_or_else(Ended::Unheard, |()| Ended::Said)
    })
}

fn open(uuid: &str) -> Result<Gpu, Error> {
    Gpu::open(&Options {
        gpu: Wanted::Uuid(uuid.to_owned()),
        algorithms: None,
    })
}

/// Nobody else of this machine may compute on it meanwhile.
fn lock(uuid: &str, args: &BurnArgs) -> Result<impl Drop + use<>, Ended> {
    part(Part::Open, || {
        uuid_of(&Wanted::Uuid(uuid.to_owned()))?;
        // Where it cannot be made the lock says so.
        drop(std::fs::create_dir_all(&args.lock_dir));
        engine::lock(&args.lock_dir, uuid).map_err(|error| match error {
            model::Error::Gpu(error) => error,
            other => Error::Shared {
                uuid: format!("{uuid} ({other})"),
                how: "not to be locked",
                remedy: "name a folder that may be written with --lock-dir",
            },
        })
    })
}

fn one(uuid: &str, args: &BurnArgs) -> Result<(), Ended> {
    let ends = Instant::now() + args.time;
    let _lock = lock(uuid, args)?;
    let facts = part(Part::Open, || open(uuid)?.facts())?;
    let (count, total) = (facts.multiprocessors, facts.total_bytes);
    say(&facts.into())?;
    let used = part(Part::Multiprocessors, || multiprocessors(&mut open(uuid)?, count))?;
    say(&Said::Multiprocessors {
        used: used.len() as u32,
    })?;
    for case in part(Part::Golden, golden::cases)? {
        let found = part(Part::Golden, || case.run(Box::new(open(uuid)?)))?;
        say(&found.into())?;
    }
    let found = part(Part::Memory, || memory::test(&mut open(uuid)?))?;
    say(&found.into())?;
    let begun = Instant::now();
    let time = share(ends, args.sustain, 3);
    let found = part(Part::Weights, || {
        filling::test(&mut open(uuid)?, &mut || begun.elapsed() >= time)
    })?;
    say(&found.into())?;
    let load = rate::Load::of(total);
    let time = share(ends, args.sustain, 2);
    let found = part(Part::Rate, || {
        let device: Box<dyn Device> = Box::new(open(uuid)?);
        rate::test(device, &load, time)
    })?;
    say(&found.into())?;
    Ok(())
}

/// What is wanted, or a part of what is left.
fn share(ends: Instant, wanted: Duration, parts: u32) -> Duration {
    wanted.min(ends.saturating_duration_since(Instant::now()) / parts)
}

/// Copies both ways between neighbours in a ring.
fn between(args: &BurnArgs) -> Result<(), Ended> {
    let _locks = args
        .gpus
        .iter()
        .map(|uuid| lock(uuid, args))
        .collect::<Result<Vec<_>, _>>()?;
    let count = args.gpus.len();
    // Of two the second pair would be the first one again.
    let pairs = if count == 2 { 1 } else { count };
    for (at, from) in args.gpus.iter().enumerate().take(pairs) {
        let to = &args.gpus[(at + 1) % count];
        for (from, to) in [(from, to), (to, from)] {
            let found = part(Part::Peers, || {
                peer::copy(&Wanted::Uuid(from.clone()), &Wanted::Uuid(to.clone()))
            })?;
            say(&Said::peer(from, to, &found))?;
        }
    }
    Ok(())
}
