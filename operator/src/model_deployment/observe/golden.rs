//! The golden ConfigMap: `golden.json` with `{block_hash, public_key, seq_len, k_dim, artifacts: [{nonce, vector_b64}]}`.
//! Written by people: numbers may be strings, unknown fields are ignored, sizes are bounded. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::model_deployment::observed::{Golden, GoldenSeen};

/// Key in the ConfigMap.
const KEY: &str = "golden.json";
/// Artifacts one rehearsal can be asked for.
const MAX_ARTIFACTS: usize = 64;
/// Characters of one base64 vector.
const MAX_VECTOR: usize = 16_384;

/// Reads the ConfigMap.
pub fn read(config_map: &ConfigMap) -> GoldenSeen {
    let text = config_map.data.as_ref().and_then(|data| data.get(KEY));
    let Some(text) = text else {
        return unusable(format!("it has no key {KEY}"));
    };
    match parse(text) {
        Ok(golden) => GoldenSeen::Artifacts(golden),
        Err(detail) => unusable(detail),
    }
}

/// A ConfigMap that cannot be used, and why.
pub fn unusable(detail: String) -> GoldenSeen {
    GoldenSeen::Unusable { detail }
}

fn parse(text: &str) -> Result<Golden, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{KEY} is no JSON: {error}"))?;
    let string = |key: &str| {
        value[key]
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| format!("{KEY} has no text {key}"))
    };
    let number = |key: &str| integer(&value[key]).ok_or_else(|| format!("{KEY} has no number {key}"));
    let artifacts: BTreeMap<i32, String> = value["artifacts"]
        .as_array()
        .ok_or_else(|| format!("{KEY} has no list artifacts"))?
        .iter()
        .take(MAX_ARTIFACTS)
        .filter_map(|entry| {
            let vector = entry["vector_b64"].as_str().filter(|text| text.len() <= MAX_VECTOR)?;
            Some((integer(&entry["nonce"])?, vector.to_owned()))
        })
        .collect();
    if artifacts.is_empty() {
        return Err(format!("{KEY} has no artifact with nonce and vector_b64"));
    }
    Ok(Golden {
        block_hash: string("block_hash")?,
        public_key: string("public_key")?,
        seq_len: number("seq_len")?,
        k_dim: number("k_dim")?,
        stronger_rng: value["stronger_rng"].as_bool().unwrap_or_default(),
        artifacts,
    })
}

fn integer(value: &Value) -> Option<i32> {
    value
        .as_i64()
        .or_else(|| value.as_str()?.parse().ok())
        .and_then(|number| i32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(text: &str) -> ConfigMap {
        ConfigMap {
            data: Some(BTreeMap::from([(KEY.to_owned(), text.to_owned())])),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn numbers_may_be_texts_and_unknown_fields_are_ignored() {
        let text = r#"{"block_hash":"AB","public_key":"02","seq_len":"16","k_dim":12,"new":1,
                       "artifacts":[{"nonce":"3","vector_b64":"AAA="},{"nonce":4}]}"#;
        let GoldenSeen::Artifacts(golden) = read(&config_map(text)) else {
            panic!("it is golden")
        };
        assert_eq!((golden.seq_len, golden.k_dim), (16, 12));
        assert_eq!(golden.artifacts, BTreeMap::from([(3, "AAA=".to_owned())]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let detail = |text: &str| match read(&config_map(text)) {
            GoldenSeen::Unusable { detail } => detail,
            other => panic!("{other:?} is usable"),
        };
        assert!(detail("{").contains("no JSON"));
        assert!(detail(r#"{"artifacts":[]}"#).contains("no artifact"));
        assert!(detail(r#"{"artifacts":[{"nonce":1,"vector_b64":""}]}"#).contains("block_hash"));
        assert!(matches!(read(&ConfigMap::default()), GoldenSeen::Unusable { .. }));
    }
}
