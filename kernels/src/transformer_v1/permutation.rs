//! The permutation of a nonce (`docs/poc-v1.md`, section 2.4): numpy's `Generator.permutation`, a Fisher-Yates shuffle from the
//! end whose positions are drawn by masking and rejection, not by multiplication.

use super::pcg64::Pcg64;

/// A permutation of the integers below `count`.
pub fn permutation(generator: Pcg64, count: usize) -> Vec<u32> {
    let mut halves = Halves { generator, high: None };
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        order.swap(last, halves.up_to(last as u32) as usize);
    }
    order
}

/// 32-bit draws: each 64-bit integer gives its low half first, then its high half.
struct Halves {
    generator: Pcg64,
    high: Option<u32>,
}

impl Halves {
    fn next_u32(&mut self) -> u32 {
        self.high.take().unwrap_or_else(|| {
            let both = self.generator.next_u64();
            self.high = Some((both >> 32) as u32);
            both as u32
        })
    }

    /// Uniform in 0 ..= `most`.
    fn up_to(&mut self, most: u32) -> u32 {
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let draw = self.next_u32() & mask;
            if draw <= most {
                return draw;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_appears_once() {
        let mut order = permutation(Pcg64::from_text("AB", 1), 1000);
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
        assert!(permutation(Pcg64::from_text("AB", 1), 0).is_empty());
        assert_eq!(permutation(Pcg64::from_text("AB", 1), 1), [0]);
    }

    #[test]
    fn the_low_half_of_a_draw_comes_first() {
        let mut plain = Pcg64::from_text("AB", 1);
        let both = plain.next_u64();
        let mut halves = Halves {
            generator: Pcg64::from_text("AB", 1),
            high: None,
        };
        assert_eq!(halves.next_u32(), both as u32);
        assert_eq!(halves.next_u32(), (both >> 32) as u32);
        assert_eq!(halves.next_u32(), plain.next_u64() as u32);
    }
}
