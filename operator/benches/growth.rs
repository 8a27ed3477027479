//! How the cost of one pass grows with the fleet: ratios of one run, no clocks compared between runs. Ends with status 1 when
//! the cost per slot at the largest size is more than twice that at the smallest.

#![allow(missing_debug_implementations, reason = "a bench binary")]
#![expect(clippy::print_stdout, reason = "a program for people")]

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/convergence/fleet.rs"]
mod fleet;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use operator::model_deployment::decide;

use fleet::Fleet;

/// Slots of one deployment, smallest first.
const SIZES: [i32; 4] = [16, 64, 256, 512];
/// Passes measured per size; the median counts.
const PASSES: usize = 15;
/// Largest growth of the cost per slot.
const LIMIT: f64 = 2.0;

fn main() -> ExitCode {
    println!("{:>6}  {:>14}  {:>14}", "slots", "cost per pass", "cost per slot");
    let mut base = None;
    let mut last = 0.0;
    for slots in SIZES {
        let machines = slots.unsigned_abs() + 1;
        let mut fleet = Fleet::new(slots, 1, machines);
        assert!(fleet.settle(200).is_some(), "{slots} slots do not come to a rest");
        let seen = fleet.observe();
        let cost = median(|| {
            black_box(decide::decide(black_box(&seen)));
        });
        let first = *base.get_or_insert(cost);
        let whole = cost.as_secs_f64() / first.as_secs_f64();
        last = whole * f64::from(SIZES[0]) / f64::from(slots);
        println!("{slots:>6}  {whole:>13.2}x  {last:>13.2}x");
    }
    if last <= LIMIT {
        ExitCode::SUCCESS
    } else {
        println!("the cost per slot grew {last:.2} times; {LIMIT} is allowed");
        ExitCode::FAILURE
    }
}

fn median(mut pass: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..PASSES)
        .map(|_| {
            let begun = Instant::now();
            pass();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[PASSES / 2]
}
