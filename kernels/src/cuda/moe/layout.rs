//! Where weights lie in device memory: codes and scales of what is multiplied together next to each other, each in one piece.

use crate::{
    cuda::{Error, weights},
    fp8::GROUP,
    moe::{Matrix, QkNorm, Scoring, Shape, Source},
};
use half::bf16;

/// Start of every tensor: a multiple of this many bytes.
const ALIGN: u64 = 256;

/// A matrix in eight bits, or one of each expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset of the codes.
    pub codes: u64,
    /// Offset of the scales.
    pub scales: u64,
}

/// One layer's offsets beside those of the norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Queries, keys, values: [q + 2 kv][hidden].
    pub qkv: Place,
    /// [hidden][q].
    pub o: Place,
    /// Three parts of [expert][hidden] in bf16.
    pub router: u64,
    /// [expert], single precision.
    pub bias: Option<u64>,
    /// Gate and up of each expert: [expert][2 inner][hidden].
    pub gate_up: Place,
    /// [expert][hidden][inner].
    pub down: Place,
}

/// Offsets in bytes from the start of the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Norms, as the dense steps know them.
    pub norms: weights::Layout,
    /// By layer.
    pub layers: Vec<Layer>,
    /// All of them.
    pub bytes: u64,
}

#[derive(Default)]
struct Cursor(u64);

impl Cursor {
    fn take(&mut self, bytes: usize) -> u64 {
        let start = self.0.next_multiple_of(ALIGN);
        self.0 = start + bytes as u64;
        start
    }

    fn matrix(&mut self, out: usize, inp: usize) -> Place {
        Place {
            codes: self.take(out * inp),
            scales: self.take(out * inp / GROUP / GROUP * 4),
        }
    }
}

impl Layout {
    /// Of a model.
    pub fn new(shape: &Shape) -> Self {
        let (mut cursor, mut layers) = (Cursor::default(), Vec::new());
        let norms = (0..shape.layers)
            .map(|_| {
                let layer = Layer {
                    qkv: cursor.matrix(shape.qkv_width(), shape.hidden),
                    o: cursor.matrix(shape.hidden, shape.q_width()),
                    router: cursor.take(6 * shape.experts * shape.hidden),
                    bias: (shape.scoring == Scoring::Sigmoid).then(|| cursor.take(4 * shape.experts)),
                    gate_up: cursor.matrix(shape.experts * 2 * shape.inner, shape.hidden),
                    down: cursor.matrix(shape.experts * shape.hidden, shape.inner),
                };
                layers.push(layer);
                let [q, k] = qk_norm_widths(shape);
                weights::Layer {
                    input_norm: cursor.take(2 * shape.hidden),
                    q_norm: Some(cursor.take(2 * q)),
                    k_norm: Some(cursor.take(2 * k)),
                    post_norm: cursor.take(2 * shape.hidden),
                    // The dense steps that multiply in bf16 are not taken.
                    qkv: layer.qkv.codes,
                    o: layer.o.codes,
                    gate_up: layer.gate_up.codes,
                    down: layer.down.codes,
                }
            })
            .collect();
        let norm = cursor.take(2 * shape.hidden);
        Self {
            norms: weights::Layout {
                layers: norms,
                norm,
                bytes: cursor.0,
                parts: Vec::new(),
            },
            layers,
            bytes: cursor.0,
        }
    }

