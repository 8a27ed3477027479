//! Decide: what a plan costs, counted and not measured. Rows of a product by expert are those of the choices; tiles that stay partly empty
//! are no operations.

use crate::{
    cuda::plan::{Arg, Batch, Kernel, Launch, Plan, Step},
    moe::Shape,
};

/// What one batch costs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ledger {
    /// Kernels.
    pub launches: usize,
    /// Bytes of the products, read and written.
    pub product_bytes: u64,
    /// Bytes of everything else.
    pub other_bytes: u64,
    /// Of these, what the proof adds to a prefill.
    pub extra_bytes: u64,
    /// Multiplications and additions of products in eight bits.
    pub operations: f64,
    /// Those of the router and of exact causal attention.
    pub other_operations: f64,
}

impl Ledger {
    /// Counts a plan.
    pub fn new(shape: &Shape, batch: Batch, plan: &Plan) -> Self {
        let mut ledger = Self {
            extra_bytes: (2 * shape.layers * shape.hidden) as u64,
            ..Self::default()
        };
        for step in &plan.steps {
            let (read, written) = step.bytes();
            let Step::Launch(launch) = step else { continue };
            ledger.launches += 1;
            if launch.kernel == Kernel::GroupedGemmFp8 {
                ledger.product_bytes += read + written;
            } else {
                ledger.other_bytes += read + written;
            }
            if launch.kernel.is_extra() {
                ledger.extra_bytes += read + written;
            }
            ledger.operations += product(launch);
            ledger.other_operations += other(shape, batch, launch);
        }
        ledger
    }

    /// Share of the proof's additions in all bytes.
    pub fn extra_share(&self) -> f64 {
        self.extra_bytes as f64 / (self.product_bytes + self.other_bytes) as f64
    }
}

fn sizes<const COUNT: usize>(launch: &Launch, from: usize) -> [f64; COUNT] {
    std::array::from_fn(|at| match launch.args.get(from + at) {
        Some(Arg::Size(size)) => f64::from(*size),
        _ => 0.0,
    })
}

/// Multiplications and additions of a product in eight bits.
pub fn product(launch: &Launch) -> f64 {
    if launch.kernel != Kernel::GroupedGemmFp8 {
        return 0.0;
    }
    let [rows, _, inner, outer] = sizes(launch, 9);
    2.0 * rows * inner * outer
}

/// Those of what is not in eight bits. The router's are counted once, though its kernel multiplies three parts.
pub fn other(shape: &Shape, batch: Batch, launch: &Launch) -> f64 {
    let (width, tokens, nonces) = (shape.q_width() as f64, batch.seq_len as f64, batch.nonces as f64);
    match launch.kernel {
        Kernel::Router => {
            let [rows, experts, inner] = sizes(launch, 3);
            2.0 * rows * experts * inner
        }
        Kernel::Attention16 | Kernel::Attention32 | Kernel::Attention64 | Kernel::Attention128 => {
            2.0 * width * tokens * (tokens + 1.0) * nonces
        }
        Kernel::AttentionLast => 4.0 * width * tokens * nonces,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::moe::{Layout, plan};

    fn counted(shape: &Shape, nonces: usize) -> Ledger {
        let batch = Batch {
            nonces,
            seq_len: 1024,
            k_dim: 12,
            segments: 1,
        };
        Ledger::new(shape, batch, &plan(shape, &Layout::new(shape), batch).unwrap())
    }

    /// One more layer, last rows left aside.
    fn a_layer(of: fn(usize) -> Shape, nonces: usize) -> Ledger {
        let (two, three) = (counted(&of(2), nonces), counted(&of(3), nonces));
        Ledger {
            launches: three.launches - two.launches,
            product_bytes: three.product_bytes - two.product_bytes,
            other_bytes: three.other_bytes - two.other_bytes,
            extra_bytes: three.extra_bytes - two.extra_bytes,
            operations: three.operations - two.operations,
            other_operations: three.other_operations - two.other_operations,
        }
    }

    #[test]
    fn a_layer_is_eighteen_launches() {
        assert_eq!(a_layer(Shape::minimax_m2, 16).launches, 18);
        assert_eq!(a_layer(Shape::qwen3_235b, 16).launches, 18);
    }

    #[test]
    fn operations_are_two_for_every_active_weight() {
        for of in [Shape::minimax_m2, Shape::qwen3_235b] {
            let (layer, shape) = (a_layer(of, 16), of(1));
            let attention = 2.0 * 1025.0 * shape.q_width() as f64;
            let expected = 16.0 * 1024.0 * (2.0 * shape.active_weights() as f64 + attention);
            let found = layer.operations + layer.other_operations;
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} of {expected}");
        }
    }

    #[test]
    fn a_token_moves_its_rows_once_from_kernel_to_kernel_and_weights_are_read_once() {
        // Kilobytes as docs/benchmarks.md says.
        check(Shape::minimax_m2, 416.0);
        check(Shape::qwen3_235b, 501.0);
    }

    fn check(of: fn(usize) -> Shape, kilobytes: f64) {
        let (layer, shape) = (a_layer(of, 63), of(1));
        let [hidden, q, kv, inner, experts, top_k] = [
            shape.hidden,
            shape.q_width(),
            shape.kv_width(),
            shape.inner,
            shape.experts,
            shape.top_k,
        ]
        .map(|size| size as f64);
        // A code and its share of a scale.
        let code = 1.0 + 4.0 / 128.0;
        let (to_codes, qkv) = (2.0 + code, q + 2.0 * kv);
        let attention = (to_codes + code) * (hidden + q) + 2.0 * qkv + 4.0 * (q + kv) + 2.0 * (qkv + q) + 2.0 * hidden;
        let norms = 16.0 * hidden;
        let routes = 2.0 * hidden + 8.0 * experts + 24.0 * top_k;
        let each = 4.0 * inner + (4.0 + code) * inner + code * inner + 2.0 * hidden + 2.0 * hidden;
        let mixture = (to_codes + code) * hidden + top_k * each + 2.0 * hidden;
        let expected = attention + norms + routes + mixture;
        let weights = Layout::new(&shape).bytes as f64;
        let found = ((layer.product_bytes + layer.other_bytes) as f64 - weights) / (63.0 * 1024.0);
        assert!((found / expected - 1.0).abs() < 0.002, "{found} of {expected}");
        assert!((found / 1000.0 - kilobytes).abs() < 1.0, "{found}");
    }

    #[test]
    fn what_the_proof_adds_is_below_a_percent_of_the_bytes() {
        for shape in [Shape::minimax_m2(12), Shape::qwen3_235b(12)] {
            let share = counted(&shape, 16).extra_share();
            assert!(share < 0.01, "{share}");
        }
    }
}
