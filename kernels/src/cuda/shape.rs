//! The dense decoders these kernels run: shape and constants, from a recipe's or from a published model's configuration.

use super::Error;
use crate::decoder::Config;
use serde::Deserialize;

/// Widths the attention kernels are built for.
pub const HEAD_DIMS: [usize; 4] = [16, 32, 64, 128];
/// Widest hidden state: a row stays in the registers of one block.
pub const MAX_HIDDEN: usize = 16_384;
/// Longest sequence.
pub const MAX_SEQ_LEN: usize = 8_192;

/// Most rows of a batch, nonces times tokens: some kernels count them in the grid's second dimension.
pub const MAX_ROWS: usize = 65_535;
/// Most numbers of an artifact: one warp turns them.
pub const MAX_K_DIM: usize = 32;

/// A dense decoder with grouped key and value heads.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Width of the hidden state.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Inner width of the MLP.
    pub inner: usize,
    /// Added to the mean square in every norm.
    pub eps: f32,
    /// Base of the rotary embedding.
    pub theta: f64,
    /// Whether queries and keys are normed per head.
    pub qk_norm: bool,
}

impl Shape {
    /// Width of all query heads.
    pub const fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of queries, keys and values together.
    pub const fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Multiplications and additions of one nonce, all rows of all layers: products and exact causal attention.
    pub fn operations(&self, seq_len: usize) -> f64 {
        let (hidden, tokens) = (self.hidden as f64, seq_len as f64);
        let weights = hidden * (self.qkv_width() + self.q_width() + 3 * self.inner) as f64;
        let attention = 2.0 * self.q_width() as f64 * (tokens + 1.0);
        self.layers as f64 * tokens * (2.0 * weights + attention)
    }

    /// Nonces of a batch that a Hopper GPU computes in about a seventh of a second: two of them are on the device when a round is stopped,
    /// and what they would have given is lost.
    pub fn batch(&self, seq_len: usize) -> usize {
        const SECONDS: f64 = 0.14;
        const RATE: f64 = 6e14;
        const MOST: f64 = 64.0;
        let in_time = (SECONDS * RATE / self.operations(seq_len)).clamp(1.0, MOST) as usize;
        in_time.min(MAX_ROWS / seq_len.max(1)).max(1)
    }

    /// Reads `config.json` of a published model (`transformers`' names). Qwen3 and Llama; everything that would change the arithmetic is refused.
    pub fn from_published(json: &[u8]) -> Result<Self, Error> {
        let published: Published = serde_json::from_slice(json)
            .map_err(|error| Error::Shape(format!("config.json cannot be read: {error}")))?;
        published.shape()
    }

