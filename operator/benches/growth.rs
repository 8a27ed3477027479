//! How the cost of one pass, of all machines, and of one frame of FleetSignal grows with the fleet: ratios of one run, no clocks
//! compared between runs. Ends with status 1 when the cost per slot, machine or subscriber at the largest size is more than
//! twice that at the smallest.

#![allow(missing_debug_implementations, reason = "a bench binary")]
#![expect(clippy::print_stdout, reason = "a program for people")]

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/convergence/fleet.rs"]
mod fleet;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use operator::facts::Facts;
use operator::machine;
use operator::metrics::Metrics;
use operator::model_deployment::decide;
use operator::signal::{self, Hub};

use fleet::Fleet;

/// Slots of one deployment, smallest first.
const SIZES: [i32; 4] = [16, 64, 256, 512];
/// Machines of a cluster.
const MACHINES: [i32; 4] = [100, 500, 2_000, 5_000];
/// Subscribers of one replica.
const SUBSCRIBERS: [i32; 4] = [500, 2_500, 10_000, 25_000];
/// Passes measured per size; the median counts.
const PASSES: usize = 15;
/// Largest growth of the cost per slot.
const LIMIT: f64 = 2.0;

fn main() -> ExitCode {
    let grown = [
        growth("slots", &SIZES, |slots| {
            let mut fleet = Fleet::new(slots, 1, slots.unsigned_abs() + 1);
            assert!(fleet.settle(200).is_some(), "{slots} slots do not come to a rest");
            let seen = fleet.observe();
            median(|| {
                black_box(decide::decide(black_box(&seen)));
            })
        }),
        growth("machines", &MACHINES, |count| {
            let seen = machines(count);
            median(|| {
                black_box(machine::decide::decide(black_box(&seen)));
            })
        }),
        growth("subscribers", &SUBSCRIBERS, fan_out),
    ];
    if grown.iter().all(|grown| *grown <= LIMIT) {
        ExitCode::SUCCESS
    } else {
        println!("the cost of one grew {grown:.2?} times; {LIMIT} is allowed");
        ExitCode::FAILURE
    }
}

/// Prints a table, and returns how the cost of one has grown from the smallest size to the largest.
fn growth(what: &str, sizes: &[i32], cost: impl Fn(i32) -> Duration) -> f64 {
    println!("{what:>11}  {:>14}  {:>14}", "cost of all", "cost of one");
    let mut base = None;
    let mut last = 0.0;
    for size in sizes {
        let cost = cost(*size);
        let first = *base.get_or_insert(cost);
        let whole = cost.as_secs_f64() / first.as_secs_f64();
        last = whole * f64::from(sizes[0]) / f64::from(*size);
        println!("{size:>11}  {whole:>13.2}x  {last:>13.2}x");
    }
    last
}

/// A fleet in which every machine carries a pod and every tenth is wished for.
fn machines(count: i32) -> machine::observed::Observed {
    use machine::observed::{GpuNodeSeen, Machine, NodeSeen, Observed, PodHere};

    let of = |index: i32| {
        let pod = PodHere {
            deployment: "gonka/tiny".to_owned(),
            name: format!("tiny-{index}"),
            slot: Some(index),
            proven: true,
        };
        let node = NodeSeen {
            ready: true,
            unschedulable: index % 10 == 0,
            ..NodeSeen::default()
        };
        Machine {
            node: Some(node),
            gpu_node: Some(GpuNodeSeen::default()),
            pods: vec![pod],
        }
    };
    Observed {
        machines: (0..count).map(|index| (format!("n{index}"), of(index))).collect(),
        ..Observed::default()
    }
}

/// From one change of facts until every subscriber has its frame.
fn fan_out(subscribers: i32) -> Duration {
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics register");
    let hub = Hub::new("a".to_owned(), Arc::new(metrics));
    let facts = |height| {
        signal::frame(&Facts {
            chain_id: "gonka-mainnet".to_owned(),
            height,
            ..Facts::default()
        })
    };
    hub.publish(facts(1), 1);
    let mut all: Vec<_> = (0..subscribers)
        .map(|_| hub.subscribe("gonka-mainnet", 0).expect("there is room"))
        .collect();
    let mut height = 1;
    median(|| {
        height += 1;
        hub.publish(facts(height), height);
        for frames in &mut all {
            while frames.try_recv().is_ok() {}
        }
    })
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
