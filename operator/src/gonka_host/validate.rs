//! Box 3: every reason why a GonkaHost cannot be worked on. Pure.

use std::collections::BTreeSet;

use crds::conditions::Reason;
use crds::gonka_host::{ExternalNetworkNode, ParticipationMode};

use super::observed::{Observed, Other};
use crate::dapi::{Endpoint, check_endpoint};

/// One reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// `InvalidSpec` or `MissingReference`.
    pub reason: Reason,
    /// What is wrong and what to do.
    pub text: String,
}

fn invalid(text: impl Into<String>) -> Problem {
    Problem {
        reason: Reason::InvalidSpec,
        text: text.into(),
    }
}

fn missing(text: impl Into<String>) -> Problem {
    Problem {
        reason: Reason::MissingReference,
        text: text.into(),
    }
}

/// All reasons; none means the host is accepted.
pub fn problems(observed: &Observed) -> Vec<Problem> {
    let spec = &observed.host.spec;
    let mut problems = Vec::new();
    if !observed.schedule_exists {
        problems.push(missing(format!(
            "spec.scheduleName: there is no SprintSchedule {:?}; create it or name another",
            spec.schedule_name
        )));
    }
    account(observed, &mut problems);
    web_url("spec.publicURL", &spec.public_url, &mut problems);
    match &spec.network_node.external {
        None => problems.push(invalid(
            "spec.networkNode.external: it is required while type is External",
        )),
        Some(external) => network_node(external, &mut problems),
    }
    if !observed.secret_problem.is_empty() {
        problems.push(missing(format!(
            "spec.networkNode.external.adminAuthSecretRef: {}",
            observed.secret_problem
        )));
    }
    participation(observed, &mut problems);
    let basis_points = spec.disruption.max_weight_basis_points;
    if !(0..=909).contains(&basis_points) {
        problems.push(invalid(format!(
            "spec.disruption.maxWeightBasisPoints: {basis_points} is not in 0..=909"
        )));
    }
    answers(observed, &mut problems);
    problems.extend(observed.others.iter().filter_map(|other| rival(observed, other)));
    problems
}

fn account(observed: &Observed, problems: &mut Vec<Problem>) {
    let account = &observed.host.spec.account;
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if account.address.is_empty() || !plain(&account.address) || !account.address.contains('1') {
        problems.push(invalid(format!(
            "spec.account.address: {:?} is no bech32 address",
            account.address
        )));
    }
    let key = &account.cold_public_key;
    let hex = key
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if key.len() != 66 || !hex || !(key.starts_with("02") || key.starts_with("03")) {
        problems.push(invalid(
            "spec.account.coldPublicKey: it is no lower-case hex of a compressed secp256k1 key",
        ));
    }
}

fn network_node(external: &ExternalNetworkNode, problems: &mut Vec<Problem>) {
    web_url("spec.networkNode.external.adminURL", &external.admin_url, problems);
    web_url("spec.networkNode.external.publicURL", &external.public_url, problems);
    web_url(
        "spec.networkNode.external.expectedCallbackURL",
        &external.expected_callback_url,
        problems,
    );
    if let Some(bundle) = &external.ca_bundle {
        // The URLs are judged above; here only the certificates can fail.
        let endpoint = Endpoint {
            admin_url: "https://localhost".to_owned(),
            public_url: "https://localhost".to_owned(),
            ca_bundle: Some(bundle.clone()),
            token: None,
        };
        if let Err(error) = check_endpoint(&endpoint) {
            problems.push(invalid(format!("spec.networkNode.external.caBundle: {error}")));
        }
        if !external.admin_url.starts_with("https://") {
            problems.push(invalid(
                "spec.networkNode.external.caBundle: adminURL is not https, nothing would be checked",
            ));
        }
    }
}

fn web_url(field: &str, text: &str, problems: &mut Vec<Problem>) {
    let fault = match reqwest::Url::parse(text) {
        Err(error) => Some(error.to_string()),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Some("it must begin with http:// or https://".to_owned())
        }
        Ok(url) if url.host_str().is_none() => Some("it names no host".to_owned()),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            problems.push(invalid(format!(
                "{field}: it carries credentials; put them into a Secret"
            )));
            return;
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => Some("it must end with its path".to_owned()),
        Ok(_) => None,
    };
    if let Some(fault) = fault {
        problems.push(invalid(format!("{field}: {text:?} cannot be used: {fault}")));
    }
}

fn participation(observed: &Observed, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for part in &observed.host.spec.participation {
        let field = format!("spec.participation[{}]", part.model_id);
        if !seen.insert(&part.model_id) {
            problems.push(invalid(format!("{field}: the model is named twice")));
        }
        if (part.mode == ParticipationMode::Delegate) != part.delegate_address.is_some() {
            problems.push(invalid(format!(
                "{field}: delegateAddress must be set if and only if mode is Delegate"
            )));
        }
    }
}

/// A DAPI of somebody else must not be written to, whatever the URL says.
fn answers(observed: &Observed, problems: &mut Vec<Problem>) {
    let ours = &observed.host.spec.account.address;
    let told = [
        ("publicURL", observed.identity.value.as_deref()),
        (
            "adminURL",
            observed.report.value.as_ref().map(|report| report.account.as_str()),
        ),
    ];
    for (field, account) in told {
        if let Some(account) = account
            && !account.is_empty()
            && account != ours
        {
            problems.push(invalid(format!(
                "spec.networkNode.external.{field}: the network node there works for account {account}, not for {ours}"
            )));
        }
    }
}

/// Two GonkaHosts for one account or one DAPI would undo each other's work: the older one keeps it.
fn rival(observed: &Observed, other: &Other) -> Option<Problem> {
    let created = observed
        .host
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(i64::MAX, |time| time.0.as_millisecond());
    let name = format!("{}/{}", observed.namespace(), observed.name());
    if (other.created_ms, other.name.as_str()) >= (created, name.as_str()) {
        return None;
    }
    let spec = &observed.host.spec;
    if other.schedule == spec.schedule_name && other.account == spec.account.address {
        return Some(invalid(format!(
            "spec.account.address: GonkaHost {} already stands for this account",
            other.name
        )));
    }
    let admin = spec
        .network_node
        .external
        .as_ref()
        .map_or("", |external| external.admin_url.as_str());
    let same = |url: &str| url.trim_end_matches('/').to_owned();
    (!admin.is_empty() && same(admin) == same(&other.admin_url)).then(|| {
        invalid(format!(
            "spec.networkNode.external.adminURL: GonkaHost {} already keeps this network node",
            other.name
        ))
    })
}
