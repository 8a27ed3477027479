//! The loaded model: what `Prepare` asks for, made once.

use super::weights::{self, Source};
use kernels::{
    decoder::{Dtype, ParseDtypeError},
    prefill_v2::{self, PrefillV2},
    scheme::{Round, Scheme},
};
use proto::v1::{PrepareRequest, StartRequest};
use std::{io, path::PathBuf, sync::Arc};
use thiserror::Error;
use tonic::Status;

/// Why `Prepare` was refused.
#[derive(Debug, Error)]
pub enum Error {
    /// This engine computes another scheme.
    #[error("scheme {0:?} is not computed here: use {name}", name = prefill_v2::NAME)]
    Scheme(String),
    /// This engine runs elsewhere.
    #[error("device {device:?} is not driven by this engine: use {}", .driven.join(" or "))]
    Device {
        /// Asked for.
        device: String,
        /// Driven here.
        driven: Vec<&'static str>,
    },
    /// No such number type.
    #[error("dtype")]
    Dtype(#[source] ParseDtypeError),
    /// A number type that the device does not compute in.
    #[error("dtype {0:?} is not computed on a GPU: use BF16")]
    DtypeOnGpu(String),
    /// The weights do not load.
    #[error("weights")]
    Weights(#[source] weights::Error),
    /// The GPU does not take the model.
    #[error("CUDA")]
    Gpu(#[source] kernels::cuda::Error),
    /// The GPU cannot be kept from other engines.
    #[error("cannot lock {path}: check that the run folder may be written")]
    Lock {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = chain(&error);
        match error {
            // The request may be right; it is the machine that is not.
            Error::Gpu(_) | Error::Lock { .. } => Self::failed_precondition(text),
            _ => Self::invalid_argument(text),
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A model in memory.
#[derive(Clone)]
pub struct Loaded {
    /// What was asked for.
    pub request: PrepareRequest,
    /// The scheme over it.
    pub scheme: Arc<dyn Scheme>,
    /// Digest of its weights.
    pub weights_digest: String,
    /// Width of its hidden state.
    pub hidden_size: u32,
    /// Longest sequence a round may have.
    pub max_seq_len: u32,
    /// What is kept from others as long as the model is loaded.
    pub held: Option<Arc<dyn Send + Sync>>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("request", &self.request)
            .field("weights_digest", &self.weights_digest)
            .finish_non_exhaustive()
    }
}

/// Loads models onto a device that not every binary drives; blocking.
pub type Loader = Arc<dyn Fn(PrepareRequest) -> Result<Loaded, Error> + Send + Sync>;

/// Loads onto the CPU, or by `cuda` onto a GPU; blocking.
pub fn load(request: PrepareRequest, cuda: Option<&Loader>) -> Result<Loaded, Error> {
    if request.scheme != prefill_v2::NAME {
        return Err(Error::Scheme(request.scheme));
    }
    match (request.device.to_ascii_uppercase().as_str(), cuda) {
        ("CPU", _) => on_cpu(request),
        ("CUDA", Some(load)) => load(request),
        _ => Err(Error::Device {
            device: request.device,
            driven: ["CPU"].into_iter().chain(cuda.map(|_| "CUDA")).collect(),
        }),
    }
}

fn on_cpu(request: PrepareRequest) -> Result<Loaded, Error> {
    let dtype: Dtype = request.dtype.parse().map_err(Error::Dtype)?;
    let source = Source::read(&request.weights_path).map_err(Error::Weights)?;
    let (model, weights_digest) = source.load();
    let hidden_size = model.config().hidden as u32;
    Ok(Loaded {
        request,
        scheme: Arc::new(PrefillV2::new(Arc::new(model), dtype)),
        weights_digest,
        hidden_size,
        max_seq_len: kernels::scheme::MAX_SEQ_LEN as u32,
        held: None,
    })
}

/// Whether a second `Prepare` asks for what is there; the cap may differ and is then taken over.
pub fn is_same(loaded: &PrepareRequest, wanted: &PrepareRequest) -> bool {
    let without_cap = |request: &PrepareRequest| PrepareRequest {
        max_nonces_per_second: 0,
        ..request.clone()
    };
    without_cap(loaded) == without_cap(wanted)
}

/// The round of a request.
pub fn round(request: &StartRequest) -> Result<Round, Status> {
    let size = |name: &str, value: i32| {
        usize::try_from(value).map_err(|_| Status::invalid_argument(format!("{name} is {value}: it must be positive")))
    };
    Ok(Round {
        block_hash: request.seed.clone(),
        public_key: request.public_key.clone(),
        seq_len: size("seq_len", request.seq_len)?,
        k_dim: size("k_dim", request.k_dim)?,
        stronger_rng: request.stronger_rng,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> PrepareRequest {
        PrepareRequest {
            scheme: "prefill_v2".into(),
            model: "gonka-fleet/tiny_llama_dense".into(),
            weights_path: "recipe:tiny_llama_dense:public-tiny-v1".into(),
            dtype: "F32".into(),
            device: "CPU".into(),
            max_nonces_per_second: 7,
        }
    }

    #[test]
    fn a_cap_does_not_make_another_model() {
        let loaded = load(wanted(), None).unwrap();
        assert_eq!(loaded.hidden_size, 64);
        let faster = PrepareRequest {
            max_nonces_per_second: 0,
            ..wanted()
        };
        assert!(is_same(&loaded.request, &faster));
        let other = PrepareRequest {
            dtype: "BF16".into(),
            ..wanted()
        };
        assert!(!is_same(&loaded.request, &other));
    }

    #[test]
    fn what_this_engine_cannot_do_is_said_with_its_cause() {
        for (field, request) in [
            (
                "scheme",
                PrepareRequest {
                    scheme: "decode_v3".into(),
                    ..wanted()
                },
            ),
            (
                "device",
                PrepareRequest {
                    device: "CUDA".into(),
                    ..wanted()
                },
            ),
            (
                "dtype",
                PrepareRequest {
                    dtype: "FP4".into(),
                    ..wanted()
                },
            ),
            (
                "recipe",
                PrepareRequest {
                    weights_path: "recipe:huge:x".into(),
                    ..wanted()
                },
            ),
        ] {
            let status = Status::from(load(request, None).unwrap_err());
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(field), "{}", status.message());
        }
    }
}
