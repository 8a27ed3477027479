//! Decide: what was measured against what must be, one row each: fit, unfit, cannot tell, or just reported. Pure.

#[cfg(test)]
mod tests;

use serde::Serialize;
use std::time::Instant;

use super::limits::{Limit, Product, Table};
use super::watch::{Ended, Samples, Story};
use super::wire::{BadWords, Part, Said};
use crate::agent::observe::gpu::{ClocksEventReason, FastValues};
use crate::agent::observe::nvml::granted::Granted;

/// Of what the device has in all, what must have been filled.
const FILLED: f64 = 0.8;
const OURS: &str = "docs/burn-in.md";
const REPLACE: &str =
    "take the GPU out of use, reset it when it is idle and check it again; replace it when it fails again";
const MEASURE: &str = "measure it on GPUs known to be good and give it with --limits";

/// Reasons for low clocks that no load explains.
const HELD_BACK: [(ClocksEventReason, &str); 4] = [
    (
        ClocksEventReason::HwSlowdown,
        "the hardware halves its clocks; check power and cooling",
    ),
    (ClocksEventReason::HwThermalSlowdown, "too hot; check cooling"),
    (
        ClocksEventReason::SwThermalSlowdown,
        "too hot for the driver; check cooling",
    ),
    (
        ClocksEventReason::HwPowerBrakeSlowdown,
        "the power supply makes it slow down; check power feeds",
    ),
];

/// What a measurement says about a GPU.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Outcome {
    /// As it must be.
    Passed,
    /// Not.
    Failed,
    /// Cannot tell.
    Unknown,
    /// Nobody knows what it must be.
    Reported,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// UUID; two of them for a copy.
    pub gpu: String,
    /// What was measured.
    pub check: &'static str,
    /// What it says.
    pub outcome: Outcome,
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
    /// What it must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Who says so.
    pub source: String,
    /// For people.
    pub message: String,
    /// What to do, where it is not as it must be.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub remedy: &'static str,
}

/// How a number is compared.
#[derive(Clone, Copy)]
enum Rule {
    Exactly,
    AtLeast,
}

/// Collects the rows of one GPU.
struct Rows<'a> {
    gpu: &'a str,
    total_bytes: u64,
    done: Vec<Row>,
}

impl<'a> Rows<'a> {
    fn new(gpu: &'a str) -> Self {
        Self {
            gpu,
            total_bytes: 0,
            done: Vec::new(),
        }
    }
}

impl Rows<'_> {
    fn say(&mut self, check: &'static str, outcome: Outcome, message: impl Into<String>) -> &mut Row {
        let remedy = match outcome {
            Outcome::Failed => REPLACE,
            _ => "",
        };
        self.done.push(Row {
            gpu: self.gpu.to_owned(),
            check,
            outcome,
            measured: None,
            threshold: None,
            source: OURS.to_owned(),
            message: message.into(),
            remedy,
        });
        let last = self.done.len() - 1;
        &mut self.done[last]
    }

    /// Whether something holds.
    fn hold(&mut self, check: &'static str, holds: bool, message: impl Into<String>) -> &mut Row {
        self.say(check, if holds { Outcome::Passed } else { Outcome::Failed }, message)
    }

    /// A number against a limit of the table.
    fn compare(
        &mut self,
        check: &'static str,
        unit: &str,
        measured: Option<f64>,
        (limit, rule): (Option<&Limit>, Rule),
    ) {
        let (outcome, message) = match (measured, limit.and_then(|limit| limit.value)) {
            (None, None) => return,
            (None, Some(wanted)) => (Outcome::Unknown, format!("not measured; {wanted} {unit} are wanted")),
            (Some(found), None) => (
                Outcome::Reported,
                format!("{found:.4} {unit}; nobody measured what it must be"),
            ),
            (Some(found), Some(wanted)) => {
                let (holds, word) = match rule {
                    Rule::Exactly => ((found - wanted).abs() < 0.5, "exactly"),
                    Rule::AtLeast => (found >= wanted, "at least"),
                };
                let outcome = if holds { Outcome::Passed } else { Outcome::Failed };
                (outcome, format!("{found:.4} {unit}; {word} {wanted} must be"))
            }
        };
        let row = self.say(check, outcome, message);
        row.measured = measured;
        if outcome == Outcome::Unknown {
            row.remedy = MEASURE;
        }
        if let Some(limit) = limit {
            row.threshold = limit.value;
            row.source.clone_from(&limit.source);
        }
    }
}

/// Everything about one GPU.
pub(super) fn rows(gpu: &Granted, limits: &Table, story: &Story, samples: &Samples) -> Vec<Row> {
    let mut rows = Rows::new(&gpu.uuid);
    let name = gpu.product.as_deref().unwrap_or("without a name");
    let product = limits.of(name);
    if product.is_none() {
        rows.say(
            "product",
            Outcome::Unknown,
            format!("there are no thresholds for {name}"),
        )
        .remedy = MEASURE;
    }
    ended(&mut rows, story);
    for (_, said) in &story.said {
        measured(&mut rows, product, said);
    }
    standing(&mut rows, product, gpu);
    if let Some(during) = story.during(Part::Rate) {
        loaded(&mut rows, product, &fast(&gpu.uuid, samples, during));
    }
    rows.done
}

