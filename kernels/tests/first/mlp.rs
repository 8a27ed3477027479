//! The gated MLP of a layer: down(silu(gate(x)) * up(x)), dense or by experts.

use super::{
    Arithmetic, Config, Source,
    linear::Linear,
    moe::{self, Moe},
};

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

    pub(super) fn forward<A: Arithmetic>(&self, x: &[f32], work: &mut Work, out: &mut [f32]) {
        match self {
            Self::Dense(mlp) => mlp.forward::<A>(x, &mut work.gated, out),
            Self::Experts(moe) => moe.forward::<A>(x, (&mut work.moe, &mut work.gated), out),
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
        for (gate, up) in work.gate.iter_mut().zip(&work.up) {
            *gate = A::round(A::round(silu(*gate)) * up);
        }
        self.down.forward::<A>(&work.gate, out);
    }
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}
