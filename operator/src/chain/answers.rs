//! Answers of CometBFT RPC and Cosmos REST to values. Pure; bytes and shapes are hostile.

use crds::sprint_schedule::{ChainParameters, UpgradePlan};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parameters;
use super::shapes::{ShapeError, boolean, integer, known, list, member, required_integer, text};

/// Most node ids of a preserved snapshot that are kept.
const MAX_NODES: usize = 100_000;

/// Most proposals that are looked at, and most upgrades among them that are kept.
const MAX_PROPOSALS: usize = 200;
const MAX_VOTES: usize = 8;

/// One block.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Block {
    /// Chain id.
    pub chain_id: String,
    /// Height.
    pub height: i64,
    /// Hash, case kept.
    pub hash: String,
    /// Header time, Unix milliseconds.
    pub time_ms: i64,
}

/// `/status`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Newest block.
    pub block: Block,
    /// The node says of itself that it is behind.
    pub catching_up: bool,
}

/// `epoch_info`: the chain's own clock.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Clock {
    /// Height of the state that answered.
    pub height: i64,
    /// Index of the newest epoch.
    pub epoch: i64,
    /// Start of its Sprint; negative for epoch 0, which has none.
    pub poc_start: i64,
    /// Parameters.
    pub parameters: ChainParameters,
    /// The confirmation that is announced, runs or is not cleared yet.
    pub event: Option<Event>,
}

/// A confirmation.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Event {
    /// Block that announced it.
    pub trigger_height: i64,
    /// First height of generation.
    pub generation_start_height: i64,
    /// Phase as told.
    pub phase: EventPhase,
    /// Block hash, lower case; empty until known.
    pub seed: String,
}

/// Phase of a confirmation.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum EventPhase {
    /// Announced.
    Grace,
    /// Nonces are generated.
    Generation,
    /// Samples are recomputed.
    Validation,
    /// Over, not cleared yet.
    Completed,
    /// A phase this version does not know.
    #[default]
    Unknown,
}

/// `preserved_nodes_snapshot`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Preserved {
    /// Height of the exam it belongs to.
    pub anchor_height: i64,
    /// Node ids of every host, sorted.
    pub node_ids: Vec<String>,
}

/// An upgrade that is voted on.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vote {
    /// Id of the proposal.
    pub proposal: i64,
    /// Name of the upgrade.
    pub name: String,
    /// Height at which the binaries would change.
    pub height: i64,
    /// When voting ends, Unix milliseconds; absent when not told.
    pub ends_ms: Option<i64>,
}

fn result(answer: &Value) -> Result<&Value, ShapeError> {
    if let Some(error) = member(answer, "error") {
        return Err(ShapeError::new("error", &error.to_string()));
    }
    Ok(member(answer, "result").unwrap_or(answer))
}

fn header_time(text: &str) -> Result<i64, ShapeError> {
    text.parse::<Timestamp>()
        .map(Timestamp::as_millisecond)
        .map_err(|_| ShapeError::new("time", text))
}

fn block_hash(object: &Value, key: &str) -> Result<String, ShapeError> {
    let hash = text(object, key)?;
    if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ShapeError::new(key, &hash));
    }
    Ok(hash)
}

fn block_height(object: &Value, key: &str) -> Result<i64, ShapeError> {
    let height = required_integer(object, key)?;
    if height < 1 {
        return Err(ShapeError::new(key, &height.to_string()));
    }
    Ok(height)
}

fn nested<'a>(object: &'a Value, key: &str) -> Result<&'a Value, ShapeError> {
    member(object, key).ok_or_else(|| ShapeError::new(key, "nothing"))
}

/// Whether `/status` or `epoch_info` comes from a chain that has not made its first block: no strange shape, only early.
pub fn is_before_first_block(answer: &Value) -> bool {
    let result = member(answer, "result").unwrap_or(answer);
    let (object, key) = match member(result, "sync_info") {
        Some(sync) => (sync, "latest_block_height"),
        None => (result, "block_height"),
    };
    required_integer(object, key) == Ok(0)
}