    /// Hands over every tensor: its name, its place, its bytes.
    pub fn fill(&self, shape: &Shape, source: &dyn Source, put: &mut weights::Put<'_>) -> Result<(), Error> {
        for (layer, (at, norms)) in self.layers.iter().zip(&self.norms.layers).enumerate() {
            let [q, k] = qk_norm_widths(shape);
            for (name, offset, width) in [
                ("input_layernorm", Some(norms.input_norm), shape.hidden),
                ("self_attn.q_norm", norms.q_norm, q),
                ("self_attn.k_norm", norms.k_norm, k),
                ("post_attention_layernorm", Some(norms.post_norm), shape.hidden),
            ] {
                let name = format!("layers.{layer}.{name}");
                if let Some(offset) = offset {
                    put(&name, offset, &halves(&source.norm(&name, width)))?;
                }
            }
            let router = crate::moe::router_parts(&source.router(shape, layer));
            put(
                &format!("layers.{layer}.router"),
                at.router,
                &router.iter().flat_map(|part| halves(part)).collect::<Vec<_>>(),
            )?;
            if let Some(bias) = at.bias {
                put(
                    &format!("layers.{layer}.bias"),
                    bias,
                    &words(&source.bias(shape, layer)),
                )?;
            }
            for (place, matrices) in matrices(shape, at) {
                fill_matrices((shape, source, layer), place, &matrices, put)?;
            }
        }
        put("norm", self.norms.norm, &halves(&source.norm("norm", shape.hidden)))
    }
}

/// The matrices of a layer, by what lies in one piece.
fn matrices(shape: &Shape, at: &Layer) -> [(Place, Vec<Matrix>); 4] {
    let experts = 0..shape.experts;
    let gate_up = experts.clone().flat_map(|e| [Matrix::Gate(e), Matrix::Up(e)]).collect();
    [
        (at.qkv, vec![Matrix::Q, Matrix::K, Matrix::V]),
        (at.o, vec![Matrix::O]),
        (at.gate_up, gate_up),
        (at.down, experts.map(Matrix::Down).collect()),
    ]
}

fn fill_matrices(
    (shape, source, layer): (&Shape, &dyn Source, usize),
    mut to: Place,
    matrices: &[Matrix],
    put: &mut weights::Put<'_>,
) -> Result<(), Error> {
    for matrix in matrices {
        let (name, blocks) = (matrix.name(), source.matrix(shape, layer, *matrix));
        put(&format!("layers.{layer}.{name}"), to.codes, &blocks.codes)?;
        let scales = words(&blocks.scales);
        put(&format!("layers.{layer}.{name}_scale_inv"), to.scales, &scales)?;
        to.codes += blocks.codes.len() as u64;
        to.scales += scales.len() as u64;
    }
    Ok(())
}

const fn qk_norm_widths(shape: &Shape) -> [usize; 2] {
    match shape.qk_norm {
        QkNorm::Heads => [shape.head_dim; 2],
        QkNorm::Whole => [shape.q_width(), shape.kv_width()],
    }
}

fn halves(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()
}

fn words(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moe::Grown;

    #[test]
    fn every_byte_of_the_weights_is_filled_once_and_nothing_overlaps() {
        let shape = Shape {
            hidden: 128,
            heads: 2,
            kv_heads: 1,
            experts: 3,
            top_k: 2,
            inner: 128,
            ..Shape::minimax_m2(2)
        };
        let (layout, mut pieces) = (Layout::new(&shape), Vec::new());
        let source = Grown {
            tag: "t".into(),
            model: "m".into(),
        };
        layout
            .fill(&shape, &source, &mut |name, offset, bytes| {
                pieces.push((offset, bytes.len() as u64, name.to_owned()));
                Ok(())
            })
            .unwrap();
        pieces.sort();
        assert_eq!(pieces[0].0, 0);
        for pair in pieces.windows(2) {
            let end = pair[0].0 + pair[0].1;
            assert!(end <= pair[1].0 && pair[1].0 - end < ALIGN, "{pair:?}");
        }
        let (offset, bytes, _) = pieces.last().unwrap();
        assert_eq!(offset + bytes, layout.bytes);
    }

    #[test]
    fn a_layer_of_the_large_model_has_a_byte_a_weight_and_little_more() {
        let shape = Shape::minimax_m2(1);
        let weights = shape.hidden * (shape.qkv_width() + shape.q_width() + 3 * shape.inner * shape.experts);
        let more = Layout::new(&shape).bytes as f64 / weights as f64 - 1.0;
        assert!(more > 0.0 && more < 0.005, "{more}");
    }
}