    fn checked(self) -> Result<Self, Error> {
        let refuse = |what: String| Err(Error::Shape(what));
        for (name, size, of) in [
            ("hidden width", self.hidden, 8),
            ("layers", self.layers, 1),
            ("heads", self.heads, 1),
            ("key heads", self.kv_heads, 1),
            ("inner width", self.inner, 8),
        ] {
            if size == 0 || !size.is_multiple_of(of) {
                return refuse(format!("{name} is {size}: a multiple of {of} is needed"));
            }
        }
        if self.hidden > MAX_HIDDEN {
            return refuse(format!("hidden width is {}: at most {MAX_HIDDEN}", self.hidden));
        }
        if !HEAD_DIMS.contains(&self.head_dim) {
            return refuse(format!(
                "head width is {}: one of {HEAD_DIMS:?} is needed",
                self.head_dim
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return refuse(format!(
                "{} key heads do not divide {} heads",
                self.kv_heads, self.heads
            ));
        }
        if !(self.eps.is_finite() && self.eps >= 0.0 && self.theta.is_finite() && self.theta > 0.0) {
            return refuse(format!("eps {} or theta {} is out of range", self.eps, self.theta));
        }
        Ok(self)
    }
}

impl TryFrom<&Config> for Shape {
    type Error = Error;

    fn try_from(config: &Config) -> Result<Self, Error> {
        if config.moe.is_some() {
            return Err(Error::Shape("it has experts: these kernels run dense models".into()));
        }
        Self {
            hidden: config.hidden,
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            inner: config.intermediate,
            eps: config.eps as f32,
            theta: config.theta,
            qk_norm: config.qk_norm,
        }
        .checked()
    }
}

/// What `config.json` says. Unknown fields are other people's; those that change what is computed are named here.
#[derive(Debug, Deserialize)]
struct Published {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<RopeParameters>,
    quantization_config: Option<serde_json::Value>,
}

/// Where newer configurations keep the rotary embedding.
#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl Published {
    fn shape(self) -> Result<Shape, Error> {
        let qk_norm = match self.model_type.as_str() {
            "qwen3" => true,
            "llama" => false,
            other => {
                return Err(Error::Shape(format!(
                    "model_type is {other:?}: qwen3 or llama is needed"
                )));
            }
        };
        let rope = self.rope_parameters.as_ref();
        let scaled = rope
            .and_then(|rope| rope.rope_type.as_deref())
            .is_some_and(|kind| kind != "default");
        for (differs, field) in [
            (self.hidden_act != "silu", "hidden_act"),
            (self.attention_bias, "attention_bias"),
            (self.mlp_bias, "mlp_bias"),
            (self.use_sliding_window, "use_sliding_window"),
            (self.rope_scaling.is_some() || scaled, "rope_scaling"),
            (self.quantization_config.is_some(), "quantization_config"),
        ] {
            if differs {
                return Err(Error::Shape(format!(
                    "{field} of config.json asks for arithmetic these kernels do not have"
                )));
            }
        }
        if self.num_attention_heads == 0 {
            return Err(Error::Shape("num_attention_heads is 0".into()));
        }
        Shape {
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self
                .head_dim
                .unwrap_or_else(|| self.hidden_size / self.num_attention_heads),
            inner: self.intermediate_size,
            eps: self.rms_norm_eps as f32,
            theta: self.rope_theta.or_else(|| rope?.rope_theta).unwrap_or(10_000.0),
            qk_norm,
        }
        .checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Recipe;

    /// The 0.6-billion-parameter model of the family, as published.
    const QWEN3: &str = r#"{"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"head_dim":128,"hidden_act":"silu","hidden_size":1024,
        "intermediate_size":3072,"max_window_layers":28,"model_type":"qwen3","num_attention_heads":16,"num_hidden_layers":28,"num_key_value_heads":8,
        "rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,"tie_word_embeddings":true,"torch_dtype":"bfloat16","use_sliding_window":false}"#;

    #[test]
    fn a_published_configuration_gives_its_shape() {
        let shape = Shape::from_published(QWEN3.as_bytes()).unwrap();
        assert_eq!((shape.hidden, shape.layers, shape.qkv_width()), (1024, 28, 4096));
        assert!(shape.qk_norm && (shape.theta - 1e6).abs() < 1e-6);
    }

    #[test]
    fn arithmetic_that_is_not_here_is_refused_by_name() {
        for (from, to, named) in [
            (
                r#""attention_bias":false"#,
                r#""attention_bias":true"#,
                "attention_bias",
            ),
            (
                r#""rope_scaling":null"#,
                r#""rope_scaling":{"type":"yarn"}"#,
                "rope_scaling",
            ),
            (r#""model_type":"qwen3""#, r#""model_type":"qwen3_moe""#, "qwen3_moe"),
            (r#""hidden_act":"silu""#, r#""hidden_act":"gelu""#, "hidden_act"),
            (r#""head_dim":128"#, r#""head_dim":80"#, "head width is 80"),
            (
                r#""num_key_value_heads":8"#,
                r#""num_key_value_heads":5"#,
                "do not divide",
            ),
            (r#""hidden_size":1024"#, r#""hidden_size":1020"#, "hidden width is 1020"),
        ] {
            let error = Shape::from_published(QWEN3.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(Shape::from_published(b"{").is_err());
    }

    #[test]
    fn a_batch_is_as_large_as_a_stop_may_cost() {
        let small = Shape::from_published(QWEN3.as_bytes()).unwrap();
        assert!(
            (small.operations(1024) / 1.02e12 - 1.0).abs() < 0.01,
            "{}",
            small.operations(1024)
        );
        assert_eq!(small.batch(1024), 63, "the grid has no more rows");
        let large = Shape {
            hidden: 4096,
            layers: 36,
            heads: 32,
            inner: 12_288,
            ..small
        };
        assert!(
            (large.operations(1024) / 14.53e12 - 1.0).abs() < 0.01,
            "{}",
            large.operations(1024)
        );
        assert_eq!(large.batch(1024), 5);
    }

    #[test]
    fn experts_are_refused() {
        assert!(Shape::try_from(&Recipe::TinyQwen3Moe.config()).is_err());
        assert!(Shape::try_from(&Recipe::TinyQwen3Dense.config()).is_ok());
    }
}