/// A child that did not come to its end.
fn ended(rows: &mut Rows<'_>, story: &Story) {
    let part: &'static str = story.last_part().into();
    match &story.ended {
        Ended::Done => {}
        Ended::Killed(after) => {
            rows.say(
                "deadline",
                Outcome::Failed,
                format!(
                    "did not come back from {part} within {:.1} s: the process was ended",
                    after.as_secs_f64()
                ),
            );
        }
        Ended::Early(why) => {
            rows.say("process", Outcome::Failed, format!("{why}, at {part}"));
        }
    }
}

/// What the child said.
fn measured(rows: &mut Rows<'_>, product: Option<&Product>, said: &Said) {
    match said {
        Said::Facts {
            multiprocessors,
            total_bytes,
            ..
        } => {
            rows.total_bytes = *total_bytes;
            let limit = product.map(|product| &product.multiprocessors);
            let found = Some(f64::from(*multiprocessors));
            rows.compare("multiprocessors", "multiprocessors", found, (limit, Rule::Exactly));
        }
        Said::Multiprocessors { used } => {
            let shown = rows.done.iter().find(|row| row.check == "multiprocessors");
            let shown = shown.and_then(|row| row.measured).unwrap_or_default();
            let all = f64::from(*used) >= shown;
            rows.hold("multiprocessorsUsed", all, format!("{used} of {shown} took a block"));
        }
        Said::Golden {
            model,
            artifacts,
            states,
            holds,
        } => {
            let text = |x: &Option<f64>| x.map_or_else(|| "no number".to_owned(), |x| format!("{x:.4}"));
            let message = format!(
                "{model}: artifacts {} and last states {} from the published ones; at most 0.02 may be",
                text(artifacts),
                text(states)
            );
            let row = rows.hold("golden", *holds, message);
            row.measured = *artifacts;
            row.threshold = Some(kernels::cuda::burn::golden::MOST_APART);
        }
        Said::Memory { tested_bytes, bad, .. } => {
            rows.hold(
                "memory",
                bad.is_none(),
                format!("{tested_bytes} bytes written and read twice: {}", words(bad.as_ref())),
            );
        }
        Said::Weights { .. } => weights(rows, said),
        Said::Rate { .. } => rate(rows, product, said),
        Said::Failed { part, why } => {
            let part: &'static str = (*part).into();
            rows.say("process", Outcome::Failed, format!("{part}: {why}"));
        }
        _ => {}
    }
}

fn words(bad: Option<&BadWords>) -> String {
    bad.map_or_else(
        || "every word as it was written".to_owned(),
        |bad| {
            let address = bad
                .address
                .map_or_else(String::new, |address| format!(", address {address:#x}"));
            format!(
                "{} words differ, the first in {} at byte {:#x}{address}, bits {:#010x}",
                bad.words, bad.buffer, bad.offset, bad.mask
            )
        },
    )
}

fn weights(rows: &mut Rows<'_>, said: &Said) {
    let Said::Weights {
        bytes,
        layers,
        passes,
        differing,
        finite,
        bad,
        ..
    } = said
    else {
        return;
    };
    let message = format!("{layers} layers, {bytes} bytes: {}", words(bad.as_ref()));
    rows.hold("weights", bad.is_none(), message);
    let total = rows.total_bytes as f64;
    if (*bytes as f64) < FILLED * total {
        let message = format!("{bytes} of {total} bytes were free to be filled: something else holds the rest");
        rows.say("filled", Outcome::Unknown, message).remedy = "end what holds memory of this GPU and check it again";
    }
    let message = if *finite {
        format!("{differing} of {passes} passes over all weights differ from the first")
    } else {
        "the first pass over all weights is not finite".to_owned()
    };
    rows.hold("products", *finite && *differing == 0, message).measured = Some(f64::from(*differing));
}

fn rate(rows: &mut Rows<'_>, product: Option<&Product>, said: &Said) {
    let Said::Rate {
        load,
        nonces,
        nonces_per_second,
        teraflops,
        differing,
        not_finite,
    } = said
    else {
        return;
    };
    let message = format!("{load}: {nonces} nonces, {differing} batches unlike the first, {not_finite} not finite");
    rows.hold("repeats", *differing == 0 && *not_finite == 0, message);
    let limit = product.map(|product| &product.nonces_per_second);
    rows.compare(
        "noncesPerSecond",
        "nonces/s",
        *nonces_per_second,
        (limit, Rule::AtLeast),
    );
    let limit = product.map(|product| &product.teraflops);
    rows.compare("teraflops", "TFLOP/s", *teraflops, (limit, Rule::AtLeast));
}

