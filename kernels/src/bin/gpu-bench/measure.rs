//! Apply: one model after the other, dense ones and then layers of experts, and what comes of them.

use crate::{
    Failure,
    args::Measure,
    clocks, document, experts,
    model::{Drawn, Experts, Model, layers, models},
    ours,
    replica::Replica,
    turns::{self, Contestant, Gathered},
};
use kernels::cuda::{
    CudaPrefillV2,
    bench::{
        Report,
        rows::{LEAST_STOPS, ROWS},
        samples::{Measured, Series},
    },
};
use std::collections::BTreeMap;

type All = BTreeMap<String, Measured>;

pub(crate) fn run(wanted: &Measure) -> Result<String, Failure> {
    let gpu = ours::open(wanted.simulated)?;
    let (device, uuid) = (gpu.name()?, gpu.uuid().to_owned());
    let before = clocks::read(&uuid);
    drop(gpu);
    let mut report = Report {
        simulated: wanted.simulated,
        after: before.clone(),
        before,
        device,
        uuid,
        torch: None,
        means: BTreeMap::new(),
        rows: Vec::new(),
        series: All::new(),
    };
    for model in models(wanted.simulated) {
        one_model(wanted, &model, &mut report)?;
    }
    for layer in layers(wanted.simulated) {
        one_layer(wanted, &layer, &mut report);
    }
    report.rows = ROWS.iter().map(|row| row.find(&report.series)).collect();
    document::publish(wanted, &report)
}

/// Measures a model.
fn one_model(wanted: &Measure, model: &Model, report: &mut Report) -> Result<(), Failure> {
    eprintln!("gpu-bench: {}", model.name);
    let device = Box::new(ours::open(wanted.simulated)?);
    let scheme = CudaPrefillV2::load(device, model.shape.clone(), &Drawn::new(), model.nonces, model.seq_len)?;
    let mut everybody: Vec<Gathered> = ours::parts(&scheme, model)?
        .into_iter()
        .map(|(name, ours)| Gathered::new(name, Contestant::Ours(ours)))
        .collect();
    for mode in ["eager", "compiled"] {
        let replica = Replica::of_model(wanted, model, mode, &report.device);
        everybody.push(Gathered::new(mode, replica.into()));
    }
    turns::take(&mut everybody);
    stops(model, &everybody[0], &mut report.series);
    report
        .series
        .insert(format!("{}/gaps", model.name), everybody[0].gaps());
    take_in(report, model.name, &everybody);
    Ok(())
}

/// Measures a layer of experts. What stands in its way costs its rows and no others.
fn one_layer(wanted: &Measure, layer: &Experts, report: &mut Report) {
    eprintln!("gpu-bench: {}", layer.name);
    let mut everybody = experts::contestants(wanted, layer, &report.device).unwrap_or_else(|error| {
        let absent = |name| Gathered::new(name, Contestant::Absent(error.to_string()));
        experts::NAMES.map(absent).into()
    });
    turns::take(&mut everybody);
    take_in(report, layer.name, &everybody);
}

/// What came of turns, and the clocks right behind them.
fn take_in(report: &mut Report, model: &str, everybody: &[Gathered]) {
    report.after = clocks::read(&report.uuid);
    for gathered in everybody {
        let name = format!("{model}/{}", gathered.name);
        if let Contestant::Replica(replica) = &gathered.contestant {
            report.torch.get_or_insert_with(|| replica.torch.clone());
            if let Some(means) = &replica.means {
                report.means.insert(name.clone(), means.clone());
            }
        }
        report.series.insert(name, gathered.batches());
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
                    bytes: 0,
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
