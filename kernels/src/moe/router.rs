//! Which experts a token goes to: logits and scores in single precision, the best few, ties to the lower number.

use super::Routed;
use crate::{
    decoder::{Arithmetic, Bf16},
    vector,
};
use std::cmp::Ordering;

/// From logits to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Sigmoid of each logit; a bias is added for the choice alone.
    Sigmoid,
    /// Softmax over all.
    Softmax,
}

/// Logits of some tokens: [row][expert].
pub fn logits(x: &[f32], weights: &[f32], width: usize) -> Vec<f32> {
    vector::widest(
        #[inline(always)]
        || {
            let row = |x: &[f32]| {
                weights
                    .chunks_exact(width)
                    .map(|weights| vector::sum_of_pairs(x, weights, |x, w| x * w))
                    .collect::<Vec<_>>()
            };
            x.chunks_exact(width).flat_map(row).collect()
        },
    )
}

/// Larger first; what is no number comes after all that are.
fn larger_first(a: f32, b: f32) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => b.total_cmp(&a),
        (a, b) => a.cmp(&b),
    }
}

/// The experts of one token, best first, and their weights: the chosen scores over their sum.
pub fn choose(logits: &[f32], bias: Option<&[f32]>, top_k: usize) -> Routed {
    let mut scores = logits.to_vec();
    let ranks: Vec<f32> = if let Some(bias) = bias {
        for score in &mut scores {
            *score = 1.0 / (1.0 + vector::exp(-*score));
        }
        scores.iter().zip(bias).map(|(score, bias)| score + bias).collect()
    } else {
        let width = scores.len();
        vector::softmax(&mut scores, width);
        scores.clone()
    };
    let mut ranking: Vec<usize> = (0..scores.len()).collect();
    ranking.sort_by(|&a, &b| larger_first(ranks[a], ranks[b]));
    let total: f32 = ranking[..top_k].iter().map(|&expert| scores[expert]).sum();
    let margin = ranking.get(top_k).map_or(f32::INFINITY, |&next| {
        let (last, next) = (ranks[ranking[top_k - 1]], ranks[next]);
        if bias.is_some() {
            last - next
        } else {
            (last / next).ln()
        }
    });
    ranking.truncate(top_k);
    Routed {
        weights: ranking.iter().map(|&expert| scores[expert] / total).collect(),
        experts: ranking,
        margin,
    }
}

/// Weights in single precision as the sum of three in bf16: what a device multiplies with.
pub(crate) fn parts(weights: &[f32]) -> [Vec<f32>; 3] {
    let mut rest = weights.to_vec();
    [(); 3].map(|()| {
        let part: Vec<f32> = rest.iter().map(|&x| Bf16::round(x)).collect();
        for (rest, part) in rest.iter_mut().zip(&part) {
            *rest -= part;
        }
        part
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn a_bias_decides_who_is_chosen_and_not_how_much() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        let plain = choose(&logits, Some(&[0.0; 4]), 2);
        assert_eq!(plain.experts, [2, 1]);
        let biased = choose(&logits, Some(&[0.0, 0.0, 0.0, 5.0]), 2);
        assert_eq!(biased.experts, [3, 2]);
        let score = |x: f64| 1.0 / (1.0 + (-x).exp());
        let weight = score(-1.0) / (score(-1.0) + score(2.0));
        assert!((f64::from(biased.weights[0]) - weight).abs() < 1e-6);
        assert!((f64::from(plain.margin) - (score(1.0) - score(0.0))).abs() < 1e-6);
    }

    #[test]
    fn equals_are_chosen_in_the_order_of_their_numbers() {
        for bias in [None, Some(&[0.0; 6][..])] {
            assert_eq!(choose(&[1.0, 2.0, 1.0, 2.0, 1.0, 1.0], bias, 4).experts, [1, 3, 0, 2]);
        }
    }

    #[test]
    fn weights_sum_to_one_and_a_softmax_keeps_ratios() {
        let logits = rng::normal(8, 128);
        for bias in [None, Some(&logits[..])] {
            let routed = choose(&logits, bias, 8);
            assert!((routed.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        let routed = choose(&logits, None, 2);
        let ratio = (logits[routed.experts[0]] - logits[routed.experts[1]]).exp();
        assert!((routed.weights[0] / routed.weights[1] / ratio - 1.0).abs() < 1e-5);
    }

    #[test]
    fn what_is_no_number_is_chosen_last_and_spoils_the_weights() {
        let routed = choose(&[f32::NAN, 1.0, f32::NAN, 0.0], Some(&[0.0; 4]), 3);
        assert_eq!(routed.experts, [1, 3, 0]);
        assert!(routed.weights.iter().all(|weight| weight.is_nan()));
    }

    #[test]
    fn three_parts_are_the_whole() {
        let weights: Vec<f32> = rng::normal(9, 4096).iter().map(|x| x / 55.4).collect();
        let [high, middle, low] = parts(&weights);
        for (at, weight) in weights.iter().enumerate() {
            assert_eq!((high[at] + (middle[at] + low[at])).to_bits(), weight.to_bits());
        }
        assert!(low.iter().any(|x| *x != 0.0));
    }
}