/// What NVML says without a load.
fn standing(rows: &mut Rows<'_>, product: Option<&Product>, gpu: &Granted) {
    let of = |limit: fn(&Product) -> &Limit| (product.map(limit), Rule::AtLeast);
    let memory = gpu.memory_mebibytes.map(|memory| memory as f64);
    rows.compare("memorySize", "MiB", memory, of(|product| &product.memory_mebibytes));
    let boost = gpu.max_megahertz.map(f64::from);
    rows.compare("boostClock", "MHz", boost, of(|product| &product.boost_megahertz));
    let power = gpu.power_limit_watts.map(f64::from);
    rows.compare("powerLimit", "W", power, of(|product| &product.power_limit_watts));
    let (all, down) = (gpu.links, &gpu.links_down);
    if down.is_empty() {
        let up = (all > 0).then(|| f64::from(all));
        let limit = product.map(|product| &product.nvlinks);
        rows.compare("nvlinks", "links", up, (limit, Rule::Exactly));
    } else {
        let named: Vec<String> = down.iter().map(u32::to_string).collect();
        let message = format!("NVLink {} down, of {all}", named.join(", "));
        // One that stands alone has nothing at the other end.
        let alone = down.len() as u32 == all;
        let outcome = if alone { Outcome::Reported } else { Outcome::Failed };
        rows.say("nvlinks", outcome, message).measured = Some(f64::from(all - down.len() as u32));
    }
}

fn fast(uuid: &str, samples: &Samples, (begun, ended): (Instant, Instant)) -> Vec<FastValues> {
    samples
        .iter()
        .filter(|(at, _)| (begun..=ended).contains(at))
        .flat_map(|(_, reading)| &reading.gpus)
        .filter(|gpu| gpu.uuid.as_deref() == Some(uuid))
        .map(|gpu| gpu.fast.clone())
        .collect()
}

fn middle(mut values: Vec<u32>) -> Option<f64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied().map(f64::from)
}

/// What NVML said while nonces were computed.
fn loaded(rows: &mut Rows<'_>, product: Option<&Product>, samples: &[FastValues]) {
    let numbers = |value: fn(&FastValues) -> Option<u32>| middle(samples.iter().filter_map(value).collect());
    let limit = product.map(|product| &product.sustained_megahertz);
    let clock = numbers(|fast| fast.sm_clock_mhz);
    rows.compare("sustainedClock", "MHz", clock, (limit, Rule::AtLeast));
    let heat = numbers(|fast| fast.temperature_celsius);
    rows.compare("temperature", "°C", heat, (None, Rule::AtLeast));
    let power = numbers(|fast| fast.power_milliwatts.map(|power| power / 1000));
    rows.compare("power", "W", power, (None, Rule::AtLeast));
    for (reason, message) in HELD_BACK {
        let seen = samples
            .iter()
            .filter(|fast| fast.clocks_event_reasons.iter().flatten().any(|seen| *seen == reason))
            .count();
        // Once is the firmware at work; half of the time is a fault.
        if seen > 0 && 2 * seen >= samples.len() {
            let message = format!("{message} ({seen} of {} looks under load)", samples.len());
            rows.say("throttle", Outcome::Failed, message);
        }
    }
    if samples.is_empty() {
        rows.say("throttle", Outcome::Unknown, "NVML said nothing under load")
            .remedy = "run it with more --sustain";
    }
}

/// Copies between GPUs.
pub(super) fn peer_rows(gpus: &[Granted], limits: &Table, story: &Story) -> Vec<Row> {
    let mut all = Vec::new();
    for (_, said) in &story.said {
        let Said::Peer {
            from,
            to,
            direct,
            gigabytes_per_second,
            bad,
        } = said
        else {
            continue;
        };
        let product = gpus
            .iter()
            .find(|gpu| gpu.uuid == *from)
            .and_then(|gpu| limits.of(gpu.product.as_deref()?));
        let pair = format!("{from} to {to}");
        let mut rows = Rows::new(&pair);
        let way = if *direct { "directly" } else { "through the host" };
        rows.hold("peerCopy", bad.is_none(), format!("{way}: {}", words(bad.as_ref())));
        let limit = product.map(|product| &product.peer_gigabytes_per_second);
        rows.compare("peerBandwidth", "GB/s", *gigabytes_per_second, (limit, Rule::AtLeast));
        let published = product.and_then(|product| product.nvlink_gigabytes_per_second.value);
        if let (Some(row), Some(published)) = (rows.done.last_mut(), published) {
            row.message = format!(
                "{} (published for all links, both ways together: {published})",
                row.message
            );
        }
        all.extend(rows.done);
    }
    let mut rows = Rows::new("all");
    ended(&mut rows, story);
    for (_, said) in &story.said {
        if let Said::Failed { .. } = said {
            measured(&mut rows, None, said);
        }
    }
    all.extend(rows.done);
    all
}
