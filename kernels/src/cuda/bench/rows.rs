//! Decide: the figures that are wanted, each made of series by name. A new figure is a new line of [`ROWS`].

use super::samples::{Figure, LEAST_BATCHES, Measured, Series, median};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fewest stops whose worst is told.
pub const LEAST_STOPS: usize = 10;

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
    /// Whatever it is: told and not judged.
    Told,
}

/// How a figure is made of series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Of {
    /// Time of a part over that of the whole.
    Share(&'static str, &'static str),
    /// How many times faster the first is than the second, a nonce.
    Faster(&'static str, &'static str),
    /// What the second takes beyond the first, of its time.
    Added(&'static str, &'static str),
    /// Time between batches, of all: gaps, batches.
    Idle(&'static str, &'static str),
    /// The longest, seconds.
    Longest(&'static str),
    /// 10¹² operations a second.
    Rate(&'static str),
}

/// A line of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Number of the target.
    pub row: &'static str,
    /// In words.
    pub what: &'static str,
    /// What is wanted.
    pub aim: Aim,
    /// What it is made of.
    pub of: Of,
}

const fn row(row: &'static str, what: &'static str, aim: Aim, of: Of) -> Row {
    Row { row, what, aim, of }
}

/// All of them. A series that nobody measured says so.
pub const ROWS: [Row; 13] = [
    row(
        "A1",
        "Qwen3-8B shape, bf16, 1,024 tokens: own products and attention alone, share of the time",
        Aim::AtLeast(0.90),
        Of::Share("qwen3-8b/products", "qwen3-8b/ours"),
    ),
    row(
        "A1",
        "the same against a torch eager replica of the reference",
        Aim::AtLeast(1.5),
        Of::Faster("qwen3-8b/ours", "qwen3-8b/eager"),
    ),
    row(
        "A1",
        "the same against the replica compiled, its hooks kept",
        Aim::AtLeast(1.1),
        Of::Faster("qwen3-8b/ours", "qwen3-8b/compiled"),
    ),
    row(
        "A2",
        "Qwen3-0.6B shape against the eager replica",
        Aim::AtLeast(2.5),
        Of::Faster("qwen3-0.6b/ours", "qwen3-0.6b/eager"),
    ),
    row(
        "A3",
        "a layer of FP8 experts, MiniMax-M2 shape, 10¹² operations a second",
        Aim::AtLeast(500.0),
        Of::Rate("experts/layer"),
    ),
    row(
        "A3",
        "grouped products in FP8, 10¹² operations a second",
        Aim::AtLeast(1000.0),
        Of::Rate("experts/grouped"),
    ),
    row(
        "A3",
        "the same against torch's grouped products in bf16",
        Aim::Told,
        Of::Faster("experts/grouped", "experts/torch-bf16"),
    ),
    row(
        "A3",
        "the same against torch's grouped products in FP8",
        Aim::Told,
        Of::Faster("experts/grouped", "experts/torch-fp8"),
    ),
    row(
        "A4",
        "Qwen3-8B shape: what the proof adds (inputs, reflections, projection, copies), share of the time",
        Aim::AtMost(0.02),
        Of::Added("qwen3-8b/prefill", "qwen3-8b/ours"),
    ),
    row(
        "A4",
        "Qwen3-0.6B shape: the same",
        Aim::AtMost(0.02),
        Of::Added("qwen3-0.6b/prefill", "qwen3-0.6b/ours"),
    ),
    row(
        "A5",
        "Qwen3-8B shape: GPU idle between batches, share of the time",
        Aim::AtMost(0.005),
        Of::Idle("qwen3-8b/gaps", "qwen3-8b/ours"),
    ),
    row(
        "A5",
        "Qwen3-8B shape: work lost when a round is stopped at the worst moment, seconds",
        Aim::AtMost(0.3),
        Of::Longest("qwen3-8b/lost"),
    ),
    row(
        "A5",
        "Qwen3-8B shape: from a stop until the GPU is free, seconds",
        Aim::AtMost(0.3),
        Of::Longest("qwen3-8b/stop"),
    ),
];

