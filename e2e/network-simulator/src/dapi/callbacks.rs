//! What ML nodes deliver to port 9100. The checks are as thin as the real ones: block hash and public key are not
//! looked at, an empty list is fine, a number may not be a string.

use super::reply::Reply;
use crate::{exam::ExamNode, network::Network};
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

#[derive(Debug, Deserialize)]
struct Validated {
    #[serde(default)]
    block_height: i64,
    #[serde(default)]
    public_key: String,
    #[serde(default)]
    node_id: i64,
    #[serde(default)]
    n_total: i64,
    #[serde(default)]
    fraud_detected: bool,
}

/// Artifacts of a node.
pub fn generated(net: &mut Network, model: &str, body: &[u8]) -> Reply {
    let body: Generated = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return Reply::undecodable(&error.to_string()),
    };
    let (height, now_ms, ours) = (net.height(), net.now_ms, net.ours);
    let node_count = net.dapi.node_count();
    let known = net
        .dapi
        .nodes
        .iter()
        .find(|node| i64::from(node.node_num) == body.node_id)
        .map(|node| ExamNode {
            node_id: node.spec.id.clone(),
            node_num: node.node_num,
            node_count,
            model: model.to_owned(),
            requests: Vec::new(),
            first_callback_ms: None,
            carried: 0,
        });
    let governed = net.model(model).is_some();
    let Some(exam) = net.exam.as_mut().filter(|exam| exam.window.generates(height)) else {
        return Reply::error(503, "not in PoC generate phase");
    };
    if body.block_height != exam.window.stage_height {
        return Reply::error(
            400,
            &format!("block height mismatch: expected {}", exam.window.stage_height),
        );
    }
    let Some(node) = known else {
        return Reply::error(400, &format!("unknown node_id: {}", body.node_id));
    };
    if !governed {
        return Reply::error(400, &format!("unknown model: {model}"));
    }
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
    let since = exam.since_start(now_ms);
    let entry = &mut exam.entries[ours];
    let node_num = node.node_num;
    if !vectors.is_empty() {
        // A node that was registered while the exam ran is not in its list yet.
        entry.upsert(node);
        if let Some(node) = entry.node_mut(node_num) {
            node.first_callback_ms.get_or_insert(since);
        }
    }
    let book = entry.books.entry(model.to_owned()).or_default();
    for (nonce, vector) in vectors {
        book.accept(nonce, node_num, vector, height);
    }
    Reply::empty()
}

/// A node's verdict on another host's sample: our vote.
pub fn validated(net: &mut Network, model: &str, body: &[u8]) -> Reply {
    let body: Validated = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return Reply::undecodable(&error.to_string()),
    };
    let height = net.height();
    let Some(exam) = net.exam.as_ref().filter(|exam| exam.window.validates(height)) else {
        return Reply::error(503, "not in PoC validate phase");
    };
    if body.block_height != exam.window.stage_height {
        return Reply::error(
            400,
            &format!("block height mismatch: expected {}", exam.window.stage_height),
        );
    }
    if !net
        .dapi
        .nodes
        .iter()
        .any(|node| i64::from(node.node_num) == body.node_id)
    {
        return Reply::error(400, &format!("unknown node_id: {}", body.node_id));
    }
    let Some(subject) = net.hosts.iter().position(|host| host.public_key == body.public_key) else {
        return Reply::error(400, "unknown public key");
    };
    super::validation::finished(net, subject, model, body.n_total, body.fraud_detected);
    Reply::empty()
}

#[cfg(test)]
mod tests;
