//! Decide: what a measurement of row A3 runs (`docs/benchmarks.md`), as values: what is uploaded, what is run once, what is timed, and how
//! many operations that is. Rows are routed by the router, as random as they are in a proof.

use super::{Layout, dense, ledger, sizes, steps::MoeSteps};
use crate::{
    cuda::plan::{Batch, Buffer, Kernel, Plan, Step},
    decoder, householder,
    moe::Shape,
    seed,
};
use half::bf16;

/// Something to time. Weights are [`Layout::fill`]'s of the same shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Bench {
    /// What it is.
    pub name: &'static str,
    /// Run once, before.
    pub before: Vec<Step>,
    /// Timed; leaves what it reads as it was, or as good.
    pub plan: Plan,
    /// Bytes to upload before all.
    pub uploads: Vec<(Buffer, Vec<u8>)>,
    /// Multiplications and additions of one run: products, router, exact causal attention.
    pub operations: f64,
    /// Bytes of device memory of one run when every operand moves once.
    pub bytes: u64,
}

/// A whole layer over `nonces` sequences of `seq_len` tokens: the first of a stack of at least two.
pub fn layer(shape: &Shape, layout: &Layout, batch: Batch) -> Bench {
    let dense = dense(shape);
    let mut before = MoeSteps::new(shape, layout, &dense, batch);
    before.base.inputs();
    let mut timed = MoeSteps::new(shape, layout, &dense, batch);
    timed.layer(0);
    bench("experts' layer", shape, batch, (before.base.done, timed.base.done))
}

/// The two grouped products alone, without the gate between them.
pub fn grouped_products(shape: &Shape, layout: &Layout, batch: Batch) -> Bench {
    let dense = dense(shape);
    let mut before = MoeSteps::new(shape, layout, &dense, batch);
    before.base.inputs();
    let rows = before.base.all_rows();
    before.route(0, &rows);
    before.quantise(rows.normed, rows.count, shape.hidden);
    // Once as in a layer: what the second product reads is written, and what the first one reads has to be again.
    before.experts(0, rows.count);
    let experts = before.base.done.len() - 3;
    let is_product = |step: &Step| matches!(step, Step::Launch(launch) if launch.kernel == Kernel::GroupedGemmFp8);
    let products = before.base.done[experts..]
        .iter()
        .filter(|step| is_product(step))
        .cloned()
        .collect();
    bench("grouped products", shape, batch, (before.base.done, products))
}

fn bench(name: &'static str, shape: &Shape, batch: Batch, (before, steps): (Vec<Step>, Vec<Step>)) -> Bench {
    let operations = steps
        .iter()
        .map(|step| match step {
            Step::Launch(launch) => ledger::product(launch) + ledger::other(shape, batch, launch),
            Step::Gemm(_) | Step::HalfGemm(_) => 0.0,
        })
        .sum();
    let bytes = steps
        .iter()
        .map(Step::bytes)
        .map(|(read, written)| read + written)
        .sum();
    Bench {
        name,
        before,
        plan: Plan {
            steps,
            sizes: sizes(shape, batch),
        },
        uploads: uploads(shape, batch),
        operations,
        bytes,
    }
}

/// Seeds of the inputs, angles, reflections.
fn uploads(shape: &Shape, batch: Batch) -> Vec<(Buffer, Vec<u8>)> {
    let seeds = (0..batch.seed_words())
        .flat_map(|word| seed::seed_from_string(&format!("bench_{word}")).to_le_bytes())
        .collect();
    let rope = decoder::angles(shape.rotary, shape.theta, batch.seq_len)
        .into_iter()
        .flat_map(|(cos, sin)| [cos.to_le_bytes(), sin.to_le_bytes()])
        .flatten()
        .collect();
    let reflections = (0..shape.layers)
        .flat_map(|layer| householder::reflection_vector("bench", layer, shape.hidden))
        .flat_map(|x| bf16::from_f32(x).to_le_bytes())
        .collect();
    vec![
        (Buffer::Seeds, seeds),
        (Buffer::Rope, rope),
        (Buffer::Reflections, reflections),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: Batch = Batch {
        nonces: 16,
        seq_len: 1024,
        k_dim: 12,
        segments: 1,
    };

    #[test]
    fn grouped_products_are_most_of_a_layer() {
        let shape = Shape::minimax_m2(2);
        let layout = Layout::new(&shape);
        let (whole, products) = (layer(&shape, &layout, BATCH), grouped_products(&shape, &layout, BATCH));
        assert_eq!((whole.plan.steps.len(), products.plan.steps.len()), (18, 2));
        let expected = 2.0 * 16.0 * 1024.0 * f64::from(8 * 3 * 3072 * 1536);
        assert!((products.operations / expected - 1.0).abs() < 1e-9);
        let part = products.operations / whole.operations;
        assert!((0.65..0.75).contains(&part), "{part}");
        assert!(products.bytes < whole.bytes);
    }
}