/// Reads `/status`.
pub fn status(answer: &Value) -> Result<Status, ShapeError> {
    let result = result(answer)?;
    let sync = nested(result, "sync_info")?;
    Ok(Status {
        block: Block {
            chain_id: text(nested(result, "node_info")?, "network")?,
            height: block_height(sync, "latest_block_height")?,
            hash: block_hash(sync, "latest_block_hash")?,
            time_ms: header_time(&text(sync, "latest_block_time")?)?,
        },
        catching_up: boolean(sync, "catching_up")?,
    })
}

/// Reads `/block`.
pub fn block(answer: &Value) -> Result<Block, ShapeError> {
    block_of(result(answer)?)
}

fn block_of(value: &Value) -> Result<Block, ShapeError> {
    let header = nested(nested(value, "block")?, "header")?;
    Ok(Block {
        chain_id: text(header, "chain_id")?,
        height: block_height(header, "height")?,
        hash: block_hash(nested(value, "block_id")?, "hash")?,
        time_ms: header_time(&text(header, "time")?)?,
    })
}

/// Reads a message of the WebSocket; absent for anything but a new block with its hash.
pub fn new_block(message: &Value) -> Option<Block> {
    let value = member(member(member(message, "result")?, "data")?, "value")?;
    block_of(value).ok()
}

/// Reads `epoch_info`.
pub fn clock(answer: &Value) -> Result<Clock, ShapeError> {
    let height = block_height(answer, "block_height")?;
    let parameters = parameters::parse(answer, height)?;
    let latest = member(answer, "latest_epoch").unwrap_or(&Value::Null);
    let epoch = integer(latest, "index")?;
    let mut poc_start = integer(latest, "poc_start_block_height")?;
    if epoch == 0 {
        // No Sprint has been yet: the first is where the shift puts it.
        poc_start = -parameters::epoch_shift(answer)?;
    } else if poc_start > height {
        return Err(ShapeError::new(
            "poc_start_block_height",
            &format!("{poc_start}, above the height {height}"),
        ));
    }
    let event = match member(answer, "active_confirmation_poc_event") {
        Some(value) => event_of(value)?,
        None if boolean(answer, "is_confirmation_poc_active")? => {
            return Err(ShapeError::new("active_confirmation_poc_event", "nothing"));
        }
        None => None,
    };
    Ok(Clock {
        height,
        epoch,
        poc_start,
        parameters,
        event,
    })
}

/// Reads `active_confirmation_poc_event`.
pub fn event(answer: &Value) -> Result<Option<Event>, ShapeError> {
    member(answer, "event").map_or(Ok(None), event_of)
}

fn event_of(value: &Value) -> Result<Option<Event>, ShapeError> {
    let Some(phase) = phase(value)? else {
        return Ok(None);
    };
    let event = Event {
        trigger_height: block_height(value, "trigger_height")?,
        generation_start_height: block_height(value, "generation_start_height")?,
        phase,
        seed: text(value, "poc_seed_block_hash")?,
    };
    if event.generation_start_height < event.trigger_height {
        return Err(ShapeError::new(
            "generation_start_height",
            &format!(
                "{}, before its trigger {}",
                event.generation_start_height, event.trigger_height
            ),
        ));
    }
    Ok(Some(event))
}

/// Number (DAPI) or name (REST); inactive is no event.
fn phase(value: &Value) -> Result<Option<EventPhase>, ShapeError> {
    let name = match known(value, "phase")? {
        None => return Ok(None),
        Some(Value::String(name)) => name.trim_start_matches("CONFIRMATION_POC_").to_owned(),
        Some(_) => integer(value, "phase")?.to_string(),
    };
    Ok(match name.as_str() {
        "INACTIVE" | "UNSPECIFIED" | "0" => None,
        "GRACE_PERIOD" | "1" => Some(EventPhase::Grace),
        "GENERATION" | "2" => Some(EventPhase::Generation),
        "VALIDATION" | "3" => Some(EventPhase::Validation),
        "COMPLETED" | "4" => Some(EventPhase::Completed),
        _ => Some(EventPhase::Unknown),
    })
}

