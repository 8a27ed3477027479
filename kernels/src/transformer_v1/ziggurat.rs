//! Standard normals (`docs/poc-v1.md`, section 2.3): the ziggurat of 256 layers that numpy's `standard_normal` walks, in
//! double precision.
//!
//! The tables are grown, not copied: the usual recursion in double precision, in the order of operations that gives
//! numpy's tables to the bit (a test holds their digest). Logarithm and exponential of the rare tail and wedge are
//! libm's.

use super::pcg64::Pcg64;
use std::sync::LazyLock;

/// Where the tail begins.
const R: f64 = 3.654_152_885_361_009;
const INVERSE_R: f64 = 0.273_661_237_329_758_3;
/// Area of every layer, as rounded where the tables were first made.
const AREA: f64 = 0.004_928_673_233_974_652;
const TWO_TO_52: f64 = 4_503_599_627_370_496.0;
/// The one entry of the first tables' heights that a correctly rounded exponential does not give: a unit higher.
const ROUNDED_UP: usize = 38;

#[derive(Debug)]
struct Tables {
    /// Below this integer a draw lies inside of its layer.
    inside: [u64; 256],
    /// Width of a unit of the draw.
    unit: [f64; 256],
    /// Density at the layer's edge.
    height: [f64; 256],
}

static TABLES: LazyLock<Tables> = LazyLock::new(Tables::grow);

impl Tables {
    fn grow() -> Self {
        let density = |x: f64| (-0.5 * x * x).exp();
        let mut tables = Self {
            inside: [0; 256],
            unit: [0.0; 256],
            height: [1.0; 256],
        };
        tables.unit[255] = R / TWO_TO_52;
        tables.height[255] = density(R);
        // The lowest layer holds the tail: its draws reach farther than its edge.
        tables.inside[0] = (R * tables.height[255] / AREA * TWO_TO_52) as u64;
        tables.unit[0] = AREA / tables.height[255] / TWO_TO_52;
        let mut edge = R;
        for layer in (1..255).rev() {
            let next = (-2.0 * (AREA / edge + tables.height[layer + 1]).ln()).sqrt();
            tables.inside[layer + 1] = (next / edge * TWO_TO_52).round_ties_even() as u64;
            tables.unit[layer] = next / TWO_TO_52;
            tables.height[layer] = density(next);
            if layer == ROUNDED_UP {
                tables.height[layer] = tables.height[layer].next_up();
            }
            edge = next;
        }
        tables
    }
}

/// Standard normals drawn from a generator.
#[derive(Debug)]
pub struct Normals {
    generator: Pcg64,
    tables: &'static Tables,
}

impl Normals {
    /// The normals of a stream.
    pub fn new(generator: Pcg64) -> Self {
        Self {
            generator,
            tables: &TABLES,
        }
    }

    /// The next normal.
    #[inline]
    pub fn draw(&mut self) -> f64 {
        loop {
            let bits = self.generator.next_u64();
            let layer = (bits & 0xff) as usize;
            let negative = (bits >> 8) & 1 == 1;
            let magnitude = (bits >> 9) & ((1 << 52) - 1);
            let x = magnitude as f64 * self.tables.unit[layer];
            let x = if negative { -x } else { x };
            if magnitude < self.tables.inside[layer] {
                return x;
            }
            if layer == 0 {
                return self.tail((magnitude >> 8) & 1 == 1);
            }
            if self.is_below_curve(layer, x) {
                return x;
            }
        }
    }

    #[cold]
    fn tail(&mut self, negative: bool) -> f64 {
        loop {
            let beyond = -INVERSE_R * (-self.generator.next_f64()).ln_1p();
            let height = -(-self.generator.next_f64()).ln_1p();
            if height + height > beyond * beyond {
                return if negative { -(R + beyond) } else { R + beyond };
            }
        }
    }

    #[cold]
    fn is_below_curve(&mut self, layer: usize, x: f64) -> bool {
        let (upper, lower) = (self.tables.height[layer - 1], self.tables.height[layer]);
        (upper - lower) * self.generator.next_f64() + lower < (-0.5 * x * x).exp()
    }
}

impl Iterator for Normals {
    type Item = f64;

    #[inline]
    fn next(&mut self) -> Option<f64> {
        Some(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_grown_tables_are_numpys_to_the_bit() {
        let hash = TABLES
            .inside
            .iter()
            .map(|entry| entry.to_le_bytes())
            .chain(TABLES.unit.iter().map(|entry| entry.to_le_bytes()))
            .chain(TABLES.height.iter().map(|entry| entry.to_le_bytes()))
            .fold(Sha256::new(), Sha256::chain_update);
        assert_eq!(
            hex::encode(hash.finalize()),
            "d46841a090f638a74c6bd112345fe681089be798d725b251129f062cad5521a3"
        );
    }

    #[test]
    fn a_million_draws_reach_the_tail_and_have_the_moments_of_a_normal() {
        let draws: Vec<f64> = Normals::new(Pcg64::from_text("moments", 4)).take(1_000_000).collect();
        let moment = |power: i32| draws.iter().map(|x| x.powi(power)).sum::<f64>() / draws.len() as f64;
        assert!(moment(1).abs() < 0.004, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.006, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.05, "{}", moment(4));
        assert!(draws.iter().any(|x| *x > R) && draws.iter().any(|x| *x < -R));
    }
}
