//! Counts comparisons, collects problems, and knows the tolerances.
//!
//! Where libm takes part, numbers agree within 2e-6 and bf16 bits except for rare neighbours; everything else is
//! exact. Digests of numbers that libm took part in are counted and decide nothing.

use super::{FileReport, Outcome, Problem, item::Item};
use crate::{artifact, statistics};

/// Largest difference of numbers derived from normals.
pub(super) const NORMAL: f64 = 2e-6;
/// Half-precision neighbours apart: artifacts from one given hidden state.
const ARTIFACT_ULP: i32 = 2;

#[derive(Debug, Default)]
pub(super) struct Tally {
    checks: u64,
    problems: Vec<Problem>,
    notes: Vec<String>,
    left_out: Vec<String>,
    /// bf16 elements that are neighbours of the published ones, of all compared.
    flips: u64,
    flippable: u64,
    digests_equal: u64,
    digests: u64,
    /// Elements of bf16 runs equal to the bit, of all compared.
    same: u64,
    comparable: u64,
}

impl Tally {
    /// Counts a comparison; `what` says what differs when it does not hold.
    pub(super) fn that(&mut self, at: &Item<'_>, holds: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.problems.push(at.problem(what()));
        }
    }

    /// Takes up the problem of a section that could not be read to its end.
    pub(super) fn absorb(&mut self, result: Result<(), Problem>) {
        if let Err(problem) = result {
            self.problems.push(problem);
        }
    }

    /// Runs a check over every item of a list that may be missing; a malformed item does not stop the others.
    pub(super) fn each(
        &mut self,
        parent: &Item<'_>,
        name: &str,
        mut check: impl FnMut(&Item<'_>, &mut Self) -> Result<(), Problem>,
    ) {
        let Some(list) = parent.optional(name) else {
            self.note(format!("no {name}"));
            return;
        };
        match list.items() {
            Ok(items) => {
                for item in &items {
                    let result = check(item, self);
                    self.absorb(result);
                }
            }
            Err(problem) => self.problems.push(problem),
        }
    }

    /// Runs a check over a section that may be missing.
    pub(super) fn section(
        &mut self,
        parent: &Item<'_>,
        name: &str,
        check: impl FnOnce(&Item<'_>, &mut Self) -> Result<(), Problem>,
    ) {
        match parent.optional(name) {
            Some(section) => {
                let result = check(&section, self);
                self.absorb(result);
            }
            None => self.note(format!("no {name}")),
        }
    }

    /// A fact that decides nothing; said once.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Something the file holds that this run does not check.
    pub(super) fn leave_out(&mut self, what: String) {
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }

    pub(super) fn equal<T: PartialEq + std::fmt::Debug>(&mut self, at: &Item<'_>, found: &T, published: &T) {
        self.that(at, found == published, || {
            format!("published {published:?}, computed {found:?}")
        });
    }

    /// Numbers, each within `tolerance`.
    pub(super) fn close(&mut self, at: &Item<'_>, found: &[f32], published: &[f32], tolerance: f64) {
        let wide = |numbers: &[f32]| numbers.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        self.close_doubles(at, &wide(found), &wide(published), tolerance);
    }

    /// As [`Tally::close`].
    pub(super) fn close_doubles(&mut self, at: &Item<'_>, found: &[f64], published: &[f64], tolerance: f64) {
        if found.len() != published.len() {
            self.that(at, false, || {
                format!("{} numbers published, {} computed", published.len(), found.len())
            });
            return;
        }
        let difference = |(a, b): (&f64, &f64)| (a - b).abs();
        let worst = found
            .iter()
            .zip(published)
            .map(difference)
            .enumerate()
            .find(|(_, difference)| difference.is_nan() || *difference > tolerance);
        self.checks += found.len() as u64;
        if let Some((index, difference)) = worst {
            let (found, published) = (found[index], published[index]);
            self.problems.push(at.problem(format!(
                "element {index}: published {published}, computed {found}: {difference:.1e} apart, {tolerance:.0e} allowed"
            )));
        }
    }

    /// bf16 bit patterns: equal, or neighbours, which the whole file may hold few of.
    pub(super) fn bf16(&mut self, at: &Item<'_>, found: &[u16], published: &[u16]) {
        if found.len() != published.len() {
            self.that(at, false, || {
                format!("{} numbers published, {} computed", published.len(), found.len())
            });
            return;
        }
        self.checks += found.len() as u64;
        self.flippable += found.len() as u64;
        for (index, (&found, &published)) in found.iter().zip(published).enumerate() {
            match ordered(found).abs_diff(ordered(published)) {
                0 => {}
                1 => self.flips += 1,
                apart => {
                    let what = format!(
                        "element {index}: published {published:#06x}, computed {found:#06x}: {apart} bf16 steps"
                    );
                    self.problems.push(at.problem(what));
                    return;
                }
            }
        }
    }

    /// Whether an artifact from a given hidden state is the published one: half-precision neighbours and short
    /// distance.
    pub(super) fn is_same_artifact(found: &[u8], published: &[u8]) -> bool {
        let (Some(a), Some(b)) = (artifact::decode(found), artifact::decode(published)) else {
            return false;
        };
        let pairs = found.as_chunks::<2>().0.iter().zip(published.as_chunks::<2>().0);
        let steps = |(a, b): (&[u8; 2], &[u8; 2])| {
            i32::from(ordered(u16::from_le_bytes(*a))) - i32::from(ordered(u16::from_le_bytes(*b)))
        };
        a.len() == b.len()
            && statistics::distance(&a, &b) < 1e-3
            && pairs.map(steps).all(|steps| steps.abs() <= ARTIFACT_ULP)
    }

    /// An artifact of a whole model: its distance from the published one.
    pub(super) fn near(&mut self, at: &Item<'_>, found: &[u8], published: &[u8], below: f64) {
        let distance = artifact_distance(found, published);
        self.that(
            at,
            distance.is_some_and(|distance| distance < below),
            || match distance {
                Some(distance) => format!("computed artifact is {distance:.4} away, below {below} allowed"),
                None => format!("vector has {} bytes, {} were computed", published.len(), found.len()),
            },
        );
    }

    /// A digest that decides nothing.
    pub(super) fn informative_digest(&mut self, equal: bool) {
        self.digests += 1;
        self.digests_equal += u64::from(equal);
    }

    /// States at the end of bf16 runs: they depend on the order of summation, so equality decides nothing. About half
    /// are equal when every rounding stands in its place, a fifth when one does not.
    pub(super) fn informative_bf16(&mut self, found: &[u16], published: &[u16]) {
        self.comparable += published.len() as u64;
        self.same += published.iter().zip(found).filter(|(a, b)| a == b).count() as u64;
    }

    pub(super) fn report(mut self, name: &str) -> FileReport {
        // Below 0.1 %, yet a small file is not failed for a single neighbour.
        let allowed = self.flippable.div_ceil(1000);
        if self.flips > allowed {
            let what = format!(
                "{} of {} bf16 elements are neighbours, {allowed} allowed",
                self.flips, self.flippable
            );
            self.problems.push(Problem {
                path: "$".to_owned(),
                what,
            });
        }
        if self.checks == 0 && self.problems.is_empty() {
            let what = "holds nothing that could be checked".to_owned();
            self.problems.push(Problem {
                path: "$".to_owned(),
                what,
            });
        }
        if self.digests > 0 {
            self.notes.push(format!(
                "digests equal, informative: {} of {}",
                self.digests_equal, self.digests
            ));
        }
        if self.comparable > 0 {
            self.notes.push(format!(
                "bf16 run states equal to the bit, informative: {} of {}",
                self.same, self.comparable
            ));
        }
        if self.flips > 0 {
            self.notes
                .push(format!("bf16 neighbours: {} of {}", self.flips, self.flippable));
        }
        let outcome = if self.problems.is_empty() {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        FileReport {
            name: name.to_owned(),
            outcome,
            checks: self.checks,
            problems: self.problems,
            notes: self.notes,
            left_out: self.left_out,
        }
    }
}

/// Euclidean distance of two artifacts of equal length.
pub(super) fn artifact_distance(a: &[u8], b: &[u8]) -> Option<f64> {
    let (a, b) = (artifact::decode(a)?, artifact::decode(b)?);
    (a.len() == b.len()).then(|| statistics::distance(&a, &b))
}

/// Sign-magnitude bits as an integer in the order of the numbers, so that neighbours differ by one.
fn ordered(bits: u16) -> i16 {
    let magnitude = (bits & 0x7fff).cast_signed();
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}
