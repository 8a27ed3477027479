//! Where weights lie in device memory, and where they come from: a recipe's tag or the safetensors files of a published model.
//!
//! What is multiplied together lies together: queries, keys and values are one matrix, gate and up another.

use super::{Error, Shape};
use crate::decoder;
use half::bf16;
use memmap2::Mmap;
use safetensors::{
    Dtype, SafeTensors,
    tensor::{TensorView, serialize_to_file},
};
use sha2::{Digest as _, Sha256};
use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

/// Start of every matrix: a multiple of this many bytes.
const ALIGN: u64 = 256;
/// Tensors of a file that [`publish`] writes.
const FILE_TENSORS: usize = 20;

/// Offsets in bytes from the start of [`super::plan::Buffer::Weights`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// By layer.
    pub layers: Vec<Layer>,
    /// Final norm.
    pub norm: u64,
    /// All of them.
    pub bytes: u64,
    /// What is to be copied where.
    pub parts: Vec<Part>,
}

/// One layer's offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Norm before attention.
    pub input_norm: u64,
    /// Queries, keys, values: [q + 2 kv, hidden].
    pub qkv: u64,
    /// Norm of a query head.
    pub q_norm: Option<u64>,
    /// Norm of a key head.
    pub k_norm: Option<u64>,
    /// [hidden, q].
    pub o: u64,
    /// Norm before the MLP.
    pub post_norm: u64,
    /// Gate and up: [2 inner, hidden].
    pub gate_up: u64,
    /// [hidden, inner].
    pub down: u64,
}

/// One tensor of the model and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// As recipes name it, for example `layers.0.self_attn.q_proj`.
    pub name: String,
    /// [out, in] of a linear map, or [length] of a norm.
    pub shape: Vec<usize>,
    /// Bytes from the start.
    pub offset: u64,
}

impl Part {
    /// Bytes in bf16.
    pub fn bytes(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}

impl Layout {
    /// Of a model.
    pub fn new(shape: &Shape) -> Self {
        let mut cursor = Cursor::default();
        let (hidden, q, kv) = (shape.hidden, shape.q_width(), shape.kv_width());
        let layers = (0..shape.layers)
            .map(|index| {
                let named = |name: &str| format!("layers.{index}.{name}");
                Layer {
                    input_norm: cursor.place(&[(named("input_layernorm"), vec![hidden])]),
                    qkv: cursor.place(&[
                        (named("self_attn.q_proj"), vec![q, hidden]),
                        (named("self_attn.k_proj"), vec![kv, hidden]),
                        (named("self_attn.v_proj"), vec![kv, hidden]),
                    ]),
                    q_norm: shape
                        .qk_norm
                        .then(|| cursor.place(&[(named("self_attn.q_norm"), vec![shape.head_dim])])),
                    k_norm: shape
                        .qk_norm
                        .then(|| cursor.place(&[(named("self_attn.k_norm"), vec![shape.head_dim])])),
                    o: cursor.place(&[(named("self_attn.o_proj"), vec![hidden, q])]),
                    post_norm: cursor.place(&[(named("post_attention_layernorm"), vec![hidden])]),
                    gate_up: cursor.place(&[
                        (named("mlp.gate_proj"), vec![shape.inner, hidden]),
                        (named("mlp.up_proj"), vec![shape.inner, hidden]),
                    ]),
                    down: cursor.place(&[(named("mlp.down_proj"), vec![hidden, shape.inner])]),
                }
            })
            .collect();
        let norm = cursor.place(&[("norm".to_owned(), vec![hidden])]);
        Self {
            layers,
            norm,
            bytes: cursor.end,
            parts: cursor.parts,
        }
    }
}

#[derive(Default)]
struct Cursor {
    end: u64,
    parts: Vec<Part>,
}

impl Cursor {
    /// Tensors that lie one after the other without a gap; where they begin.
    fn place(&mut self, tensors: &[(String, Vec<usize>)]) -> u64 {
        let start = self.end.next_multiple_of(ALIGN);
        self.end = start;
        for (name, shape) in tensors {
            let part = Part {
                name: name.clone(),
                shape: shape.clone(),
                offset: self.end,
            };
            self.end += part.bytes() as u64;
            self.parts.push(part);
        }
        start
    }
}

/// Takes a tensor: its name, its place among the weights, its bytes.
pub type Put<'a> = dyn FnMut(&str, u64, &[u8]) -> Result<(), Error> + 'a;

/// Where a model's weights come from.
pub trait Source {
    /// The elements of a tensor as bf16, little-endian, row-major.
    fn tensor(&self, part: &Part) -> Result<Cow<'_, [u8]>, Error>;
}

/// Weights that grow from a tag.
#[derive(Debug, Clone)]
pub struct Grown {
    /// The tag.
    pub tag: String,
    /// Name of the model, part of the seed strings.
    pub model: String,
}

impl Source for Grown {
    fn tensor(&self, part: &Part) -> Result<Cow<'_, [u8]>, Error> {
        let elements = decoder::tensor(&self.tag, &self.model, &part.name, &part.shape);
        Ok(Cow::Owned(
            elements
                .into_iter()
                .flat_map(|x| bf16::from_f32(x).to_le_bytes())
                .collect(),
        ))
    }
}

