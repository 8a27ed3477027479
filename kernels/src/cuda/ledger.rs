//! Decide: what a plan costs, counted and not measured: launches, bytes of device memory when every operand moves once, operations.

use super::{
    Shape,
    plan::{Batch, Plan, Step},
};

/// What one batch costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ledger {
    /// Kernels of ours.
    pub launches: usize,
    /// Products of cuBLASLt.
    pub gemms: usize,
    /// Bytes of our kernels, read and written.
    pub launch_bytes: u64,
    /// Of these, what the proof adds to a prefill: inputs, gathering, projection, and the reflections' vectors.
    pub extra_bytes: u64,
    /// Bytes of the products.
    pub gemm_bytes: u64,
    /// Multiplications and additions of products and attention.
    pub operations: f64,
}

impl Ledger {
    /// Counts a plan.
    pub fn new(shape: &Shape, batch: Batch, plan: &Plan) -> Self {
        let mut ledger = Self {
            launches: 0,
            gemms: 0,
            launch_bytes: 0,
            extra_bytes: (2 * shape.layers * shape.hidden) as u64,
            gemm_bytes: 0,
            operations: attention(shape, batch),
        };
        for step in &plan.steps {
            let (read, written) = step.bytes();
            match step {
                Step::Launch(launch) => {
                    ledger.launches += 1;
                    ledger.launch_bytes += read + written;
                    if launch.kernel.is_extra() {
                        ledger.extra_bytes += read + written;
                    }
                }
                Step::Gemm(gemm) | Step::HalfGemm(gemm) => {
                    ledger.gemms += 1;
                    ledger.gemm_bytes += read + written;
                    ledger.operations += 2.0 * f64::from(gemm.rows) * f64::from(gemm.inner) * f64::from(gemm.outer);
                }
            }
        }
        ledger
    }

    /// Share of the proof's additions in all bytes.
    pub fn extra_share(&self) -> f64 {
        self.extra_bytes as f64 / (self.launch_bytes + self.gemm_bytes) as f64
    }
}

/// Exact causal attention; one query of each sequence in the last layer.
fn attention(shape: &Shape, batch: Batch) -> f64 {
    let (width, tokens) = (shape.q_width() as f64, batch.seq_len as f64);
    let pairs = (shape.layers as f64 - 1.0) * tokens * (tokens + 1.0) / 2.0 + tokens;
    4.0 * width * pairs * batch.nonces as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{Layout, plan::plan};

    fn qwen3(hidden: usize, layers: usize, heads: usize, inner: usize) -> Shape {
        Shape {
            hidden,
            layers,
            heads,
            kv_heads: 8,
            head_dim: 128,
            inner,
            eps: 1e-6,
            theta: 1e6,
            qk_norm: true,
        }
    }

    fn ledger(shape: &Shape, nonces: usize) -> Ledger {
        let batch = Batch {
            nonces,
            seq_len: 1024,
            k_dim: 12,
            segments: 1,
        };
        Ledger::new(shape, batch, &plan(shape, &Layout::new(shape), batch).unwrap())
    }

    #[test]
    fn a_layer_is_five_launches_and_four_products() {
        let shape = qwen3(4096, 36, 32, 12_288);
        let counted = ledger(&shape, 16);
        // Two before the layers, one after; the last layer gathers two rows, turns queries apart and has one product more.
        assert_eq!((counted.launches, counted.gemms), (2 + 5 * 36 + 3 + 1, 4 * 36 + 1));
    }

    #[test]
    fn what_the_proof_adds_is_below_two_percent_of_the_bytes() {
        for shape in [qwen3(4096, 36, 32, 12_288), qwen3(1024, 28, 16, 3072)] {
            let counted = ledger(&shape, 32);
            assert!(counted.extra_share() < 0.02, "{}", counted.extra_share());
        }
    }

    #[test]
    fn bytes_per_token_and_layer_are_those_of_fused_kernels() {
        let shape = qwen3(4096, 36, 32, 12_288);
        let counted = ledger(&shape, 16);
        let per_token_and_layer = counted.launch_bytes as f64 / (16.0 * 1024.0 * 36.0);
        // Two norms of 8 bytes an element, heads turned in place, attention's operands once, 6 an element of the MLP.
        let fused = 16.0 * 4096.0 + 4.0 * 5120.0 + 2.0 * (6144.0 + 4096.0) + 6.0 * 12_288.0;
        assert!(
            (per_token_and_layer / fused - 1.0).abs() < 0.04,
            "{per_token_and_layer} of {fused}"
        );
    }

    #[test]
    fn operations_of_a_nonce_are_the_known_ones() {
        let per_nonce = ledger(&qwen3(4096, 36, 32, 12_288), 1).operations;
        // 14.53e12 with the last layer whole; 2.7 % of it is saved by its last row.
        assert!((per_nonce / 14.53e12 - 0.977).abs() < 0.01, "{per_nonce}");
    }
}
