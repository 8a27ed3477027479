//! The loaded model: what `Prepare` asks for, made once.

use super::weights::{self, Source};
use kernels::{
    decoder::{Dtype, ParseDtypeError},
    prefill_v2::{self, PrefillV2},
    scheme::{Round, Scheme as _},
};
use proto::v1::{PrepareRequest, StartRequest};
use std::sync::Arc;
use thiserror::Error;
use tonic::Status;

/// Why `Prepare` was refused.
#[derive(Debug, Error)]
pub enum Error {
    /// This engine computes another scheme.
    #[error("scheme {0:?} is not computed here: use {name}", name = prefill_v2::NAME)]
    Scheme(String),
    /// This engine runs elsewhere.
    #[error("device {0:?} is not driven by this engine: use CPU")]
    Device(String),
    /// No such number type.
    #[error("dtype")]
    Dtype(#[source] ParseDtypeError),
    /// The weights do not load.
    #[error("weights")]
    Weights(#[source] weights::Error),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::invalid_argument(text)
    }
}

/// A model in memory.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What was asked for.
    pub request: PrepareRequest,
    /// The scheme over it.
    pub scheme: Arc<PrefillV2>,
    /// Digest of its weights.
    pub weights_digest: String,
    /// Width of its hidden state.
    pub hidden_size: u32,
}

/// Loads; blocking.
pub fn load(request: PrepareRequest) -> Result<Loaded, Error> {
    if request.scheme != prefill_v2::NAME {
        return Err(Error::Scheme(request.scheme));
    }
    if !request.device.eq_ignore_ascii_case("cpu") {
        return Err(Error::Device(request.device));
    }
    let dtype: Dtype = request.dtype.parse().map_err(Error::Dtype)?;
    let source = Source::read(&request.weights_path).map_err(Error::Weights)?;
    let (model, weights_digest) = source.load();
    let hidden_size = model.config().hidden as u32;
    let scheme = Arc::new(PrefillV2::new(Arc::new(model), dtype));
    debug_assert_eq!(scheme.name(), request.scheme);
    Ok(Loaded {
        request,
        scheme,
        weights_digest,
        hidden_size,
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
        let loaded = load(wanted()).unwrap();
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
            let status = Status::from(load(request).unwrap_err());
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(field), "{}", status.message());
        }
    }
}
