//! What ML nodes deliver to port 9100. The checks are as thin as the real ones: block hash and public key are not
//! looked at, an empty list is fine, a number may not be a string.

use super::reply::Reply;
use crate::{
    event::Check,
    exam::{
        ExamNode,
        book::{Book, counted::Batch},
    },
    network::Network,
};
use kernels::artifact;
use serde::Deserialize;

/// Most artifacts of one callback.
const MAX_ARTIFACTS: usize = 200_000;

#[derive(Debug, Deserialize)]
struct Generated {
    #[serde(default)]
    block_height: i64,
    #[serde(default)]
    node_id: i64,
    #[serde(default)]
    artifacts: Option<Vec<Item>>,
}

#[derive(Debug, Deserialize)]
struct Item {
    #[serde(default)]
    nonce: i32,
    #[serde(default)]
    vector_b64: String,
}

/// A node's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Validated {
    #[serde(default)]
    pub block_height: i64,
    #[serde(default)]
    pub public_key: String,
    #[serde(default)]
    pub node_id: i64,
    #[serde(default)]
    pub n_total: i64,
    #[serde(default)]
    pub fraud_detected: bool,
}

impl From<&Check> for Validated {
    fn from(check: &Check) -> Self {
        Self {
            block_height: check.stage_height,
            public_key: check.public_key.clone(),
            node_id: check.node_num.into(),
            n_total: check.total.into(),
            fraud_detected: check.fraud,
        }
    }
}

/// Artifacts of a node.
pub fn generated(net: &mut Network, model: &str, body: &[u8]) -> Reply {
    let body: Generated = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return Reply::undecodable(&error.to_string()),
    };
    let node = match taken(net, model, body.block_height, body.node_id) {
        Ok(node) => node,
        Err(refusal) => return refusal,
    };
    let items = body.artifacts.unwrap_or_default();
    if items.len() > MAX_ARTIFACTS {
        return Reply::error(400, &format!("too many artifacts: at most {MAX_ARTIFACTS}"));
    }
    let mut vectors = Vec::with_capacity(items.len());
    for item in items {
        match artifact::from_base64(&item.vector_b64) {
            Ok(vector) if !vector.is_empty() => vectors.push((item.nonce, vector)),
            Ok(_) => return Reply::error(400, &format!("empty vector for nonce {}", item.nonce)),
            Err(_) => return Reply::error(400, &format!("invalid base64 vector for nonce {}", item.nonce)),
        }
    }
    let (height, node_num) = (net.height(), node.node_num);
    let Some(book) = open_book(net, model, node, vectors.is_empty()) else {
        return Reply::empty();
    };
    for (nonce, vector) in vectors {
        book.accept(nonce, node_num, vector, height);
    }
    Reply::empty()
}

/// The same where artifacts are only counted.
pub fn counted(net: &mut Network, model: &str, stage_height: i64, batch: &Batch) -> Reply {
    let node = match taken(net, model, stage_height, batch.node_num.into()) {
        Ok(node) => node,
        Err(refusal) => return refusal,
    };
    if let Some(book) = open_book(net, model, node, batch.places.is_empty()) {
        book.count(batch);
    }
    Reply::empty()
}

/// The node whose artifacts these are, or why they are not taken.
fn taken(net: &Network, model: &str, stage_height: i64, node_num: i64) -> Result<ExamNode, Reply> {
    let height = net.height();
    let Some(exam) = net.generated().filter(|exam| exam.window.generates(height)) else {
        return Err(Reply::error(503, "not in PoC generate phase"));
    };
    if stage_height != exam.window.stage_height {
        let expected = exam.window.stage_height;
        return Err(Reply::error(
            400,
            &format!("block height mismatch: expected {expected}"),
        ));
    }
    let Some(node) = net.dapi.numbered(node_num) else {
        return Err(Reply::error(400, &format!("unknown node_id: {node_num}")));
    };
    if net.model(model).is_none() {
        return Err(Reply::error(400, &format!("unknown model: {model}")));
    }
    let count = net.dapi.node_count();
    Ok(ExamNode::new(
        node.spec.id.clone(),
        node.node_num,
        count,
        model.to_owned(),
    ))
}

/// Our book of a model in the running exam. The node is noted with its first artifacts: one that was registered while
/// the exam ran is not in its list yet.
fn open_book<'a>(net: &'a mut Network, model: &str, node: ExamNode, is_empty: bool) -> Option<&'a mut Book> {
    let (now_ms, ours) = (net.now_ms, net.ours);
    let exam = net.generated_mut()?;
    let (since, proof) = (exam.since_start(now_ms), exam.proof);
    let entry = exam.entries.get_mut(ours)?;
    if !is_empty {
        let node_num = node.node_num;
        entry.upsert(node);
        if let Some(node) = entry.node_mut(node_num) {
            node.first_callback_ms.get_or_insert(since);
        }
    }
    if !entry.books.contains_key(model) {
        entry.books.insert(model.to_owned(), Book::new(proof));
    }
    entry.books.get_mut(model)
}

/// A node's verdict on another host's sample: our vote.
pub fn validated(net: &mut Network, model: &str, body: &[u8]) -> Reply {
    let body: Validated = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return Reply::undecodable(&error.to_string()),
    };
    judged(net, model, &body)
}

/// The same as a value.
pub fn judged(net: &mut Network, model: &str, verdict: &Validated) -> Reply {
    let height = net.height();
    let Some(exam) = net.exam.as_ref().filter(|exam| exam.window.validates(height)) else {
        return Reply::error(503, "not in PoC validate phase");
    };
    if verdict.block_height != exam.window.stage_height {
        return Reply::error(
            400,
            &format!("block height mismatch: expected {}", exam.window.stage_height),
        );
    }
    if net.dapi.numbered(verdict.node_id).is_none() {
        return Reply::error(400, &format!("unknown node_id: {}", verdict.node_id));
    }
    let Some(subject) = net.hosts.iter().position(|host| host.public_key == verdict.public_key) else {
        return Reply::error(400, "unknown public key");
    };
    super::validation::finished(net, subject, model, verdict.n_total, verdict.fraud_detected);
    Reply::empty()
}

#[cfg(test)]
mod tests;
