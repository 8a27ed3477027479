//! What the types of a scenario cannot say: names that must exist, numbers that must make sense.

use super::{
    DapiSection, Delivery, DriverKind, DynamicSection, ExamsSection, HostSection, Model, ModelSection, NetworkSection,
    StatTestSection, Step, StepSection, Voting,
    expect::Expectation,
    verb::{Arguments, Verb},
};
use crate::{coefficients::Config, decimal::Decimal, faults::Target, parameters::Parameters, release::Version};
use kernels::decoder::{Dtype, Recipe};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use strum::VariantNames;

const MOST_HOSTS: u32 = 256;
const MOST_NODES: u32 = 8192;
const K_DIM: usize = 12;
const LARGEST_SEQ_LEN: usize = 1024;

pub(super) fn network(network: &NetworkSection, wrong: &mut Vec<String>) {
    if !(20..=60_000).contains(&network.block_millis) {
        wrong.push(format!(
            "network.blockMillis: {} must lie between 20 and 60000",
            network.block_millis
        ));
    }
    if network.jitter_millis * 2 > network.block_millis {
        wrong.push(format!(
            "network.jitterMillis: {} is more than half a block",
            network.jitter_millis
        ));
    }
    if network.epochs == 0 {
        wrong.push("network.epochs: must be at least 1".to_owned());
    }
    for (height, hash) in &network.force_block_hash {
        if hash.len() != 64 || hex::decode(hash).is_err() || *hash != hash.to_ascii_uppercase() {
            wrong.push(format!(
                "network.forceBlockHash.{height}: must be 64 upper-case hex digits"
            ));
        }
    }
}

pub(super) fn dapi(dapi: &DapiSection, wrong: &mut Vec<String>) {
    for (name, value) in [
        ("commitIntervalMillis", dapi.commit_interval_millis),
        ("idlePollMillis", dapi.idle_poll_millis),
        ("retryMillis", dapi.retry_millis),
        ("requestTimeoutMillis", dapi.request_timeout_millis),
    ] {
        if value == Some(0) {
            wrong.push(format!("dapi.{name}: must be above 0"));
        }
    }
}

pub(super) fn models(sections: &[ModelSection], wrong: &mut Vec<String>) -> Vec<Model> {
    if sections.is_empty() {
        wrong.push("models: at least one must be given".to_owned());
    }
    let mut ids = BTreeSet::new();
    let mut models = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let path = format!("models[{index}]");
        if section.id.is_empty() || !ids.insert(&section.id) {
            wrong.push(format!("{path}.id: {:?} is empty or given twice", section.id));
        }
        match model(section, &path) {
            Ok(model) => models.push(model),
            Err(messages) => wrong.extend(messages),
        }
    }
    models
}

fn model(section: &ModelSection, path: &str) -> Result<Model, Vec<String>> {
    let mut wrong = Vec::new();
    let recipe: Option<Recipe> = section
        .recipe
        .parse()
        .map_err(|error| wrong.push(format!("{path}.recipe: {error}")))
        .ok();
    let dtype: Option<Dtype> = section
        .dtype
        .as_deref()
        .unwrap_or("BF16")
        .parse()
        .map_err(|error| wrong.push(format!("{path}.dtype: {error}")))
        .ok();
    let scale = match &section.weight_scale_factor {
        None => Some(Decimal::ONE),
        Some(value) => scale(value)
            .map_err(|message| wrong.push(format!("{path}.weightScaleFactor: {message}")))
            .ok(),
    };
    let (Some(recipe), Some(dtype), Some(weight_scale_factor)) = (recipe, dtype, scale) else {
        return Err(wrong);
    };
    let config = recipe.config();
    let seq_len = section.seq_len.unwrap_or(config.seq_len);
    if seq_len == 0 || seq_len > LARGEST_SEQ_LEN {
        wrong.push(format!(
            "{path}.seqLen: {seq_len} must lie between 1 and {LARGEST_SEQ_LEN}"
        ));
    }
    let dist_milli = match dtype {
        Dtype::F32 => 20,
        Dtype::Bf16 => 200,
    };
    let stat_test = section.stat_test.unwrap_or(StatTestSection {
        dist_milli,
        p_mismatch_bp: 1000,
        p_value_threshold_bp: 500,
    });
    let bounds = 1..10_000;
    if stat_test.dist_milli == 0 || stat_test.dist_milli >= 2000 {
        wrong.push(format!(
            "{path}.statTest.dist_milli: {} must lie between 1 and 1999",
            stat_test.dist_milli
        ));
    }
    if !bounds.contains(&stat_test.p_mismatch_bp) || !bounds.contains(&stat_test.p_value_threshold_bp) {
        wrong.push(format!(
            "{path}.statTest: probabilities must lie between 1 and 9999 basis points"
        ));
    }
    let dynamic = section.dynamic.as_ref().and_then(|section| {
        let config = dynamic(section).map_err(|message| wrong.push(format!("{path}.dynamic: {message}")));
        config.ok()
    });
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Model {
        id: section.id.clone(),
        recipe,
        tag: section.tag.clone(),
        seq_len,
        k_dim: K_DIM,
        dtype,
        stat_test,
        weight_scale_factor,
        dynamic,
    })
}

