//! What slot pods need in their namespace to know whom to trust: an account without rights, and the keys that sign the
//! operator's token. Shared by all deployments of the namespace, so nobody owns them. Pure.

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
/// Its key.
pub const KEYS: &str = "jwks.json";

/// Writes of what is missing or differs. Keys the operator does not have yet change nothing.
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
    let keys = seen.trust_keys.as_ref().map(|keys| ConfigMap {
        metadata: metadata(CONFIG_MAP),
        data: Some(BTreeMap::from([(KEYS.to_owned(), keys.clone())])),
        ..ConfigMap::default()
    });
    objects::unless_covered(seen.account.as_ref(), Object::of(&account))
        .into_iter()
        .chain(keys.and_then(|keys| objects::unless_covered(seen.trust.as_ref(), Object::of(&keys))))
        .collect()
}