/// The safetensors files of a directory, mapped into memory: nothing is read before it is copied.
#[derive(Debug)]
pub struct Published {
    files: Vec<Mmap>,
    /// Which file has a tensor.
    index: BTreeMap<String, usize>,
}

impl Published {
    /// Opens every `*.safetensors` of a directory.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let unreadable = |what: &Path, error: &dyn std::fmt::Display| {
            Error::Weights(format!("{} cannot be read: {error}", what.display()))
        };
        let mut paths: Vec<_> = fs::read_dir(directory)
            .map_err(|error| unreadable(directory, &error))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            .collect();
        paths.sort();
        let mut published = Self {
            files: Vec::new(),
            index: BTreeMap::new(),
        };
        for path in paths {
            let map = map(&path).map_err(|error| unreadable(&path, &error))?;
            let tensors = SafeTensors::deserialize(&map).map_err(|error| unreadable(&path, &error))?;
            for name in tensors.names() {
                published.index.insert(name.to_owned(), published.files.len());
            }
            published.files.push(map);
        }
        if published.index.is_empty() {
            return Err(Error::Weights(format!(
                "{} holds no *.safetensors",
                directory.display()
            )));
        }
        Ok(published)
    }
}

/// As publishers name a tensor.
fn published_name(part: &Part) -> String {
    format!("model.{}.weight", part.name)
}

/// Maps a file.
#[expect(
    unsafe_code,
    reason = "a mapped file may change under us: model files are mounted read-only, and what is read from them is only copied"
)]
fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = fs::File::open(path)?;
    // SAFETY: the bytes are parsed with bounds checked and copied to the device; nothing here relies on their staying the same.
    unsafe { Mmap::map(&file) }
}

impl Source for Published {
    fn tensor(&self, part: &Part) -> Result<Cow<'_, [u8]>, Error> {
        let name = published_name(part);
        let wrong = |what: String| Error::Weights(format!("tensor {name} {what}"));
        let file = self
            .index
            .get(&name)
            .ok_or_else(|| wrong("is in none of the files".into()))?;
        let view = SafeTensors::deserialize(&self.files[*file])
            .and_then(|tensors| tensors.tensor(&name))
            .map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if view.shape() != part.shape {
            return Err(wrong(format!(
                "has shape {:?}: {:?} is needed",
                view.shape(),
                part.shape
            )));
        }
        match view.dtype() {
            Dtype::BF16 => Ok(Cow::Borrowed(view.data())),
            Dtype::F32 => Ok(Cow::Owned(
                view.data()
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .flat_map(|x| bf16::from_f32(f32::from_le_bytes(*x)).to_le_bytes())
                    .collect(),
            )),
            other => Err(wrong(format!("is {other:?}: BF16 or F32 is needed"))),
        }
    }
}

