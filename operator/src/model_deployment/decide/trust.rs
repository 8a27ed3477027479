//! What slot pods need in their namespace to know whom to trust: an account without rights, the keys that sign the operator's
//! token, and the authorities that vouch for FleetSignal's certificate. Shared by all deployments of the namespace, so nobody owns them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::objects;
use crate::change::{Change, Object};
use crate::model_deployment::observed::Observed;

/// ServiceAccount of slot pods.
pub const ACCOUNT: &str = "gonka-slot";
/// ConfigMap with the keys.
pub const CONFIG_MAP: &str = "slot-trust";
/// Its keys.
pub const KEYS: &str = "jwks.json";
/// Certificates that FleetSignal's certificate is checked with.
pub const AUTHORITIES: &str = "signal-ca.pem";

/// Writes of what is missing or differs. What the operator does not have yet stays as it is.
pub fn changes(seen: &Observed) -> Vec<Change> {
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(seen.namespace().to_owned()),
        annotations: Some(BTreeMap::from([(
            crds::labels::INSTALL_ID.to_owned(),
            seen.install.install_id.clone(),
        )])),
        ..ObjectMeta::default()
    };
    let account = ServiceAccount {
        metadata: metadata(ACCOUNT),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let there = seen.trust.as_ref().and_then(|trust| trust.data.as_ref());
    let data: BTreeMap<String, String> = [(KEYS, &seen.trust_keys), (AUTHORITIES, &seen.trust_authorities)]
        .into_iter()
        .filter_map(|(key, known)| {
            // Ours is the only manager: what is left out of a write is taken away.
            let text = known.as_ref().or_else(|| there?.get(key))?;
            Some((key.to_owned(), text.clone()))
        })
        .collect();
    let is_known = seen.trust_keys.is_some() || seen.trust_authorities.is_some();
    // Without keys there are no pods, and a ConfigMap without them would be taken for one with.
    let keys = (is_known && data.contains_key(KEYS)).then(|| ConfigMap {
        metadata: metadata(CONFIG_MAP),
        data: Some(data),
        ..ConfigMap::default()
    });
    objects::unless_covered(seen.account.as_ref(), Object::of(&account))
        .into_iter()
        .chain(keys.and_then(|keys| objects::unless_covered(seen.trust.as_ref(), Object::of(&keys))))
        .collect()
}
