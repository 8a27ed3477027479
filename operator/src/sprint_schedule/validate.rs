//! Every reason why a spec cannot be read. The API server checks most of it; an older schema, or none, may not.

use std::collections::BTreeSet;

use crds::sprint_schedule::SprintScheduleSpec;

/// Empty when the spec is valid.
pub fn reasons(spec: &SprintScheduleSpec) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut no = |wrong: bool, reason: String| {
        if wrong {
            reasons.push(reason);
        }
    };
    no(spec.chain_id.is_empty(), "chainID is empty".to_owned());
    no(
        spec.endpoints.is_empty() || spec.endpoints.len() > 9,
        format!("endpoints has {} entries, 1 to 9 are possible", spec.endpoints.len()),
    );
    let most = i32::try_from(spec.endpoints.len()).unwrap_or(i32::MAX);
    no(
        spec.quorum < 1 || spec.quorum > most,
        format!("quorum is {}, with {most} endpoints it can be 1 to {most}", spec.quorum),
    );
    let mut names = BTreeSet::new();
    let mut doors = BTreeSet::new();
    for endpoint in &spec.endpoints {
        let name = &endpoint.name;
        no(!is_label(name), format!("endpoint name {name:?} is not a DNS label"));
        no(!names.insert(name), format!("endpoint name {name} is used twice"));
        no(
            !doors.insert(endpoint.rpc_url.trim_end_matches('/')),
            format!("endpoint {name} has the rpcURL of another: one node is one witness"),
        );
        for (field, url) in [("rpcURL", &endpoint.rpc_url), ("restURL", &endpoint.rest_url)] {
            if let Err(reason) = is_door(url) {
                no(true, format!("endpoint {name}: {field} {reason}"));
            }
        }
    }
    let margins = &spec.margins;
    no(
        margins.cold_load_seconds < margins.ready_by_seconds || margins.ready_by_seconds < margins.drain_seconds,
        "margins must satisfy coldLoadSeconds >= readyBySeconds >= drainSeconds".to_owned(),
    );
    no(
        margins.drain_seconds < 0 || margins.first_nonce_seconds < 1,
        "margins must not be negative, and firstNonceSeconds at least 1".to_owned(),
    );
    reasons
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// A base URL: paths are appended to it.
fn is_door(text: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must begin with http:// or https:// and name a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry credentials".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not carry a query or a fragment".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crds::sprint_schedule::{Endpoint, Margins};

    use super::*;

    fn endpoint(name: &str, port: u16) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            rpc_url: format!("http://10.0.0.1:{port}"),
            rest_url: "https://proxy.example/chain-api".to_owned(),
            ..Endpoint::default()
        }
    }

    fn valid() -> SprintScheduleSpec {
        SprintScheduleSpec {
            chain_id: "gonka-mainnet".to_owned(),
            endpoints: vec![endpoint("a", 1), endpoint("b", 2), endpoint("c", 3)],
            quorum: 2,
            margins: Margins::default(),
        }
    }

    #[test]
    fn a_valid_spec_has_no_reason_against_it() {
        assert_eq!(reasons(&valid()), Vec::<String>::new());
    }

    #[test]
    fn every_reason_is_named_at_once() {
        let mut spec = valid();
        spec.chain_id.clear();
        spec.quorum = 4;
        spec.endpoints[1].name = "a".to_owned();
        spec.endpoints[2].rpc_url = "http://10.0.0.1:1/".to_owned();
        spec.endpoints[2].rest_url = "ftp://user:secret@host".to_owned();
        spec.margins.ready_by_seconds = 5000;
        let reasons = reasons(&spec);
        for part in [
            "chainID",
            "quorum is 4",
            "used twice",
            "one witness",
            "restURL must begin",
            "margins must satisfy",
        ] {
            assert!(
                reasons.iter().any(|reason| reason.contains(part)),
                "{part}: {reasons:?}"
            );
        }
        assert!(!reasons.iter().any(|reason| reason.contains("secret")));
    }
}
