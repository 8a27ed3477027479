//! The scenario file: which network, who is in it, what happens when, what is expected in the end.
//!
//! Reading collects every mistake with its path instead of stopping at the first.

pub mod at;
mod check;
pub mod expect;
pub mod verb;

use crate::{
    challenge::rule::Rule, coefficients::Config, economy::participation::Choice, identity, parameters::Parameters,
    release::Version,
};
use at::At;
use expect::Expectation;
use kernels::decoder::{Dtype, Recipe};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_yaml::Value as Yaml;
use std::{collections::BTreeMap, fmt};
use thiserror::Error;
use verb::{Arguments, Verb};

/// Largest scenario file that is read.
pub const MAX_BYTES: u64 = 1 << 20;

/// A scenario in which every part fits the others.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub network: NetworkSection,
    pub parameters: Parameters,
    pub models: Vec<Model>,
    pub hosts: Vec<HostSection>,
    pub exams: ExamsSection,
    pub dapi: DapiSection,
    pub challenge: ChallengeSection,
    pub steps: Vec<Step>,
    pub expect: Vec<Expectation>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NetworkSection {
    pub version: Version,
    pub chain_id: String,
    pub seed: u64,
    pub block_millis: u64,
    pub jitter_millis: u64,
    /// The scenario is over when this epoch's exams, claims and steps are.
    pub epochs: u64,
    pub parameters: BTreeMap<String, Value>,
    pub force_block_hash: BTreeMap<i64, String>,
}

impl Default for NetworkSection {
    fn default() -> Self {
        Self {
            version: Version::V14,
            chain_id: "gonka-testnet-1".to_owned(),
            seed: 1,
            block_millis: 1000,
            jitter_millis: 0,
            epochs: 2,
            parameters: BTreeMap::new(),
            force_block_hash: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelSection {
    pub id: String,
    pub recipe: String,
    #[serde(default = "public_tag")]
    pub tag: String,
    pub seq_len: Option<usize>,
    pub dtype: Option<String>,
    pub stat_test: Option<StatTestSection>,
    pub weight_scale_factor: Option<Value>,
    pub dynamic: Option<DynamicSection>,
}

/// A coefficient that moves between two bounds towards a share of the network's compute.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DynamicSection {
    pub target_share_bps: u64,
    pub coeff_min: Value,
    pub coeff_max: Value,
    pub relative_difficulty: Option<Value>,
}

fn public_tag() -> String {
    "public-tiny-v1".to_owned()
}

/// Named as in the scenario format, in whole thousandths and basis points.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatTestSection {
    pub dist_milli: u32,
    pub p_mismatch_bp: u32,
    #[serde(default = "five_percent")]
    pub p_value_threshold_bp: u32,
}

fn five_percent() -> u32 {
    500
}

/// A model ready to be served and recomputed.
#[derive(Debug, Clone)]
pub struct Model {
    pub id: String,
    pub recipe: Recipe,
    pub tag: String,
    pub seq_len: usize,
    pub k_dim: usize,
    pub dtype: Dtype,
    pub stat_test: StatTestSection,
    /// Where its coefficient moves, the one it begins with.
    pub weight_scale_factor: crate::decimal::Decimal,
    pub dynamic: Option<Config>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DriverKind {
    /// Its ML nodes are outside; its DAPI is served here.
    External,
    /// Computed here.
    Simulated,
}

/// How a simulated host votes on others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Voting {
    #[default]
    Honest,
    Invalid,
    Absent,
}

/// What a simulated host delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Delivery {
    #[default]
    Honest,
    /// Unit vectors that no model computed.
    Random,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HostSection {
    pub name: String,
    pub driver: DriverKind,
    pub address: Option<String>,
    pub public_key: Option<String>,
    #[serde(default = "one")]
    pub count: u32,
    #[serde(default = "one")]
    pub nodes: u32,
    /// Of one node.
    #[serde(default = "ten")]
    pub nonces_per_second: u32,
    /// Every node is up to so many thousandths faster or slower, anew in every exam.
    #[serde(default)]
    pub noise_permille: u32,
    /// How long one of our nodes loads its model where it is only simulated; a twentieth of the real time unless given.
    pub load_millis: Option<u64>,
    pub model: Option<String>,
    /// Ngonka deposited; as much as is ever asked for unless given.
    pub collateral: Option<u64>,
    /// Per model id that it does not serve: delegate, refuse, or nothing.
    #[serde(default)]
    pub choices: BTreeMap<String, Choice>,
    #[serde(default)]
    pub votes: Voting,
    #[serde(default)]
    pub artifacts: Delivery,
    /// A simulated host starts its Sprints so many blocks late.
    #[serde(default)]
    pub late_blocks: u32,
}

fn one() -> u32 {
    1
}

fn ten() -> u32 {
    10
}

/// Which nodes are left on inference in an exam.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Preserve {
    /// By the chain's rule, or none.
    ByRule(bool),
    /// These node ids, wherever they are.
    Ids(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ExamsSection {
    pub confirmation_per_epoch: u64,
    pub preserve: Preserve,
}

impl Default for ExamsSection {
    fn default() -> Self {
        Self {
            confirmation_per_epoch: 0,
            preserve: Preserve::ByRule(true),
        }
    }
}

/// What challenges are like. Blocks that are not given are the main network's, scaled by the length of the epoch, and no fewer than a
/// Sprint has: what a slice loses until its first commitment a Sprint has lost too.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ChallengeSection {
    pub slice_blocks: Option<u32>,
    pub shortest_blocks: Option<u32>,
    pub bounty_permille: Option<u32>,
    pub most_active: Option<u32>,
}

/// Timings of the DAPI. What is not given is the real one, scaled by the block time.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DapiSection {
    pub commit_interval_millis: Option<u64>,
    pub idle_poll_millis: Option<u64>,
    pub retry_millis: Option<u64>,
    pub request_timeout_millis: Option<u64>,
    /// Base of the callback URL when it is not this program's own address.
    pub callback_url: Option<String>,
    pub public_url: Option<String>,
    /// Without it every transaction is refused, and only the setup report shows it.
    pub feegrant: Option<bool>,
    /// What the cold key lets the warm one spend on fees.
    pub allowance_ngonka: Option<u64>,
    /// What a transaction costs.
    pub fee_ngonka: u64,
    /// Weight distributions and votes cost nothing.
    pub duties_free: bool,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub at: At,
    pub verb: Verb,
    pub arguments: Arguments,
}

