//! Mixture of experts: softmax over the router's logits in single precision, the best `top_k` renormalised, their
//! outputs summed in single precision and rounded once.

use super::{
    MoeConfig,
    arithmetic::Arithmetic,
    mlp::{Gated, GatedWork},
    trace::{Routed, Trace},
    weights::Source,
};
use crate::{linear::Linear, vector};

#[derive(Debug, Clone)]
pub(super) struct Moe {
    router: Linear,
    experts: Vec<Gated>,
    top_k: usize,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    probabilities: Vec<f32>,
    ranking: Vec<usize>,
    expert: Vec<f32>,
}

impl Moe {
    pub(super) fn build(source: &Source<'_>, prefix: &str, hidden: usize, config: &MoeConfig) -> Self {
        Self {
            router: source.linear(&format!("{prefix}.gate"), config.experts, hidden),
            experts: (0..config.experts)
                .map(|index| {
                    Gated::build(
                        source,
                        &format!("{prefix}.experts.{index}"),
                        hidden,
                        config.intermediate,
                    )
                })
                .collect(),
            top_k: config.top_k,
        }
    }

    pub(super) fn round(&mut self) {
        self.router.round();
        for expert in &mut self.experts {
            expert.round();
        }
    }

    pub(super) fn forward<A: Arithmetic>(
        &self,
        x: &[f32],
        (work, gated): (&mut Work, &mut GatedWork),
        out: &mut [f32],
        mut trace: Option<&mut Trace>,
    ) {
        let width = self.router.inp();
        work.route::<A>(&self.router, x);
        work.expert.resize(width, 0.0);
        for (token, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let probabilities = &work.probabilities[token * self.experts.len()..(token + 1) * self.experts.len()];
            work.ranking.clear();
            work.ranking.extend(0..self.experts.len());
            // Equal probabilities keep the lower index first.
            work.ranking
                .sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
            let chosen = &work.ranking[..self.top_k];
            let total: f32 = chosen.iter().map(|&expert| probabilities[expert]).sum();
            out.fill(0.0);
            for &expert in chosen {
                self.experts[expert].forward::<A>(x, gated, &mut work.expert);
                let weight = probabilities[expert] / total;
                for (out, y) in out.iter_mut().zip(&work.expert) {
                    *out += weight * y;
                }
            }
            for out in out {
                *out = A::round(*out);
            }
            if let Some(trace) = trace.as_deref_mut() {
                let next = work
                    .ranking
                    .get(self.top_k)
                    .map_or(0.0, |&expert| probabilities[expert]);
                trace.routed(Routed {
                    experts: chosen.to_vec(),
                    weights: chosen.iter().map(|&expert| probabilities[expert] / total).collect(),
                    margin: (probabilities[chosen[self.top_k - 1]] / next).ln(),
                });
            }
        }
    }
}

impl Work {
    /// Fills the probabilities of every token.
    fn route<A: Arithmetic>(&mut self, router: &Linear, x: &[f32]) {
        self.probabilities.resize(x.len() / router.inp() * router.out(), 0.0);
        router.forward::<A>(x, &mut self.probabilities);
        vector::widest(
            #[inline(always)]
            || vector::softmax(&mut self.probabilities, router.out()),
        );
    }
}
