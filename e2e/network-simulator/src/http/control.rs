//! The control API, port 9999: faults and the state of the network, for tests and people. Nothing breaks it.
//!
//! * `POST /v1/fault` {verb, target, for, ...}
//! * `GET /v1/state`
//! * `GET /v1/ledger`
//! * `GET /v1/requests?since=N` requests to the DAPI from the N-th on

use super::{Inbound, Outbound};
use crate::{
    dapi::reply::Reply,
    driver::Shared,
    event::Command,
    scenario::verb::{Arguments, Verb},
    verbs,
    views::control,
};
use serde_json::{Value, json};
use strum::VariantNames;

pub fn answer(shared: &Shared, inbound: &Inbound) -> Outbound {
    match (inbound.method.as_str(), inbound.path.as_str()) {
        ("GET", "/v1/state") => Outbound::json(200, shared.read(control::state)),
        ("GET", "/v1/ledger") => Outbound::json(200, json!(shared.read(control::ledger))),
        ("GET", "/v1/requests") => requests(shared, inbound).into(),
        ("POST", "/v1/fault") => fault(shared, &inbound.body).into(),
        _ => Reply::error(
            404,
            "there are GET /v1/state, /v1/ledger, /v1/requests?since= and POST /v1/fault",
        )
        .into(),
    }
}

fn requests(shared: &Shared, inbound: &Inbound) -> Reply {
    let Ok(since) = inbound.query("since").unwrap_or("0").parse::<usize>() else {
        return Reply::error(400, "since: must be a number: the next one of an earlier answer");
    };
    shared.read(|net| {
        let all = &net.record.requests;
        let rows = all.get(since.min(all.len())..).unwrap_or_default();
        Reply::json(200, json!({"requests": rows, "next": all.len()}))
    })
}

/// The verb beside its arguments in one object.
fn command(body: &[u8]) -> Result<Command, String> {
    let mut given: Value = serde_json::from_slice(body).map_err(|error| format!("body: {error}"))?;
    let fields = given
        .as_object_mut()
        .ok_or("body: must be an object with verb and target")?;
    let verb = fields.remove("verb").unwrap_or_default();
    let verb: Verb = verb
        .as_str()
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| format!("verb: {verb} is none of {}", Verb::VARIANTS.join(" ")))?;
    let arguments: Arguments = serde_json::from_value(given).map_err(|error| error.to_string())?;
    Ok(Command { verb, arguments })
}

fn fault(shared: &Shared, body: &[u8]) -> Reply {
    let command = match command(body) {
        Ok(command) => command,
        Err(message) => return Reply::error(400, &message),
    };
    let refused = shared.change(|net| match verbs::apply(net, &command) {
        Ok(effects) => (None, effects),
        Err(message) => (Some(message), Vec::new()),
    });
    match refused {
        None => Reply::json(200, json!({"height": shared.read(crate::network::Network::height)})),
        Some(message) => Reply::error(409, &message),
    }
}
