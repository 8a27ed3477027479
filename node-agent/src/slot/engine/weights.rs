//! Which weights an engine loads, and their digest.
//!
//! A source is `recipe:NAME:TAG`, or the path of a small JSON or YAML file with the keys `recipe` and `tag`, or a
//! folder that holds such a file as `recipe.yaml`.

use kernels::decoder::{Model, Recipe, tensor, tensors};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Longest recipe file that is read.
const MAX_FILE: u64 = 65_536;

/// Why weights could not be loaded.
#[derive(Debug, Error)]
pub enum Error {
    /// The text after `recipe:` has no tag.
    #[error("weights {0:?}: write recipe:NAME:TAG, or the path of a recipe file")]
    Source(String),
    /// The file cannot be read.
    #[error("cannot read the recipe {path}: mount the weights there")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is too long to be a recipe.
    #[error("the recipe {path} has {length} bytes: at most {MAX_FILE} are read")]
    TooLong {
        /// Where.
        path: PathBuf,
        /// Its size.
        length: u64,
    },
    /// The file is not a recipe.
    #[error("the recipe {path} does not parse: it needs the keys recipe and tag")]
    Parse {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_yaml::Error,
    },
    /// The recipe is not known.
    #[error("the weights name an unknown recipe")]
    Recipe(#[source] kernels::decoder::UnknownRecipe),
}

/// Weights that can be grown without a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Shape.
    pub recipe: Recipe,
    /// Seed of the weights.
    pub tag: String,
}

#[derive(Deserialize)]
struct RecipeFile {
    recipe: String,
    tag: String,
}

impl Source {
    /// Reads the source a flag or a request names.
    pub fn read(text: &str) -> Result<Self, Error> {
        let (name, tag) = match text.strip_prefix("recipe:") {
            Some(rest) => rest
                .split_once(':')
                .map(|(name, tag)| (name.to_owned(), tag.to_owned()))
                .ok_or_else(|| Error::Source(text.to_owned()))?,
            None => read_file(Path::new(text))?,
        };
        let recipe = name.parse().map_err(Error::Recipe)?;
        Ok(Self { recipe, tag })
    }

    /// Grows the weights.
    pub fn load(&self) -> (Model, String) {
        (Model::from_recipe(&self.recipe, &self.tag), self.digest())
    }

    /// `sha256:` over every tensor in the order of names: name, zero byte, dimensions as little-endian u64, elements as
    /// little-endian f32.
    pub fn digest(&self) -> String {
        let mut specs = tensors(&self.recipe.config());
        specs.sort_by(|left, right| left.name.cmp(&right.name));
        let mut hash = Sha256::new();
        for spec in &specs {
            hash.update(spec.name.as_bytes());
            hash.update([0]);
            for &dimension in &spec.shape {
                hash.update((dimension as u64).to_le_bytes());
            }
            for element in tensor(&self.tag, self.recipe.name(), &spec.name, &spec.shape) {
                hash.update(element.to_le_bytes());
            }
        }
        format!("sha256:{}", hex::encode(hash.finalize()))
    }
}

fn read_file(path: &Path) -> Result<(String, String), Error> {
    let path = if path.is_dir() {
        path.join("recipe.yaml")
    } else {
        path.to_owned()
    };
    let read = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let length = std::fs::metadata(&path).map_err(read)?.len();
    if length > MAX_FILE {
        return Err(Error::TooLong { path, length });
    }
    let text = std::fs::read_to_string(&path).map_err(read)?;
    let file: RecipeFile = serde_yaml::from_str(&text).map_err(|source| Error::Parse { path, source })?;
    Ok((file.recipe, file.tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_a_file_and_a_folder_name_the_same_weights() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipe.yaml");
        std::fs::write(&file, "recipe: tiny_qwen3_dense\ntag: public-tiny-v1\nowner: ignored\n").unwrap();
        let flag = Source::read("recipe:tiny_qwen3_dense:public-tiny-v1").unwrap();
        assert_eq!(Source::read(&file.display().to_string()).unwrap(), flag);
        assert_eq!(Source::read(&folder.path().display().to_string()).unwrap(), flag);
        let json = folder.path().join("recipe.json");
        std::fs::write(&json, r#"{"recipe":"tiny_qwen3_dense","tag":"public-tiny-v1"}"#).unwrap();
        assert_eq!(Source::read(&json.display().to_string()).unwrap(), flag);
    }

    #[test]
    fn the_digest_names_shape_and_tag() {
        let digest = |text: &str| Source::read(text).unwrap().digest();
        let first = digest("recipe:tiny_llama_dense:a");
        assert_eq!(first, digest("recipe:tiny_llama_dense:a"));
        assert_ne!(first, digest("recipe:tiny_llama_dense:b"));
        assert_ne!(first, digest("recipe:tiny_qwen3_moe:a"));
        assert_eq!(first.len(), "sha256:".len() + 64);
    }

    #[test]
    fn what_is_no_source_says_what_to_write() {
        assert!(matches!(Source::read("recipe:tiny_qwen3_dense"), Err(Error::Source(_))));
        assert!(matches!(Source::read("recipe:huge:tag"), Err(Error::Recipe(_))));
        assert!(matches!(Source::read("/nowhere/at/all"), Err(Error::Read { .. })));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("big");
        std::fs::write(&file, vec![b'a'; 70_000]).unwrap();
        assert!(matches!(
            Source::read(&file.display().to_string()),
            Err(Error::TooLong { .. })
        ));
    }
}
