//! Decide: samples to medians, ratios and their spread.

use serde::{Deserialize, Serialize};

/// Fewest batches a figure is made of.
pub const LEAST_BATCHES: usize = 30;

/// Milliseconds of a contestant's batches, turn by turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Nonces of a batch.
    pub nonces: usize,
    /// Operations of a batch; 0 where nobody counted them.
    pub operations: f64,
    /// Bytes of device memory of a batch when every operand moves once, counted; 0 where nobody did.
    #[serde(default)]
    pub bytes: u64,
    /// The samples.
    pub turns: Vec<Vec<f64>>,
}

/// A series, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Measured {
    /// Samples.
    Series(Series),
    /// None.
    Not {
        /// Why.
        reason: String,
    },
}

impl Measured {
    /// The samples, or why there are none.
    pub fn series(&self) -> Result<&Series, &str> {
        match self {
            Self::Series(series) => Ok(series),
            Self::Not { reason } => Err(reason),
        }
    }
}

/// A figure and how far turns were from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The median of all.
    pub value: f64,
    /// The least of a turn.
    pub least: f64,
    /// The most of a turn.
    pub most: f64,
}

impl Series {
    /// Batches.
    pub fn count(&self) -> usize {
        self.turns.iter().map(Vec::len).sum()
    }

    /// All samples.
    pub fn samples(&self) -> impl Iterator<Item = f64> + '_ {
        self.turns.iter().flatten().copied()
    }

    /// Milliseconds of a batch, by turn and in all.
    pub fn time(&self) -> Option<Figure> {
        self.figure(|milliseconds| milliseconds)
    }

    /// Nonces a second.
    pub fn rate(&self) -> Option<Figure> {
        self.figure(|milliseconds| 1e3 * self.nonces as f64 / milliseconds)
    }

    /// 10¹² operations a second.
    pub fn teraflops(&self) -> Option<Figure> {
        self.figure(|milliseconds| self.operations / milliseconds / 1e9)
            .filter(|_| self.operations > 0.0)
    }

    fn figure(&self, of: impl Fn(f64) -> f64) -> Option<Figure> {
        let value = of(median(self.samples())?);
        Figure::spread(
            value,
            self.turns
                .iter()
                .filter_map(|turn| median(turn.iter().copied()))
                .map(of),
        )
    }

    /// Milliseconds of a nonce over those of another series, in all and turn by turn: neighbours in time are compared.
    pub fn times_of(&self, other: &Self) -> Option<Figure> {
        let of_nonce = |series: &Self, samples: &[f64]| Some(median(samples.iter().copied())? / series.nonces as f64);
        let of_turn = |(ours, theirs): (&Vec<f64>, &Vec<f64>)| Some(of_nonce(self, ours)? / of_nonce(other, theirs)?);
        let all = |series: &Self| series.samples().collect::<Vec<_>>();
        let value = of_nonce(self, &all(self))? / of_nonce(other, &all(other))?;
        Figure::spread(value, self.turns.iter().zip(&other.turns).filter_map(of_turn))
    }
}

impl Figure {
    fn spread(value: f64, turns: impl Iterator<Item = f64>) -> Option<Self> {
        let (least, most) = turns.fold((value, value), |(least, most), turn| (least.min(turn), most.max(turn)));
        (value.is_finite() && least.is_finite() && most.is_finite()).then_some(Self { value, least, most })
    }

    /// The figure as a function that falls or rises makes it.
    #[must_use]
    pub fn map(self, of: impl Fn(f64) -> f64) -> Self {
        let (one, other) = (of(self.least), of(self.most));
        Self {
            value: of(self.value),
            least: one.min(other),
            most: one.max(other),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(samples: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(nonces: usize, turns: &[&[f64]]) -> Series {
        Series {
            nonces,
            operations: 2e12,
            bytes: 0,
            turns: turns.iter().map(|turn| turn.to_vec()).collect(),
        }
    }

    fn near(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-9
    }

    #[test]
    fn the_median_is_the_middle_and_one_slow_batch_does_not_move_it() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 900.0].into_iter()), Some(3.0));
    }

    #[test]
    fn rates_are_of_the_batchs_nonces_and_operations() {
        let series = series(4, &[&[10.0, 10.0], &[20.0, 10.0, 10.0]]);
        let rate = series.rate().unwrap();
        assert!(
            near(rate.value, 400.0) && near(rate.least, 400.0) && near(rate.most, 400.0),
            "{rate:?}"
        );
        assert!(near(series.teraflops().unwrap().value, 200.0));
        assert_eq!(series.count(), 5);
        let uncounted = Series {
            operations: 0.0,
            ..series
        };
        assert_eq!(uncounted.teraflops(), None);
    }

    #[test]
    fn a_ratio_is_of_nonces_and_its_spread_is_that_of_turns() {
        // 5 ms a nonce, then 6; against 10 a nonce.
        let (ours, theirs) = (series(2, &[&[10.0], &[12.0]]), series(4, &[&[40.0], &[40.0]]));
        let ratio = theirs.times_of(&ours).unwrap();
        assert!(
            near(ratio.value, 10.0 / 5.5) && near(ratio.least, 10.0 / 6.0) && near(ratio.most, 2.0),
            "{ratio:?}"
        );
        let share = ours.times_of(&theirs).unwrap().map(|share| 1.0 - share);
        assert!(
            near(share.value, 0.45) && near(share.least, 0.4) && near(share.most, 0.5),
            "{share:?}"
        );
    }

    #[test]
    fn nothing_comes_of_nothing_and_of_no_time_at_all() {
        assert_eq!(series(1, &[]).rate(), None);
        assert_eq!(series(1, &[&[0.0]]).rate(), None);
        assert_eq!(series(1, &[&[1.0]]).times_of(&series(1, &[&[]])), None);
    }

    #[test]
    fn what_was_not_measured_is_read_back_as_a_reason() {
        let not = Measured::Not {
            reason: "no torch".into(),
        };
        for measured in [not, Measured::Series(series(1, &[&[1.0]]))] {
            let text = serde_json::to_string(&measured).unwrap();
            assert_eq!(serde_json::from_str::<Measured>(&text).unwrap(), measured);
        }
    }
}