fn dynamic(section: &DynamicSection) -> Result<Config, String> {
    let (least, most) = (scale(&section.coeff_min)?, scale(&section.coeff_max)?);
    let difficulty = section.relative_difficulty.as_ref().map_or(Ok(Decimal::ONE), scale)?;
    if least.floor_of(1_000_000) > most.floor_of(1_000_000) {
        return Err("coeffMin is above coeffMax".to_owned());
    }
    Ok(Config {
        target_share_bps: section.target_share_bps,
        least,
        most,
        difficulty,
    })
}

/// Coefficients move from a release on, and their targets are parts of one whole.
pub(super) fn coefficients(network: &NetworkSection, models: &[Model], wrong: &mut Vec<String>) {
    let moving = || models.iter().filter_map(|model| model.dynamic);
    if moving().next().is_none() {
        return;
    }
    if network.version < Version::V16 {
        wrong.push(format!(
            "models: coefficients move from v0.2.16 on, network.version is {}",
            network.version
        ));
    }
    let whole: u64 = moving().map(|config| config.target_share_bps).sum();
    if whole != 10_000 {
        wrong.push(format!("models: targetShareBps of all add up to {whole}, not to 10000"));
    }
}

fn scale(value: &Value) -> Result<Decimal, String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let scale: Decimal = text.parse().map_err(|error| format!("{error}"))?;
    if scale.value > 0 {
        Ok(scale)
    } else {
        Err(format!("{text} must be above 0"))
    }
}

pub(super) fn hosts(sections: Vec<HostSection>, models: &[Model], wrong: &mut Vec<String>) -> Vec<HostSection> {
    let external = sections
        .iter()
        .filter(|host| host.driver == DriverKind::External)
        .count();
    if external != 1 {
        wrong.push(format!("hosts: {external} have driver external, exactly one must"));
    }
    let mut taken = BTreeSet::new();
    for (index, host) in sections.iter().enumerate() {
        let path = format!("hosts[{index}]");
        if !(1..=MOST_HOSTS).contains(&host.count) || !(1..=MOST_NODES).contains(&host.nodes) {
            wrong.push(format!(
                "{path}: count must lie between 1 and {MOST_HOSTS}, nodes between 1 and {MOST_NODES}"
            ));
            continue;
        }
        if host.noise_permille > 1000 {
            wrong.push(format!("{path}.noisePermille: {} is above 1000", host.noise_permille));
        }
        if host.count > 1
            && (host.address.is_some() || host.public_key.is_some() || host.driver == DriverKind::External)
        {
            wrong.push(format!(
                "{path}.count: a host with a key, an address or an external driver is only one"
            ));
        }
        if let Some(key) = &host.public_key
            && (key.len() != 66 || hex::decode(key).is_err() || *key != key.to_ascii_lowercase())
        {
            wrong.push(format!("{path}.publicKey: must be 66 lower-case hex digits"));
        }
        if let Some(model) = &host.model
            && !models.iter().any(|known| known.id == *model)
        {
            wrong.push(format!("{path}.model: {model:?} is not in models"));
        }
        if host.driver == DriverKind::External && (host.votes != Voting::Honest || host.artifacts != Delivery::Honest) {
            wrong.push(format!("{path}: votes and artifacts are for simulated hosts"));
        }
        for (name, address, key) in host.members() {
            for used in [name, address, key] {
                if !taken.insert(used.clone()) {
                    wrong.push(format!("{path}: {used} is used twice"));
                }
            }
        }
    }
    sections
}