/// What a row came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Number of the target.
    pub row: String,
    /// In words.
    pub what: String,
    /// The figure; null with a reason where there is none.
    pub figure: Option<Figure>,
    /// Whether it is what is wanted; none where nothing is.
    pub met: Option<bool>,
    /// Why there is no figure.
    pub reason: Option<String>,
}

impl Row {
    /// The row's figure, of these series.
    pub fn find(&self, series: &BTreeMap<String, Measured>) -> Found {
        let (figure, reason) = match self.of.figure(series) {
            Ok(figure) => (Some(figure), None),
            Err(reason) => (None, Some(reason)),
        };
        Found {
            row: self.row.into(),
            what: self.what.into(),
            met: figure.and_then(|figure| self.aim.is_met(figure.value)),
            figure,
            reason,
        }
    }
}

impl Aim {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(bound) => Some(value >= bound),
            Self::AtMost(bound) => Some(value <= bound),
            Self::Told => None,
        }
    }
}

impl Of {
    fn figure(self, all: &BTreeMap<String, Measured>) -> Result<Figure, String> {
        let series = |name: &str, least| of_name(all, name, least);
        let of_nothing = || "its samples are no times".to_owned();
        match self {
            Self::Share(part, whole) => series(part, LEAST_BATCHES)?
                .times_of(series(whole, LEAST_BATCHES)?)
                .ok_or_else(of_nothing),
            Self::Faster(this, than) => series(than, LEAST_BATCHES)?
                .times_of(series(this, LEAST_BATCHES)?)
                .ok_or_else(of_nothing),
            Self::Added(without, with) => Ok(series(without, LEAST_BATCHES)?
                .times_of(series(with, LEAST_BATCHES)?)
                .ok_or_else(of_nothing)?
                .map(|share| 1.0 - share)),
            Self::Idle(gaps, runs) => idle(series(gaps, LEAST_BATCHES)?, series(runs, LEAST_BATCHES)?),
            Self::Longest(name) => longest(series(name, LEAST_STOPS)?).ok_or_else(of_nothing),
            Self::Rate(name) => series(name, LEAST_BATCHES)?
                .teraflops()
                .ok_or_else(|| "nobody counted its operations".into()),
        }
    }
}

fn of_name<'a>(all: &'a BTreeMap<String, Measured>, name: &str, least: usize) -> Result<&'a Series, String> {
    let measured = all.get(name).ok_or_else(|| format!("nothing measures {name} yet"))?;
    let series = measured.series().map_err(ToOwned::to_owned)?;
    if series.count() < least {
        return Err(format!("{name} has {} samples of {least}", series.count()));
    }
    Ok(series)
}

/// Gaps over gaps and batches, summed: a single long gap counts as long as it was.
fn idle(gaps: &Series, runs: &Series) -> Result<Figure, String> {
    let share = |gaps: f64, runs: f64| gaps / (gaps + runs);
    let turns: Vec<f64> = gaps
        .turns
        .iter()
        .zip(&runs.turns)
        .map(|(gaps, runs)| share(gaps.iter().sum(), runs.iter().sum()))
        .collect();
    let value = share(gaps.samples().sum(), runs.samples().sum());
    let figure = Figure {
        value,
        least: turns.iter().copied().fold(value, f64::min),
        most: turns.iter().copied().fold(value, f64::max),
    };
    if figure.value.is_finite() {
        Ok(figure)
    } else {
        Err("its samples are no times".into())
    }
}

