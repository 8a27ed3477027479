//! Apply: everybody's turns on one model after the other, and what comes of them.

use crate::{
    Failure,
    args::Measure,
    clocks, document,
    model::{Drawn, Model, models},
    ours::{self, Ours},
    replica::Replica,
};
use kernels::cuda::{
    CudaPrefillV2,
    bench::{
        Clocks, Report,
        rows::{LEAST_STOPS, ROWS},
        samples::{Measured, Series},
        schedule::{Length, schedule},
    },
};
use std::collections::BTreeMap;

/// Who runs.
enum Contestant {
    Ours(Ours),
    Replica(Replica),
    /// Nobody, and why.
    Absent(String),
}

/// What came of a contestant's turns.
struct Gathered {
    name: &'static str,
    contestant: Contestant,
    times: Vec<Vec<f64>>,
    gaps: Vec<Vec<f64>>,
}

type All = BTreeMap<String, Measured>;

pub(crate) fn run(wanted: &Measure) -> Result<String, Failure> {
    let gpu = ours::open(wanted.simulated)?;
    let (device, uuid) = (gpu.name()?, gpu.uuid().to_owned());
    let before = clocks::read(&uuid);
    drop(gpu);
    let (mut series, mut torch, mut after) = (All::new(), None, before.clone());
    for model in models(wanted.simulated) {
        let said = one_model(wanted, &model, &device, &mut series)?;
        torch = torch.or(said.torch);
        after = said.clocks;
    }
    let report = Report {
        simulated: wanted.simulated,
        before,
        after,
        device,
        uuid,
        torch,
        rows: ROWS.iter().map(|row| row.find(&series)).collect(),
        series,
    };
    document::publish(wanted, &report)
}

/// What is told of a model beside its samples.
struct Beside {
    /// What torch said of itself.
    torch: Option<String>,
    /// Clocks right behind the last batch.
    clocks: Clocks,
}

/// Measures a model into `all`.
fn one_model(wanted: &Measure, model: &Model, gpu: &str, all: &mut All) -> Result<Beside, Failure> {
    eprintln!("gpu-bench: {}", model.name);
    let device = Box::new(ours::open(wanted.simulated)?);
    let uuid = device.uuid().to_owned();
    let scheme = CudaPrefillV2::load(device, model.shape.clone(), &Drawn::new(), model.nonces, model.seq_len)?;
    let mut everybody: Vec<Gathered> = ours::parts(&scheme, model)?
        .into_iter()
        .map(|(name, ours)| gathered(name, Contestant::Ours(ours)))
        .collect();
    let mut torch = None;
    for mode in ["eager", "compiled"] {
        let contestant = match Replica::start(wanted, model, mode, gpu) {
            Ok(replica) => {
                torch = Some(replica.torch.clone());
                Contestant::Replica(replica)
            }
            Err(reason) => Contestant::Absent(reason),
        };
        everybody.push(gathered(mode, contestant));
    }
    for turn in schedule(everybody.len(), Length::FULL) {
        everybody[turn.contestant].take_turn(turn.dropped, turn.kept);
    }
    stops(model, &everybody[0], all);
    let clocks = clocks::read(&uuid);
    for gathered in everybody {
        let name = |what: &str| format!("{}/{what}", model.name);
        if gathered.name == "ours" {
            all.insert(name("gaps"), gathered.measured(model, &gathered.gaps));
        }
        all.insert(name(gathered.name), gathered.measured(model, &gathered.times));
    }
    Ok(Beside { torch, clocks })
}

const fn gathered(name: &'static str, contestant: Contestant) -> Gathered {
    Gathered {
        name,
        contestant,
        times: Vec::new(),
        gaps: Vec::new(),
    }
}

impl Gathered {
    /// Runs; a contestant that fails is absent from then on, and its samples are nobody's.
    fn take_turn(&mut self, dropped: usize, kept: usize) {
        let ran = match &mut self.contestant {
            Contestant::Ours(ours) => ours.run(dropped + kept).map(|spans| {
                let kept = &spans[dropped..];
                let gap = |span: &kernels::cuda::device::Span| span.idle.map(f64::from);
                (
                    kept.iter().map(|span| f64::from(span.ran)).collect(),
                    kept.iter().filter_map(gap).collect(),
                )
            }),
            Contestant::Replica(replica) => replica
                .run(dropped + kept)
                .map(|times| (times[dropped..].to_vec(), Vec::new())),
            Contestant::Absent(_) => return,
        };
        match ran {
            Ok((times, gaps)) if kept > 0 => {
                self.times.push(times);
                self.gaps.push(gaps);
            }
            Ok(_) => {}
            Err(reason) => self.contestant = Contestant::Absent(reason),
        }
    }

    fn measured(&self, model: &Model, turns: &[Vec<f64>]) -> Measured {
        match &self.contestant {
            Contestant::Ours(ours) => Measured::Series(ours.series(turns.to_vec())),
            Contestant::Replica(_) => Measured::Series(Replica::series(model, turns.to_vec())),
            Contestant::Absent(reason) => Measured::Not { reason: reason.clone() },
        }
    }
}

/// Rounds that are stopped: what is lost, and how long it takes.
fn stops(model: &Model, ours: &Gathered, all: &mut All) {
    let Contestant::Ours(whole) = &ours.contestant else {
        return;
    };
    let stops: Result<Vec<_>, String> = (0..LEAST_STOPS).map(|number| whole.stop(1 + number % 3)).collect();
    let (lost, took) = match stops {
        Ok(stops) => {
            let series = |samples| {
                Measured::Series(Series {
                    operations: 0.0,
                    ..whole.series(vec![samples])
                })
            };
            (
                series(stops.iter().map(|stop| stop.lost).collect()),
                series(stops.iter().map(|stop| 1e3 * stop.took.as_secs_f64()).collect()),
            )
        }
        Err(reason) => {
            let not = Measured::Not { reason };
            (not.clone(), not)
        }
    };
    all.insert(format!("{}/lost", model.name), lost);
    all.insert(format!("{}/stop", model.name), took);
}
