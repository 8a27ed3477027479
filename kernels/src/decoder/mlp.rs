//! The gated MLP of a layer: down(silu(gate(x)) * up(x)), dense or by experts.

use super::{
    Config,
    arithmetic::Arithmetic,
    moe::{self, Moe},
    trace::Trace,
    weights::Source,
};
use crate::{linear::Linear, vector};

#[derive(Debug, Clone)]
pub(super) enum Mlp {
    Dense(Gated),
    Experts(Moe),
}

#[derive(Debug, Default)]
pub(super) struct Work {
    gated: GatedWork,
    moe: moe::Work,
}

impl Mlp {
    pub(super) fn build(source: &Source<'_>, prefix: &str, config: &Config) -> Self {
        match &config.moe {
            None => Self::Dense(Gated::build(source, prefix, config.hidden, config.intermediate)),
            Some(moe) => Self::Experts(Moe::build(source, prefix, config.hidden, moe)),
        }
    }

    pub(super) fn round(&mut self) {
        match self {
            Self::Dense(mlp) => mlp.round(),
            Self::Experts(moe) => moe.round(),
        }
    }

    pub(super) fn forward<A: Arithmetic>(
        &self,
        x: &[f32],
        work: &mut Work,
        out: &mut [f32],
        trace: Option<&mut Trace>,
    ) {
        match self {
            Self::Dense(mlp) => mlp.forward::<A>(x, &mut work.gated, out),
            Self::Experts(moe) => moe.forward::<A>(x, (&mut work.moe, &mut work.gated), out, trace),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Gated {
    gate: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Debug, Default)]
pub(super) struct GatedWork {
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Gated {
    pub(super) fn build(source: &Source<'_>, prefix: &str, hidden: usize, inner: usize) -> Self {
        Self {
            gate: source.linear(&format!("{prefix}.gate_proj"), inner, hidden),
            up: source.linear(&format!("{prefix}.up_proj"), inner, hidden),
            down: source.linear(&format!("{prefix}.down_proj"), hidden, inner),
        }
    }

    pub(super) fn round(&mut self) {
        for linear in [&mut self.gate, &mut self.up, &mut self.down] {
            linear.round();
        }
    }

    pub(super) fn forward<A: Arithmetic>(&self, x: &[f32], work: &mut GatedWork, out: &mut [f32]) {
        let inner = out.len() / self.down.out() * self.gate.out();
        work.gate.resize(inner, 0.0);
        work.up.resize(inner, 0.0);
        self.gate.forward::<A>(x, &mut work.gate);
        self.up.forward::<A>(x, &mut work.up);
        gate_by::<A>(&mut work.gate, &work.up);
        self.down.forward::<A>(&work.gate, out);
    }
}

/// The gate's function in single precision, as every run computes it before it rounds.
#[expect(clippy::inline_always, reason = "compiled for the vector units of `vector::widest`")]
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + vector::exp(-x))
}

/// gate = silu(gate) * up, silu rounded.
pub(crate) fn gate_by<A: Arithmetic>(gate: &mut [f32], up: &[f32]) {
    vector::widest(
        #[inline(always)]
        || {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = A::round(A::round(silu(*gate)) * up);
            }
        },
    );
}