/// Milliseconds to seconds; the worst is the figure, the median the least.
fn longest(series: &Series) -> Option<Figure> {
    let value = series.samples().fold(f64::NAN, f64::max) / 1e3;
    let median = median(series.samples())? / 1e3;
    value.is_finite().then_some(Figure {
        value,
        least: median,
        most: value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(named: &[(&str, usize, f64)]) -> BTreeMap<String, Measured> {
        let series = |nonces, milliseconds| Series {
            nonces,
            operations: 1e12,
            bytes: 0,
            turns: vec![vec![milliseconds; 15], vec![milliseconds; 15]],
        };
        named
            .iter()
            .map(|(name, nonces, time)| ((*name).into(), Measured::Series(series(*nonces, *time))))
            .collect()
    }

    fn found(what: &str, series: &BTreeMap<String, Measured>) -> Found {
        let row = ROWS.iter().find(|row| row.what.contains(what)).unwrap();
        row.find(series)
    }

    #[test]
    fn each_kind_of_figure_is_what_it_says() {
        let series = all(&[
            ("qwen3-8b/ours", 5, 100.0),
            ("qwen3-8b/products", 5, 92.0),
            ("qwen3-8b/prefill", 5, 97.0),
            ("qwen3-8b/eager", 32, 960.0),
            ("qwen3-8b/gaps", 5, 1.0),
            ("qwen3-8b/lost", 5, 210.0),
            ("experts/layer", 1, 4.0),
            ("experts/grouped", 63, 2.0),
            ("experts/torch-bf16", 63, 3.0),
        ]);
        for (what, value, met) in [
            ("own products", 0.92, Some(true)),
            ("against a torch eager", 1.5, Some(true)),
            ("Qwen3-8B shape: what the proof adds", 0.03, Some(false)),
            ("GPU idle", 1.0 / 101.0, Some(false)),
            ("work lost", 0.21, Some(true)),
            ("a layer of FP8", 250.0, Some(false)),
            ("grouped products in bf16", 1.5, None),
        ] {
            let found = found(what, &series);
            let figure = found.figure.unwrap_or_else(|| panic!("{found:?}"));
            assert!((figure.value - value).abs() < 1e-9, "{found:?}");
            assert_eq!((found.met, found.reason), (met, None), "{what}");
        }
    }

    #[test]
    fn what_is_missing_is_null_and_says_why() {
        let mut series = all(&[("qwen3-8b/ours", 5, 100.0)]);
        series.insert(
            "qwen3-8b/eager".into(),
            Measured::Not {
                reason: "python3 has no torch".into(),
            },
        );
        let eager = found("against a torch eager", &series);
        assert_eq!(
            (eager.figure, eager.met, eager.reason.as_deref()),
            (None, None, Some("python3 has no torch"))
        );
        assert_eq!(serde_json::to_value(&eager).unwrap()["figure"], serde_json::Value::Null);
        let products = found("own products", &series);
        assert_eq!(
            products.reason.as_deref(),
            Some("nothing measures qwen3-8b/products yet")
        );
    }

    #[test]
    fn too_few_batches_are_no_figure() {
        let mut series = all(&[("qwen3-8b/ours", 5, 100.0), ("qwen3-8b/products", 5, 92.0)]);
        let short = Series {
            nonces: 5,
            operations: 0.0,
            bytes: 0,
            turns: vec![vec![100.0; 29]],
        };
        series.insert("qwen3-8b/ours".into(), Measured::Series(short));
        assert_eq!(
            found("own products", &series).reason.as_deref(),
            Some("qwen3-8b/ours has 29 samples of 30")
        );
    }

    #[test]
    fn one_long_gap_counts_as_long_as_it_was() {
        let mut series = all(&[("qwen3-8b/ours", 5, 100.0)]);
        let mut gaps = vec![0.0; 30];
        gaps[7] = 1000.0;
        let gaps = Series {
            nonces: 5,
            operations: 0.0,
            bytes: 0,
            turns: vec![gaps],
        };
        series.insert("qwen3-8b/gaps".into(), Measured::Series(gaps));
        assert!((found("GPU idle", &series).figure.unwrap().value - 0.25).abs() < 1e-9);
    }
}
