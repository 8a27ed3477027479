//! Releases of the network and what their answers have in another shape than the recorded one: a table. The views make
//! the recorded shape; a row changes it before it is sent. How far a row can be trusted stands in it.

use crate::faults::Port;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strum::{Display, VariantArray};

/// A release of chain and DAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Display, Deserialize, VariantArray)]
pub enum Version {
    #[strum(serialize = "v0.2.13")]
    #[serde(rename = "v0.2.13")]
    V13,
    /// The recorded one.
    #[strum(serialize = "v0.2.14")]
    #[serde(rename = "v0.2.14")]
    V14,
    #[strum(serialize = "v0.2.15")]
    #[serde(rename = "v0.2.15")]
    V15,
    #[strum(serialize = "v0.2.16")]
    #[serde(rename = "v0.2.16")]
    V16,
    #[strum(serialize = "v0.2.17")]
    #[serde(rename = "v0.2.17")]
    V17,
}

/// What a row rests on. What was recorded needs no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Read in published source.
    Source,
    /// Documentation or release notes say so.
    Prose,
}

/// Where a row applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Rest,
    Public,
    Admin,
}

impl Door {
    fn is(self, port: Port) -> bool {
        match self {
            Self::Rest => matches!(port, Port::Rest(_)),
            Self::Public => port == Port::DapiPublic,
            Self::Admin => port == Port::DapiAdmin,
        }
    }
}

/// One difference.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub what: &'static str,
    /// First and last release that has it.
    pub from: Version,
    pub to: Version,
    pub evidence: Evidence,
    pub door: Door,
    /// Parts of paths.
    pub paths: &'static [&'static str],
    pub change: fn(&mut Value),
}

impl Row {
    /// Whether an answer of a release is changed by it.
    pub fn applies(&self, version: Version, port: Port, path: &str) -> bool {
        (self.from..=self.to).contains(&version) && self.door.is(port) && self.names(path)
    }

    fn names(&self, path: &str) -> bool {
        self.paths.iter().any(|part| path.contains(part))
    }
}

const PARAMETERS: &[&str] = &["/inference/params", "/inference/epoch_info"];
const LATEST: &[&str] = &["/epochs/latest"];

/// Every known difference from the recorded release, in the order in which they are applied.
pub const TABLE: &[Row] = &[
    Row {
        what: "maintenance has no parameters: there is none",
        from: Version::V13,
        to: Version::V13,
        evidence: Evidence::Source,
        door: Door::Rest,
        paths: PARAMETERS,
        change: |body| remove(&mut body["params"], "maintenance_params"),
    },
    Row {
        what: "the vote's threshold is no parameter",
        from: Version::V13,
        to: Version::V13,
        evidence: Evidence::Prose,
        door: Door::Rest,
        paths: PARAMETERS,
        change: |body| remove(&mut body["params"]["poc_params"], "validation_vote_threshold_bps"),
    },
    Row {
        what: "nobody says whether a node validates and serves at once",
        from: Version::V13,
        to: Version::V13,
        evidence: Evidence::Source,
        door: Door::Admin,
        paths: &["/admin/v1/nodes"],
        change: |body| {
            for node in body.as_array_mut().into_iter().flatten() {
                remove(&mut node["state"], "poc_validation_inference");
            }
        },
    },
    Row {
        what: "epoch parameters in one more box, whole numbers as strings",
        from: Version::V15,
        to: Version::V17,
        evidence: Evidence::Prose,
        door: Door::Public,
        paths: LATEST,
        change: |body| {
            let mut epoch = body["epoch_params"].take();
            stringify(&mut epoch);
            body["epoch_params"] = json!({ "epoch_params": epoch });
        },
    },
    Row {
        what: "no confirmation is null, not absent",
        from: Version::V15,
        to: Version::V17,
        evidence: Evidence::Prose,
        door: Door::Public,
        paths: LATEST,
        change: |body| {
            if let Value::Object(body) = body {
                body.entry("active_confirmation_poc_event").or_insert(Value::Null);
            }
        },
    },
    Row {
        what: "whole numbers of participants as strings",
        from: Version::V15,
        to: Version::V17,
        evidence: Evidence::Prose,
        door: Door::Public,
        paths: &["/participants"],
        change: |body| {
            if let Some(active) = body.get_mut("active_participants") {
                stringify(active);
            }
        },
    },
    Row {
        what: "versions without the ML nodes'",
        from: Version::V15,
        to: Version::V17,
        evidence: Evidence::Prose,
        door: Door::Public,
        paths: &["/v1/versions"],
        change: |body| remove(body, "mlnodes"),
    },
    Row {
        what: "models without an id of where they come from",
        from: Version::V15,
        to: Version::V17,
        evidence: Evidence::Prose,
        door: Door::Public,
        paths: &["/v1/models"],
        change: |body| {
            for model in body["data"].as_array_mut().into_iter().flatten() {
                remove(model, "hugging_face_id");
            }
        },
    },
    Row {
        what: "coefficients move: a model's own factor is empty",
        from: Version::V16,
        to: Version::V17,
        evidence: Evidence::Source,
        door: Door::Rest,
        paths: PARAMETERS,
        change: |body| {
            for model in models(body) {
                model["weight_scale_factor"] = Value::Null;
            }
        },
    },
    Row {
        what: "coefficients move: the epoch's group has the one that counts",
        from: Version::V16,
        to: Version::V17,
        evidence: Evidence::Prose,
        door: Door::Rest,
        paths: &["epoch_group_data"],
        change: |body| {
            let scales = body["epoch_group_data"]["confirmation_weight_scales"].as_array_mut();
            for scale in scales.into_iter().flatten() {
                let factor = scale["weight_scale_factor"].take();
                scale["effective_coefficient"] = factor.clone();
                if scale["base_coefficient"].is_null() {
                    scale["base_coefficient"] = factor;
                }
            }
        },
    },
    Row {
        what: "a model's proof in a block per scheme",
        from: Version::V17,
        to: Version::V17,
        evidence: Evidence::Source,
        door: Door::Rest,
        paths: PARAMETERS,
        change: |body| {
            let poc = &mut body["params"]["poc_params"];
            poc["poc_scheme"] = json!("POC_SCHEME_PREFILL");
            poc["confirmation_poc_scheme"] = json!("POC_SCHEME_PREFILL");
            poc["confirmation_scheme_events"] = json!(0);
            for model in models(body) {
                let (seq_len, test) = (model["seq_len"].take(), model["stat_test"].take());
                model["seq_len"] = json!("0");
                model["schemes"] = json!([{
                    "scheme": "POC_SCHEME_PREFILL", "seq_len": seq_len, "max_tokens": "0", "stat_test": test,
                    "dynamic_coefficient": null,
                }]);
            }
        },
    },
];

