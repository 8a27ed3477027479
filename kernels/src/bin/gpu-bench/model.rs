//! The models that are measured: shapes of published ones, random weights.

use kernels::{
    cuda::{
        Error, Shape,
        plan::Batch,
        weights::{Part, Source},
    },
    moe, rng, seed,
};
use std::borrow::Cow;

/// A model and how it is examined.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) seq_len: usize,
    /// Nonces of our batches.
    pub(crate) nonces: usize,
    /// Nonces of the replica's batches: the reference's own number.
    pub(crate) replica_nonces: usize,
}

/// The models of the table; on the simulated driver tiny ones under their names.
pub(crate) fn models(simulated: bool) -> [Model; 2] {
    let shapes = if simulated {
        [tiny(), tiny()]
    } else {
        [qwen3(4096, 36, 32, 12_288), qwen3(1024, 28, 16, 3072)]
    };
    let [(large, seq_len, nonces, replica_nonces), (small, ..)] = shapes.map(|shape| {
        if simulated {
            (shape, 8, 2, 2)
        } else {
            (shape, 1024, 0, 32)
        }
    });
    [("qwen3-8b", large), ("qwen3-0.6b", small)].map(|(name, shape)| Model {
        name,
        nonces: if simulated { nonces } else { shape.batch(seq_len) },
        shape,
        seq_len,
        replica_nonces,
    })
}

/// A layer of experts and the batch it computes.
pub(crate) struct Experts {
    pub(crate) name: &'static str,
    pub(crate) shape: moe::Shape,
    pub(crate) batch: Batch,
}

/// The layers of the table, each the first of a stack of two; on the simulated driver tiny ones under their names.
pub(crate) fn layers(simulated: bool) -> [Experts; 2] {
    [
        ("experts", moe::Shape::minimax_m2(2)),
        ("experts-qwen3-235b", moe::Shape::qwen3_235b(2)),
    ]
    .map(|(name, whole)| Experts {
        name,
        shape: if simulated { few(&whole) } else { whole },
        batch: Batch {
            nonces: if simulated { 2 } else { 63 },
            seq_len: if simulated { 4 } else { 1024 },
            k_dim: 12,
            segments: 1,
        },
    })
}

const fn few(whole: &moe::Shape) -> moe::Shape {
    moe::Shape {
        hidden: 128,
        heads: 2,
        kv_heads: 2,
        head_dim: 64,
        rotary: 64,
        experts: 4,
        top_k: 2,
        inner: 128,
        ..*whole
    }
}

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

fn tiny() -> Shape {
    Shape {
        kv_heads: 2,
        head_dim: 16,
        ..qwen3(64, 2, 4, 64)
    }
}

/// Random weights of any size in seconds: numbers drawn once, each tensor from another place of them. Their size is a recipe's, so that states stay
/// finite; no two tensors that meet are alike.
pub(crate) struct Drawn(Vec<f32>);

impl Drawn {
    /// A prime number of them: rows of no tensor repeat.
    const COUNT: usize = 4_194_301;

    pub(crate) fn new() -> Self {
        Self(rng::normal(1, Self::COUNT))
    }
}

impl Source for Drawn {
    fn tensor(&self, part: &Part) -> Result<Cow<'_, [u8]>, Error> {
        let first = seed::seed_from_string(&part.name) as usize % Self::COUNT;
        let count = part.shape.iter().product();
        let numbers = self.0[first..].iter().chain(self.0.iter().cycle()).take(count);
        let by = part.shape.get(1).map(|inner| 1.0 / (*inner as f32).sqrt());
        Ok(Cow::Owned(
            numbers
                .map(|x| by.map_or(1.0 + x / 10.0, |by| x * by))
                .flat_map(|x| half::bf16::from_f32(x).to_le_bytes())
                .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use kernels::cuda::MAX_ROWS;

    #[test]
    fn the_models_are_the_published_ones_and_batches_what_the_plan_picks() {
        let [large, small] = models(false);
        assert_eq!((large.name, large.shape.batch(1024)), ("qwen3-8b", large.nonces));
        assert!((large.shape.operations(1024) / 14.53e12 - 1.0).abs() < 0.01);
        assert!((small.shape.operations(1024) / 1.02e12 - 1.0).abs() < 0.01);
        assert_eq!((large.seq_len, small.seq_len), (1024, 1024));
        assert!(large.replica_nonces == 32 && small.nonces > 32);
    }

    #[test]
    fn the_layers_are_the_published_ones_and_fit_a_grid() {
        for (simulated, rows) in [(false, 64_512), (true, 8)] {
            for layer in layers(simulated) {
                assert_eq!(layer.shape.check(), Ok(()), "{}", layer.name);
                assert_eq!(
                    (layer.batch.nonces * layer.batch.seq_len, layer.shape.layers),
                    (rows, 2)
                );
                assert!(rows <= MAX_ROWS);
            }
        }
        assert_eq!(layers(false)[0].shape, moe::Shape::minimax_m2(2));
    }

    #[test]
    fn weights_are_random_and_of_the_size_that_keeps_states_finite() {
        let part = |name: &str, shape: &[usize]| Part {
            name: name.into(),
            shape: shape.into(),
            offset: 0,
        };
        let drawn = Drawn::new();
        let numbers = |part: &Part| -> Vec<f32> {
            let bytes = drawn.tensor(part).unwrap();
            assert_eq!(bytes.len(), part.bytes());
            let number = |x: &[u8; 2]| bf16::from_le_bytes(*x).to_f32();
            bytes.as_chunks::<2>().0.iter().map(number).collect()
        };
        // More than were drawn.
        let linear = numbers(&part("a", &[2100, 2048]));
        let square = linear.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / linear.len() as f64;
        assert!((square * 2048.0 - 1.0).abs() < 0.01, "{square}");
        assert_ne!(linear[..64], numbers(&part("b", &[1, 2048]))[..64]);
        let norm = numbers(&part("c", &[4096]));
        assert!((norm.iter().sum::<f32>() / 4096.0 - 1.0).abs() < 0.01);
    }
}