/// Writes a model as publishers do: `config.json` and safetensors files of a few tensors each.
pub fn publish(directory: &Path, shape: &Shape, source: &dyn Source) -> Result<(), Error> {
    let unwritable =
        |error: &dyn std::fmt::Display| Error::Weights(format!("{} cannot be written: {error}", directory.display()));
    let config = serde_json::json!({
        "model_type": if shape.qk_norm { "qwen3" } else { "llama" },
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.inner,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    });
    fs::write(directory.join("config.json"), config.to_string()).map_err(|error| unwritable(&error))?;
    for (file, parts) in Layout::new(shape).parts.chunks(FILE_TENSORS).enumerate() {
        let bytes = parts
            .iter()
            .map(|part| source.tensor(part))
            .collect::<Result<Vec<_>, _>>()?;
        let views = parts
            .iter()
            .zip(&bytes)
            .map(|(part, bytes)| {
                Ok((
                    published_name(part),
                    TensorView::new(Dtype::BF16, part.shape.clone(), bytes)?,
                ))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        views
            .and_then(|views| serialize_to_file(views, None, &directory.join(format!("model-{file:05}.safetensors"))))
            .map_err(|error| unwritable(&error))?;
    }
    Ok(())
}

/// SHA-256 of weights as they are on the device, in the layout's order: what two hosts with the same model share.
#[derive(Debug, Default)]
pub(super) struct Digest(Sha256);

impl Digest {
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.update(name.as_bytes());
        self.0.update([0]);
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// The digest of a model's weights: names, each with a zero byte after it, and bf16 elements, in the layout's order.
pub fn digest(layout: &Layout, source: &dyn Source) -> Result<String, Error> {
    let mut digest = Digest::default();
    for part in &layout.parts {
        digest.add(&part.name, &source.tensor(part)?);
    }
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Recipe;

    fn shape() -> Shape {
        Shape::try_from(&Recipe::TinyQwen3Dense.config()).unwrap()
    }

    fn grown() -> Grown {
        Grown {
            tag: "public-tiny-v1".into(),
            model: "tiny_qwen3_dense".into(),
        }
    }

    #[test]
    fn every_tensor_of_the_recipe_has_a_place_of_its_own() {
        let config = Recipe::TinyQwen3Dense.config();
        let layout = Layout::new(&shape());
        let mut wanted: Vec<_> = decoder::tensors(&config)
            .into_iter()
            .map(|spec| (spec.name, spec.shape))
            .collect();
        let mut placed: Vec<_> = layout
            .parts
            .iter()
            .map(|part| (part.name.clone(), part.shape.clone()))
            .collect();
        wanted.sort();
        placed.sort();
        assert_eq!(placed, wanted);
        for pair in layout.parts.windows(2) {
            assert!(pair[0].offset + pair[0].bytes() as u64 <= pair[1].offset);
        }
        assert_eq!(layout.layers[0].qkv % ALIGN, 0);
    }

    #[test]
    fn published_files_are_the_grown_weights_again() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&shape());
        publish(directory.path(), &shape(), &grown()).unwrap();
        let published = Published::open(directory.path()).unwrap();
        assert_eq!(digest(&layout, &published), digest(&layout, &grown()));
        let other = Grown {
            tag: "another".into(),
            ..grown()
        };
        assert_ne!(digest(&layout, &published), digest(&layout, &other));
    }

    #[test]
    fn what_is_missing_or_misshapen_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&shape());
        assert!(
            Published::open(directory.path())
                .unwrap_err()
                .to_string()
                .contains("no *.safetensors")
        );
        publish(directory.path(), &shape(), &grown()).unwrap();
        let published = Published::open(directory.path()).unwrap();
        let unknown = Part {
            name: "layers.9.mlp.up_proj".into(),
            ..layout.parts[1].clone()
        };
        let missing = published.tensor(&unknown).unwrap_err();
        assert!(
            missing.to_string().contains("layers.9.mlp.up_proj.weight is in none"),
            "{missing}"
        );
        let wider = Part {
            shape: vec![1, 2],
            ..layout.parts[1].clone()
        };
        assert!(published.tensor(&wider).unwrap_err().to_string().contains("has shape"));
        fs::write(directory.path().join("torn.safetensors"), [255; 64]).unwrap();
        assert!(
            Published::open(directory.path())
                .unwrap_err()
                .to_string()
                .contains("torn")
        );
    }
}
