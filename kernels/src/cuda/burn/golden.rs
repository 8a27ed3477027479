//! Tiny models whose artifacts and last hidden states are published (`kernels/vectors`), computed on the device and compared.

use crate::{
    artifact,
    cuda::{CudaPrefillV2, Device, Error, Shape, weights::Grown},
    decoder::Recipe,
    scheme::{Round, Scheme as _},
    statistics::distance,
};
use half::bf16;
use serde::Deserialize;

/// A part of `kernels/vectors/v2_tiny_models.json`; a test holds it to that.
const CASES: &str = include_str!("golden.json");
/// Nonces of a batch: fewer than a case has, so that several are in flight.
const BATCH: usize = 3;

/// Largest distance of an artifact, and of a hidden state by its length, from the published one: what two right implementations in bf16 differ.
pub const MOST_APART: f64 = 0.02;

#[derive(Debug, Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

/// One model with what it must give.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Recipe.
    pub model: String,
    weights_tag: String,
    block_hash: String,
    public_key: String,
    seq_len: usize,
    k_dim: usize,
    nonces: Vec<i64>,
    vector_b64_bf16_model: Vec<String>,
    final_normed_last_hidden_bf16_model_hex: String,
}

/// How far one model's results are from the published ones, at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Recipe.
    pub model: String,
    /// Distance of artifacts.
    pub artifacts: f64,
    /// Distance of hidden states, in lengths of the published ones.
    pub states: f64,
}

impl Golden {
    /// Whether both are near enough. A distance that is no number is not.
    pub fn holds(&self) -> bool {
        self.artifacts <= MOST_APART && self.states <= MOST_APART
    }
}

fn broken(what: &dyn std::fmt::Display) -> Error {
    Error::Shape(format!("the golden vectors do not fit: {what}"))
}

/// The models.
pub fn cases() -> Result<Vec<Case>, Error> {
    serde_json::from_str::<Cases>(CASES)
        .map(|cases| cases.cases)
        .map_err(|error| broken(&error))
}

impl Case {
    /// Computes it on a device.
    pub fn run(&self, device: Box<dyn Device>) -> Result<Golden, Error> {
        let recipe: Recipe = self.model.parse().map_err(|_| broken(&self.model))?;
        let source = Grown {
            tag: self.weights_tag.clone(),
            model: self.model.clone(),
        };
        let scheme = CudaPrefillV2::load(device, Shape::try_from(&recipe.config())?, &source, BATCH, self.seq_len)?;
        let round = Round {
            block_hash: self.block_hash.clone(),
            public_key: self.public_key.clone(),
            seq_len: self.seq_len,
            k_dim: self.k_dim,
            stronger_rng: false,
        };
        let made = scheme
            .prepare(&round)
            .and_then(|mut prepared| prepared.generate(&self.nonces))
            .map_err(|error| match error {
                crate::scheme::Error::Device(error) => error,
                other => broken(&other),
            })?;
        let states = scheme.last_states(&round, &self.nonces)?;
        Ok(Golden {
            model: self.model.clone(),
            artifacts: self.artifacts_apart(&made.artifacts)?,
            states: self.states_apart(&states)?,
        })
    }

    /// Not a number where one is missing: that is near to nothing.
    fn artifacts_apart(&self, made: &[crate::scheme::Artifact]) -> Result<f64, Error> {
        if made.len() != self.vector_b64_bf16_model.len() {
            return Ok(f64::NAN);
        }
        let mut most = 0.0;
        for (made, published) in made.iter().zip(&self.vector_b64_bf16_model) {
            let published = artifact::from_base64(published)
                .ok()
                .and_then(|bytes| artifact::decode(&bytes))
                .ok_or_else(|| broken(&"an artifact"))?;
            let apart = artifact::decode(&made.vector).map_or(f64::NAN, |made| distance(&made, &published));
            most = further(most, apart);
        }
        Ok(most)
    }

    fn states_apart(&self, states: &[f32]) -> Result<f64, Error> {
        let bytes = hex::decode(&self.final_normed_last_hidden_bf16_model_hex).map_err(|error| broken(&error))?;
        let published: Vec<f32> = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bits| bf16::from_le_bytes(*bits).to_f32())
            .collect();
        if published.len() != states.len() {
            return Err(broken(&"hidden states"));
        }
        let width = published.len() / self.nonces.len().max(1);
        let rows = published.chunks_exact(width).zip(states.chunks_exact(width));
        let apart = rows.map(|(published, found)| {
            let length = |pairs: &mut dyn Iterator<Item = f64>| pairs.map(|x| x * x).sum::<f64>().sqrt();
            let size = length(&mut published.iter().map(|x| f64::from(*x)));
            length(&mut published.iter().zip(found).map(|(a, b)| f64::from(a - b))) / size
        });
        Ok(apart.fold(0.0, further))
    }
}

/// The larger one; what is no number stays.
fn further(most: f64, apart: f64) -> f64 {
    if most.is_nan() || apart.is_nan() {
        f64::NAN
    } else {
        most.max(apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_cases_are_those_of_the_published_vectors() {
        let published: Value = serde_json::from_str(include_str!("../../../vectors/v2_tiny_models.json")).unwrap();
        let ours: Value = serde_json::from_str(CASES).unwrap();
        let ours = ours["cases"].as_array().unwrap();
        assert_eq!((ours.len(), cases().unwrap().len()), (2, 2));
        for case in ours {
            let all = published["cases"].as_array().unwrap();
            let theirs = all.iter().find(|theirs| theirs["model"] == case["model"]).unwrap();
            for field in ["weights_tag", "block_hash", "public_key", "k_dim", "nonces"] {
                assert_eq!(case[field], theirs[field], "{field}");
            }
            assert_eq!(case["seq_len"], theirs["config"]["seq_len"]);
            let run = &theirs["runs"][0];
            assert_eq!(case["vector_b64_bf16_model"], run["vector_b64_bf16_model"]);
            assert_eq!(
                case["final_normed_last_hidden_bf16_model_hex"],
                run["final_normed_last_hidden_bf16_model_bits"]["hex_le"]
            );
        }
    }
}