/// Reads `preserved_nodes_snapshot`; absent when there is none yet.
pub fn preserved(answer: &Value) -> Result<Option<Preserved>, ShapeError> {
    let Some(snapshot) = member(answer, "snapshot") else {
        return Ok(None);
    };
    if !boolean(answer, "found")? {
        return Ok(None);
    }
    let mut node_ids = Vec::new();
    for model in list(snapshot, "model_preserved_nodes")? {
        collect_ids(list(model, "preserved_node_ids")?, &mut node_ids)?;
        for participant in list(model, "participants")? {
            collect_ids(list(participant, "node_ids")?, &mut node_ids)?;
        }
    }
    node_ids.sort_unstable();
    node_ids.dedup();
    Ok(Some(Preserved {
        anchor_height: integer(snapshot, "episode_anchor_height")?,
        node_ids,
    }))
}

fn collect_ids(list: &[Value], node_ids: &mut Vec<String>) -> Result<(), ShapeError> {
    for id in list {
        let id = id
            .as_str()
            .ok_or_else(|| ShapeError::new("node_ids", &id.to_string()))?;
        if node_ids.len() >= MAX_NODES {
            return Err(ShapeError::new("node_ids", "too many"));
        }
        node_ids.push(id.to_owned());
    }
    Ok(())
}

/// Reads `current_plan`; absent when nothing is planned.
pub fn upgrade_plan(answer: &Value) -> Result<Option<UpgradePlan>, ShapeError> {
    let Some(plan) = member(answer, "plan") else {
        return Ok(None);
    };
    let height = integer(plan, "height")?;
    if height <= 0 {
        return Ok(None);
    }
    Ok(Some(UpgradePlan {
        name: text(plan, "name")?,
        height,
    }))
}

/// Upgrades among the proposals that are voted on, the nearest first; proposals about anything else are not looked into.
pub fn upgrade_votes(answer: &Value) -> Result<Vec<Vote>, ShapeError> {
    let mut votes = Vec::new();
    for proposal in list(answer, "proposals")?.iter().take(MAX_PROPOSALS) {
        for message in list(proposal, "messages")? {
            let Some(plan) = planned(message)? else { continue };
            if let Some(UpgradePlan { name, height }) = upgrade_plan(plan)? {
                let ends = text(proposal, "voting_end_time")?;
                votes.push(Vote {
                    proposal: required_integer(proposal, "id")?,
                    name,
                    height,
                    ends_ms: if ends.is_empty() {
                        None
                    } else {
                        Some(header_time(&ends)?)
                    },
                });
            }
        }
    }
    votes.sort_unstable_by_key(|vote| (vote.height, vote.proposal));
    votes.dedup_by_key(|vote| vote.proposal);
    votes.truncate(MAX_VOTES);
    Ok(votes)
}

/// What holds the plan in a proposal's message: a message of today, or a content of the days before `gov/v1`.
fn planned(message: &Value) -> Result<Option<&Value>, ShapeError> {
    let of = |value: &Value| text(value, "@type");
    Ok(match of(message)?.as_str() {
        "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade" => Some(message),
        "/cosmos.gov.v1.MsgExecLegacyContent" => match member(message, "content") {
            Some(content) if of(content)? == "/cosmos.upgrade.v1beta1.SoftwareUpgradeProposal" => Some(content),
            _ => None,
        },
        _ => None,
    })
}

/// Reads `last_upgrade_height`; absent when there was none.
pub fn last_upgrade(answer: &Value) -> Result<Option<i64>, ShapeError> {
    if member(answer, "found").is_some() && !boolean(answer, "found")? {
        return Ok(None);
    }
    Ok(Some(integer(answer, "last_upgrade_height")?).filter(|height| *height > 0))
}
