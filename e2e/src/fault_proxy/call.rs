//! What a request is: a read, a list, a watch or a write, of which object, by which controller. Pure.

use http::{Method, Uri};

/// What is done to an object.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Apply,
    Update,
    Delete,
}

impl Verb {
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Apply | Self::Update | Self::Delete)
    }
}

/// Writes of Events are no part of any promise: a failure to write one fails nothing.
pub const EVENTS: &str = "events";
/// Name of the controller behind lease writes, which name no field manager.
pub const LEADER: &str = "leader";
/// What precedes a controller's name in its field manager.
const MANAGER: &str = "gonka-fleet/";
/// First part of the DAPI's admin paths.
const DAPI: &str = "admin";

/// One request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    pub verb: Verb,
    /// Plural of the kind; the first part of the path where it is no kind of Kubernetes.
    pub resource: String,
    pub subresource: String,
    /// Empty where there is none.
    pub namespace: String,
    /// Empty for lists, watches and creates.
    pub name: String,
    /// Empty for reads, and for writes that are nobody's.
    pub controller: String,
}

impl Call {
    /// Reads a request's first line.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let query = Query(uri.query().unwrap_or_default());
        let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let place = Place::of(&parts);
        let verb = match method.as_str() {
            "POST" => Verb::Create,
            "PATCH" => Verb::Apply,
            "PUT" => Verb::Update,
            "DELETE" => Verb::Delete,
            _ if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") => Verb::Watch,
            _ if place.name.is_empty() => Verb::List,
            _ => Verb::Get,
        };
        let mut call = Self {
            verb,
            resource: place.resource.to_owned(),
            subresource: place.subresource.to_owned(),
            namespace: place.namespace.to_owned(),
            name: place.name.to_owned(),
            controller: String::new(),
        };
        if verb.is_write() {
            call.controller = controller(&call, query.get("fieldManager"));
        }
        call
    }

    /// The write for people: `delete pods tiny-x7f2k`.
    pub fn shown(&self) -> String {
        let verb = match self.verb {
            Verb::Apply if self.subresource == "status" => "status".to_owned(),
            verb => format!("{verb:?}").to_lowercase(),
        };
        format!("{verb} {} {}", self.resource, self.name).trim_end().to_owned()
    }
}

/// Creates of the API name their manager, deletes and leases do not.
fn controller(call: &Call, manager: Option<String>) -> String {
    match (call.resource.as_str(), manager) {
        (EVENTS, _) => EVENTS.to_owned(),
        ("leases", _) => LEADER.to_owned(),
        ("dapi", _) => "dapi".to_owned(),
        (_, Some(manager)) => manager.strip_prefix(MANAGER).unwrap_or(&manager).to_owned(),
        ("sprintruns", None) => "sprint-run".to_owned(),
        ("pods" | "services" | "endpointslices" | "poddisruptionbudgets", None) => "model-deployment".to_owned(),
        _ => String::new(),
    }
}

/// An object's address.
#[derive(Clone, Copy, Debug, Default)]
struct Place<'a> {
    namespace: &'a str,
    resource: &'a str,
    name: &'a str,
    subresource: &'a str,
}

impl<'a> Place<'a> {
    fn of(parts: &[&'a str]) -> Self {
        let at = |parts: &[&'a str], index: usize| parts.get(index).copied().unwrap_or_default();
        let rest = match parts.first() {
            Some(&"api") => parts.get(2..),
            Some(&"apis") => parts.get(3..),
            // admin/v1/nodes/ID
            Some(&DAPI) => {
                return Self {
                    resource: "dapi",
                    name: at(parts, 3),
                    subresource: "",
                    namespace: "",
                };
            }
            _ => None,
        };
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            return Self {
                resource: at(parts, 0),
                name: at(parts, 1),
                ..Self::default()
            };
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, kind @ ..] if !kind.is_empty() => (*namespace, kind),
            rest => ("", rest),
        };
        Self {
            namespace,
            resource: at(rest, 0),
            name: at(rest, 1),
            subresource: at(rest, 2),
        }
    }
}

/// A query string.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| decode(value))
    }
}

/// Percent signs undone. What is no escape stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let escaped = (*byte == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        index += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, uri: &str) -> Call {
        Call::of(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn reads_lists_and_watches_are_told_apart() {
        let verb = |uri| call("GET", uri).verb;
        assert_eq!(verb("/api/v1/namespaces/gonka/pods/a"), Verb::Get);
        assert_eq!(verb("/api/v1/namespaces/kube-system"), Verb::Get);
        assert_eq!(verb("/api/v1/pods?limit=500"), Verb::List);
        assert_eq!(verb("/api/v1/pods?watch=true&resourceVersion=4"), Verb::Watch);
        assert!(!verb("/openid/v1/jwks").is_write());
    }

    #[test]
    fn a_write_is_its_controllers() {
        let apply = call(
            "PATCH",
            "/apis/fleet.gonka.ai/v1alpha1/namespaces/gonka/modeldeployments/tiny/status?force=true&fieldManager=gonka-fleet%2Fmodel-deployment",
        );
        assert_eq!(
            apply,
            Call {
                verb: Verb::Apply,
                resource: "modeldeployments".into(),
                subresource: "status".into(),
                namespace: "gonka".into(),
                name: "tiny".into(),
                controller: "model-deployment".into(),
            }
        );
        assert_eq!(apply.shown(), "status modeldeployments tiny");
        let controller = |method, uri| call(method, uri).controller;
        assert_eq!(
            controller("DELETE", "/api/v1/namespaces/gonka/pods/a"),
            "model-deployment"
        );
        assert_eq!(
            controller("PUT", "/apis/coordination.k8s.io/v1/namespaces/gonka-system/leases/x"),
            LEADER
        );
        assert_eq!(
            controller(
                "POST",
                "/apis/events.k8s.io/v1/namespaces/gonka/events?fieldManager=gonka-fleet%2Fx"
            ),
            EVENTS
        );
        assert_eq!(controller("POST", "/admin/v1/nodes"), "dapi");
        assert_eq!(controller("GET", "/api/v1/pods?fieldManager=x"), "");
    }

    #[test]
    fn a_dapi_node_is_named_by_its_id() {
        let put = call("PUT", "/admin/v1/nodes/a1b2c3-tiny-0");
        assert_eq!((put.resource.as_str(), put.name.as_str()), ("dapi", "a1b2c3-tiny-0"));
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(decode("a%2Fb%zz%"), "a/b%zz%");
    }
}