/// Gives a body the shape of a release.
pub fn shape(version: Version, port: Port, path: &str, body: &mut Value) {
    for row in TABLE.iter().filter(|row| row.applies(version, port, path)) {
        (row.change)(body);
    }
}

fn models(body: &mut Value) -> impl Iterator<Item = &mut Value> {
    body["params"]["poc_params"]["models"]
        .as_array_mut()
        .into_iter()
        .flatten()
}

fn remove(object: &mut Value, key: &str) {
    if let Value::Object(object) = object {
        Map::remove(object, key);
    }
}

fn stringify(value: &mut Value) {
    match value {
        Value::Number(number) if !number.is_f64() => *value = json!(number.to_string()),
        Value::Array(items) => items.iter_mut().for_each(stringify),
        Value::Object(fields) => fields.values_mut().for_each(stringify),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_release_has_no_row() {
        let rows = TABLE.iter().filter(|row| (row.from..=row.to).contains(&Version::V14));
        assert_eq!(rows.count(), 0);
    }

    #[test]
    fn every_release_has_a_name_and_reads_it() {
        for version in Version::VARIANTS {
            let read: Version = serde_json::from_value(json!(version.to_string())).expect("its own name");
            assert_eq!(read, *version);
        }
        assert!(serde_json::from_value::<Version>(json!("v0.2.18")).is_err());
    }

    #[test]
    fn an_answer_gets_the_shape_of_its_release_only_at_its_door() {
        let recorded = json!({"params": {"poc_params": {"models": [{"seq_len": "1024", "weight_scale_factor": {"value": "1", "exponent": 0}}]}}});
        let path = "/productscience/inference/inference/params";
        let shaped = |version, port| {
            let mut body = recorded.clone();
            shape(version, port, path, &mut body);
            body
        };
        assert_eq!(shaped(Version::V14, Port::Rest(0)), recorded);
        assert_eq!(shaped(Version::V17, Port::DapiPublic), recorded);
        let model = shaped(Version::V16, Port::Rest(2))["params"]["poc_params"]["models"][0].clone();
        assert_eq!(model, json!({"seq_len": "1024", "weight_scale_factor": null}));
        let model = shaped(Version::V17, Port::Rest(0))["params"]["poc_params"]["models"][0].clone();
        assert_eq!(
            (&model["seq_len"], &model["schemes"][0]["seq_len"]),
            (&json!("0"), &json!("1024"))
        );
    }
}
