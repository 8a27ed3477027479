//! DAPI's door for ML nodes, port 9100: callbacks.

use super::{Inbound, Outbound, percent_decode};
use crate::{
    dapi::{callbacks, reply::Reply},
    driver::Shared,
};
use serde_json::json;

pub fn answer(shared: &Shared, inbound: &Inbound) -> Outbound {
    match (inbound.method.as_str(), inbound.segments().as_slice()) {
        ("POST", ["v2", "poc-batches", model, kind @ ("generated" | "validated")]) => {
            // Encoded once or twice; a bare slash is another path and not found.
            let model = percent_decode(&percent_decode(model));
            let reply = shared.change(|net| {
                let reply = if *kind == "generated" {
                    callbacks::generated(net, &model, &inbound.body)
                } else {
                    callbacks::validated(net, &model, &inbound.body)
                };
                (reply, Vec::new())
            });
            reply.into()
        }
        ("GET", ["versions"]) => Outbound::json(
            200,
            json!({
                "versions": [],
                "devshard_requests_enabled": true,
                "max_nonce": 20000,
                "refusal_timeout": 60,
                "execution_timeout": 1920,
                "validation_rate": 1000,
                "vote_threshold_factor": 50,
            }),
        ),
        ("GET", ["sd", "devshardd"]) => Outbound::json(200, json!([])),
        _ => Reply::error(404, "Not Found").into(),
    }
}