pub(super) fn expectations(expect: &[Expectation], hosts: &[HostSection], wrong: &mut Vec<String>) {
    for (index, expectation) in expect.iter().enumerate() {
        if !knows(hosts, &expectation.host) {
            wrong.push(format!("expect[{index}].host: {:?} is not in hosts", expectation.host));
        }
    }
}

pub(super) fn steps(sections: Vec<StepSection>, hosts: &[HostSection], wrong: &mut Vec<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (index, section) in sections.into_iter().enumerate() {
        let path = format!("steps[{index}]");
        let at = section
            .at
            .parse()
            .map_err(|error| wrong.push(format!("{path}.at: {error}")))
            .ok();
        let verb: Option<Verb> = section.verb.parse().ok();
        if verb.is_none() {
            let known = Verb::VARIANTS.join(" ");
            wrong.push(format!("{path}.do: {:?} is no verb; there are {known}", section.verb));
        }
        let arguments: Option<Arguments> = serde_json::from_value(json!(section.arguments))
            .map_err(|error| wrong.push(format!("{path}: {error}")))
            .ok();
        let (Some(at), Some(verb), Some(arguments)) = (at, verb, arguments) else {
            continue;
        };
        wrong.extend(
            arguments
                .problems(verb)
                .into_iter()
                .map(|message| format!("{path}.{message}")),
        );
        if !arguments.target.is_empty()
            && !knows(hosts, &arguments.target)
            && Target::parse(&arguments.target).is_none()
        {
            wrong.push(format!("{path}.target: {:?} is nothing here", arguments.target));
        }
        if let Some(lasting) = &arguments.lasting
            && lasting.parse::<super::at::Span>().is_err()
        {
            wrong.push(format!(
                "{path}.for: {lasting:?} is no duration: write 30s, 500ms or 4 blocks"
            ));
        }
        steps.push(Step { at, verb, arguments });
    }
    steps
}

fn knows(hosts: &[HostSection], name: &str) -> bool {
    hosts
        .iter()
        .flat_map(HostSection::members)
        .any(|(known, ..)| known == name)
}

/// Parameters that the scenario says in its own words: models and expected confirmations.
pub(super) fn complete(
    mut parameters: Parameters,
    network: &NetworkSection,
    models: &[Model],
    exams: &ExamsSection,
) -> Parameters {
    let rows: Vec<Value> = models.iter().map(model_row).collect();
    parameters.put("poc_params", "models", rows.into());
    let first = models.first().map(|model| model.id.clone()).unwrap_or_default();
    parameters.put("delegation_params", "initial_model_id", first.into());
    if !network.parameters.contains_key("expected_confirmations_per_epoch") {
        parameters.expected_confirmations_per_epoch = exams.confirmation_per_epoch;
        let expected = exams.confirmation_per_epoch.to_string();
        parameters.put(
            "confirmation_poc_params",
            "expected_confirmations_per_epoch",
            expected.into(),
        );
    }
    parameters
}

fn model_row(model: &Model) -> Value {
    let StatTestSection {
        dist_milli,
        p_mismatch_bp,
        p_value_threshold_bp,
    } = model.stat_test;
    let decimal = |value: u32, exponent| {
        Decimal {
            value: value.into(),
            exponent,
        }
        .rest()
    };
    json!({
        "model_id": model.id,
        "seq_len": model.seq_len.to_string(),
        "stat_test": {
            "dist_threshold": decimal(dist_milli, -3),
            "p_mismatch": decimal(p_mismatch_bp, -4),
            "p_value_threshold": decimal(p_value_threshold_bp, -4),
        },
        "weight_scale_factor": model.weight_scale_factor.rest(),
        "penalty_start_epoch": "0",
    })
}