/// All that is wrong with a scenario, one line each.
#[derive(Debug, Error)]
pub struct Invalid(pub Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

// What a verb does not know is refused where the verb is read: `flatten` and `deny_unknown_fields` exclude each other.
#[derive(Debug, Deserialize)]
struct StepSection {
    at: String,
    #[serde(rename = "do")]
    verb: String,
    #[serde(flatten)]
    arguments: BTreeMap<String, Value>,
}

/// Reads and checks a scenario.
///
/// # Panics
/// Never: the embedded parameters are valid, as their tests know.
pub fn parse(text: &str) -> Result<Scenario, Invalid> {
    let mut reader = Reader::new(text)?;
    let version: u64 = reader.required("version").unwrap_or(1);
    if version != 1 {
        reader
            .wrong
            .push(format!("version: is {version}, this program reads 1"));
    }
    let network: NetworkSection = reader.optional("network");
    let models: Vec<ModelSection> = reader.list("models");
    let hosts: Vec<HostSection> = reader.list("hosts");
    let exams: ExamsSection = reader.optional("exams");
    let dapi: DapiSection = reader.optional("dapi");
    let challenge: ChallengeSection = reader.optional("challenge");
    let steps: Vec<StepSection> = reader.list("steps");
    let expect: Vec<Expectation> = reader.list("expect");
    reader.nothing_else();
    let mut wrong = reader.wrong;
    let parameters = Parameters::with(&network.parameters).unwrap_or_else(|messages| {
        wrong.extend(messages);
        Parameters::with(&BTreeMap::new()).expect("the embedded parameters are valid")
    });
    let models = check::models(&models, &mut wrong);
    let hosts = check::hosts(hosts, &models, &mut wrong);
    check::coefficients(&network, &models, &mut wrong);
    check::network(&network, &mut wrong);
    check::dapi(&dapi, &mut wrong);
    check::expectations(&expect, &hosts, &mut wrong);
    let steps = check::steps(steps, &hosts, &mut wrong);
    if !wrong.is_empty() {
        return Err(Invalid(wrong));
    }
    let parameters = check::complete(parameters, &network, &models, &exams);
    Ok(Scenario {
        network,
        parameters,
        models,
        hosts,
        exams,
        dapi,
        challenge,
        steps,
        expect,
    })
}

impl Scenario {
    pub fn challenge_rule(&self) -> Rule {
        const REAL_EPOCH: i64 = 15_391;
        let lengths = &self.parameters.lengths;
        let sprint = lengths.poc_stage_duration;
        let scaled = |real: i64| real * lengths.epoch_length / REAL_EPOCH;
        let section = self.challenge;
        Rule {
            slice_blocks: section
                .slice_blocks
                .map_or_else(|| scaled(500).max(sprint), i64::from)
                .max(1),
            shortest_blocks: section
                .shortest_blocks
                .map_or_else(|| scaled(300).max(sprint * 3 / 5), i64::from)
                .max(1),
            bounty_permille: section.bounty_permille.unwrap_or(100).into(),
            most: section.most_active.unwrap_or(4) as usize,
        }
    }
}

impl HostSection {
    /// The hosts this entry stands for, as (name, address, public key).
    pub fn members(&self) -> Vec<(String, String, String)> {
        (1..=self.count)
            .map(|number| {
                let name = if self.count == 1 {
                    self.name.clone()
                } else {
                    format!("{}-{number}", self.name)
                };
                let key = self.public_key.clone().unwrap_or_else(|| identity::public_key(&name));
                let address = self.address.clone().unwrap_or_else(|| identity::address("gonka", &key));
                (name, address, key)
            })
            .collect()
    }
}

/// Takes the sections out of the file one by one, so that a mistake in one hides none in another.
struct Reader {
    sections: serde_yaml::Mapping,
    wrong: Vec<String>,
}

impl Reader {
    fn new(text: &str) -> Result<Self, Invalid> {
        match serde_yaml::from_str::<Yaml>(text) {
            Ok(Yaml::Mapping(sections)) => Ok(Self {
                sections,
                wrong: Vec::new(),
            }),
            Ok(_) => Err(Invalid(vec![
                "the file: must be a mapping with version, network, models, hosts".to_owned(),
            ])),
            Err(error) => Err(Invalid(vec![format!("the file: is not YAML: {error}")])),
        }
    }

    fn take(&mut self, name: &str) -> Option<Yaml> {
        self.sections.remove(name).filter(|value| !value.is_null())
    }

    fn convert<T: DeserializeOwned>(&mut self, path: &str, value: Yaml) -> Option<T> {
        match serde_yaml::from_value(value) {
            Ok(section) => Some(section),
            Err(error) => {
                self.wrong.push(format!("{path}: {error}"));
                None
            }
        }
    }

    fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        match self.take(name) {
            Some(value) => self.convert(name, value),
            None => {
                self.wrong.push(format!("{name}: must be given"));
                None
            }
        }
    }

    fn optional<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        self.take(name)
            .and_then(|value| self.convert(name, value))
            .unwrap_or_default()
    }

    fn list<T: DeserializeOwned>(&mut self, name: &str) -> Vec<T> {
        match self.take(name) {
            None => Vec::new(),
            Some(Yaml::Sequence(items)) => items
                .into_iter()
                .enumerate()
                .filter_map(|(index, item)| self.convert(&format!("{name}[{index}]"), item))
                .collect(),
            Some(_) => {
                self.wrong.push(format!("{name}: must be a list"));
                Vec::new()
            }
        }
    }

    fn nothing_else(&mut self) {
        for key in self.sections.keys() {
            let name = key.as_str().unwrap_or("a key that is no text");
            self.wrong.push(format!("{name}: no such section"));
        }
    }
}

#[cfg(test)]
mod tests;
