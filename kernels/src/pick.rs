//! Coordinate pick (`docs/poc-v2.md`, section 5.2): which `k` of the hidden dimensions become the artifact, in which
//! order.
//!
//! The order is that of the GPU kernel behind the reference's unsorted top-k, which the whole network produces: all
//! winners but the worst in ascending index order, then the worst one.

use crate::rng;

/// Indices of the `k` dimensions (of `dim`) with the smallest scores of `seed`, in the network's order. Fewer than
/// `k` only when `dim` is smaller.
pub fn pick(seed: u32, dim: usize, k: usize) -> Vec<usize> {
    let mut winners = by_score(seed, dim, k);
    if let Some((worst, better)) = winners.split_last_mut() {
        better.sort_unstable_by_key(|&(_, index)| index);
        better
            .iter()
            .chain([&*worst])
            .map(|&(_, index)| index as usize)
            .collect()
    } else {
        Vec::new()
    }
}

/// The `k` smallest scores and their dimensions, best first.
pub fn by_score(seed: u32, dim: usize, k: usize) -> Vec<(u32, u32)> {
    let mut scores: Vec<(u32, u32)> = (0..dim as u32).map(|index| (rng::hash32(index, seed), index)).collect();
    if k > 0 && k < scores.len() {
        scores.select_nth_unstable(k - 1);
    }
    scores.truncate(k);
    scores.sort_unstable();
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_winner_comes_last_and_the_rest_ascend() {
        let picked = pick(42, 1000, 12);
        let scored = by_score(42, 1000, 12);
        assert_eq!(picked.last().copied(), scored.last().map(|&(_, index)| index as usize));
        assert!(picked[..11].is_sorted());
    }

    #[test]
    fn a_model_narrower_than_the_artifact_yields_all_its_dimensions() {
        assert_eq!(pick(1, 3, 12).len(), 3);
        assert!(pick(1, 0, 12).is_empty());
        assert!(pick(1, 5, 0).is_empty());
    }
}
