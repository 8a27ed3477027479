//! Apply: callbacks of the round under way. One at a time; when and what is [`super::outbox`]'s to say.

use super::{
    config::Config,
    jobs::encoding,
    journal::record::Record,
    memory::Assignment,
    outbox::{Outcome, Step},
    request::RoundRequest,
    state::{Core, State},
};
use crate::slot::clock::now_ms;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A callback that takes longer has failed.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The same in a hurry: a second attempt must still be in time.
const HURRIED_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest sleep: a hurry begins by the clock and nothing rings for it.
const GLANCE: Duration = Duration::from_millis(250);
/// A callback's connection must stand within this time.
const CONNECT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 4_096;

/// The client of every callback. An image without root certificates can still call back over plain HTTP.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    let builder = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .http1_only()
    };
    builder().build().or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "no root certificates: callbacks over HTTPS will fail"
        );
        builder().tls_certs_only([]).build()
    })
}

/// What to do next.
enum Plan {
    Post {
        id: i64,
        url: String,
        body: Value,
        timeout: Duration,
    },
    WaitUntil(i64),
    Idle,
}

/// Sends for ever.
pub async fn run(core: Arc<Core>, client: reqwest::Client) {
    let mut changed = core.subscribe();
    loop {
        // Not a change that others must hear of: only this task moves what is in flight.
        let plan = core.plan(|state| plan(state, &core.config, now_ms()));
        match plan {
            Plan::Post { id, url, body, timeout } => {
                let outcome = tokio::select! {
                    outcome = post(&client, &url, &body, timeout) => outcome,
                    () = core.until(|state| !may_send(state, id)) => Outcome::Transient,
                };
                if core.update(|state| conclude(state, id, outcome, now_ms())) {
                    core.remember(|state| state.memory.callback_proven = true);
                }
            }
            Plan::WaitUntil(at) => {
                let pause = Duration::from_millis((at - now_ms()).max(1).unsigned_abs());
                tokio::select! {
                    () = tokio::time::sleep(pause.min(GLANCE)) => {}
                    _ = changed.changed() => {}
                }
            }
            Plan::Idle => {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

fn may_send(state: &State, id: i64) -> bool {
    state
        .newest()
        .is_some_and(|round| round.id == id && round.may_send(now_ms()))
}

fn plan(state: &mut State, config: &Config, now_ms: i64) -> Plan {
    let interval_ms = config.callback_interval_ms;
    let hurry = state.must_hurry(config.stage_ms, now_ms);
    let assignment = state.memory.assignment.clone();
    let Some(round) = state.rounds.back_mut().filter(|round| round.may_send(now_ms)) else {
        return Plan::Idle;
    };
    let step = if hurry {
        round.outbox.decide_hurried(now_ms, interval_ms)
    } else {
        round.outbox.decide(now_ms, interval_ms)
    };
    match step {
        Step::Idle => Plan::Idle,
        Step::WaitUntil(at) => Plan::WaitUntil(at),
        Step::Send(count) => {
            let Some(base) = callback_address(&round.request, assignment.as_ref()) else {
                // Nobody wants them; they are computed for the record only.
                return Plan::Idle;
            };
            let request = &round.request;
            let artifacts: Vec<Value> = round
                .outbox
                .begin(count, now_ms)
                .map(|entry| json!({ "nonce": entry.nonce, "vector_b64": entry.vector_b64 }))
                .collect();
            Plan::Post {
                id: round.id,
                url: format!("{base}/generated"),
                body: generated_body(request, &artifacts),
                timeout: if hurry { HURRIED_TIMEOUT } else { TIMEOUT },
            }
        }
    }
}

/// Body of a mining callback, fields as recorded.
pub fn generated_body(request: &RoundRequest, artifacts: &[Value]) -> Value {
    json!({
        "block_hash": request.seed,
        "block_height": request.height,
        "public_key": request.public_key,
        "node_id": request.node_num,
        "artifacts": artifacts,
        "encoding": encoding(request.k_dim),
    })
}

/// True: this is the first callback of this pod that was taken.
fn conclude(state: &mut State, id: i64, outcome: Outcome, now_ms: i64) -> bool {
    let Some(round) = state.rounds.back_mut().filter(|round| round.id == id) else {
        return false;
    };
    let left = round.outbox.finish(outcome, now_ms) as u64;
    if left > 0 {
        let refused = round.outbox.given_up() as u64;
        let accepted = left - refused;
        state.note(&Record::Sent {
            at: now_ms,
            accepted,
            refused,
        });
    }
    state.drop_late(now_ms);
    left > 0 && outcome == Outcome::Accepted && !state.memory.callback_proven
}

/// Posts once.
pub async fn post(client: &reqwest::Client, url: &str, body: &Value, timeout: Duration) -> Outcome {
    let sent = client
        .post(url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .timeout(timeout)
        .body(body.to_string())
        .send()
        .await;
    match sent {
        Ok(response) => {
            let status = response.status().as_u16();
            let outcome = Outcome::of_status(status);
            let answer = read_some(response).await;
            if outcome != Outcome::Accepted {
                tracing::info!(url, status, answer, "callback was not taken");
            }
            outcome
        }
        Err(error) => {
            tracing::warn!(url, error = &error as &dyn std::error::Error, "callback failed");
            Outcome::Transient
        }
    }
}

/// Posts once and tells the status code, or what went wrong.
pub async fn probe(client: &reqwest::Client, url: &str, body: &Value) -> Result<u16, String> {
    let request = client.post(url).header(http::header::CONTENT_TYPE, "application/json");
    match request.timeout(TIMEOUT).body(body.to_string()).send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => {
            use std::error::Error as _;
            Err(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        }
    }
}

/// The start of an answer; reading it to its end lets the connection be used again.
async fn read_some(mut response: reqwest::Response) -> String {
    let mut read = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        read.extend_from_slice(&part);
        if read.len() > MAX_ANSWER {
            break;
        }
    }
    read.truncate(MAX_ANSWER);
    String::from_utf8_lossy(&read).trim().to_owned()
}

/// Where a round's callbacks go: the request's URL verbatim, its host replaced when the assignment names another; built
/// from the assignment when the request has none.
pub fn callback_address(request: &RoundRequest, assignment: Option<&Assignment>) -> Option<String> {
    let url = request.callback_url.trim_end_matches('/');
    let base = assignment
        .map(|assignment| assignment.callback_base.trim_end_matches('/'))
        .filter(|base| !base.is_empty());
    match (url.is_empty(), base) {
        (true, None) => None,
        (true, Some(base)) => Some(format!("{base}/v2/poc-batches/{}", encode_twice(&request.model))),
        (false, None) => Some(url.to_owned()),
        (false, Some(base)) => {
            let after_scheme = url.find("://").map_or(0, |at| at + 3);
            let path = url[after_scheme..].find('/').map_or("", |at| &url[after_scheme + at..]);
            Some(format!("{base}{path}"))
        }
    }
}

/// Percent-encodes twice, as DAPI does with model ids.
fn encode_twice(model: &str) -> String {
    let mut text = String::new();
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.extend(["%25", &hex::encode_upper([byte])]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::serve::round::tests::request;

    fn assignment(callback_base: &str) -> Assignment {
        Assignment {
            deployment_uid: "gmd".into(),
            slot: 0,
            generation: 1,
            node_id: String::new(),
            node_num: 1,
            callback_base: callback_base.into(),
        }
    }

    #[test]
    fn the_address_is_the_requests_unless_the_assignment_knows_a_better_host() {
        let mut request = request();
        let url = "http://10.0.0.1:9100/v2/poc-batches/gonka-fleet%252Ftiny";
        assert_eq!(callback_address(&request, None).as_deref(), Some(url));
        assert_eq!(callback_address(&request, Some(&assignment(""))).as_deref(), Some(url));
        assert_eq!(
            callback_address(&request, Some(&assignment("http://10.9.9.9:9100/"))).as_deref(),
            Some("http://10.9.9.9:9100/v2/poc-batches/gonka-fleet%252Ftiny")
        );
        request.callback_url.clear();
        assert_eq!(
            callback_address(&request, Some(&assignment("http://10.9.9.9:9100"))).as_deref(),
            Some("http://10.9.9.9:9100/v2/poc-batches/gonka-fleet%252Ftiny")
        );
        assert_eq!(callback_address(&request, None), None);
    }

    #[test]
    fn a_mining_callback_has_the_recorded_fields() {
        let body = generated_body(&request(), &[json!({"nonce": 1, "vector_b64": "AAAA"})]);
        let recorded: Value =
            serde_json::from_str(include_str!("../../../tests/recorded/callback_generated.json")).unwrap();
        let keys = |value: &Value| {
            value
                .as_object()
                .map(|o| o.keys().cloned().collect::<std::collections::BTreeSet<_>>())
        };
        assert_eq!(keys(&body), keys(&recorded));
        assert_eq!(keys(&body["encoding"]), keys(&recorded["encoding"]));
        assert_eq!(keys(&body["artifacts"][0]), keys(&recorded["artifacts"][0]));
    }
}
