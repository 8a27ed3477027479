//! Box 3: marks follow what carries slots; glass that was broken is told of and mended; what protects and is gone is told of.
//! Pure.

use std::collections::BTreeSet;

use crds::labels::{BREAK_GLASS, BREAK_GLASS_UNTIL, PROTECTED, REARM, REARM_UNTIL};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::ApiResource;
use serde_json::{Value, json};

use crate::change::{Change, Notice, Object};

/// Everything the decision needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Unix milliseconds.
    pub now_ms: i64,
    /// How long a glass stays broken, milliseconds.
    pub broken_millis: i64,
    /// Objects with an annotation of a broken glass.
    pub broken: Vec<Broken>,
    /// Objects of people whose mark is not as it should be.
    pub marks: Vec<Mark>,
    /// Policies that must be there.
    pub wanted: BTreeSet<String>,
    /// Policies that are there and bound; absent when they could not be listed.
    pub bound: Option<BTreeSet<String>>,
    /// Slot pods that somebody tried to take away and could not: condition `DisruptionTarget` is True.
    pub targets: Vec<Target>,
    /// Slot pods whose deployment is gone: told of, nothing is decided of them.
    pub unattended: usize,
    /// Policies that were missing in the last pass.
    pub missing_before: BTreeSet<String>,
    /// UIDs of pods that were targets in the last pass.
    pub targets_before: BTreeSet<String>,
}

/// What a person sets aside for a while by writing down why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seal {
    /// Protection of the object.
    Glass,
    /// The breaker of the GonkaHost.
    Breaker,
}

impl Seal {
    /// Annotations that say why, and until when.
    pub fn annotations(self) -> (&'static str, &'static str) {
        match self {
            Self::Glass => (BREAK_GLASS, BREAK_GLASS_UNTIL),
            Self::Breaker => (REARM, REARM_UNTIL),
        }
    }

    /// Reasons of the Events, and what they say: the words, then why or until when.
    fn words(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Glass => [
                ("GlassBroken", "may be deleted until"),
                ("GlassMended", "protected again; it was broken for"),
            ],
            Self::Breaker => [
                ("BreakerRearmed", "what the breaker held may happen until"),
                ("BreakerArmed", "the breaker holds again; it was set aside for"),
            ],
        }
    }
}

/// An object something of which was set aside because a person wrote down why.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// What was set aside.
    pub seal: Seal,
    /// Kind.
    pub resource: ApiResource,
    /// Absent for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Resource version.
    pub resource_version: String,
    /// Why, as annotated; absent when it was taken off again.
    pub reason: Option<String>,
    /// Until when, as annotated.
    pub until: Option<String>,
}

/// An object of a person's by which slots live: a deployment with pods, its host, their schedule. The mark goes when the last slot
/// has gone, so that what carries nothing can be deleted as usual.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Kind.
    pub resource: ApiResource,
    /// Absent for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Resource version.
    pub resource_version: String,
    /// Slots live by it.
    pub carries: bool,
}

/// A pod that somebody tried to take away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Reason of the condition, for example `PreemptionByScheduler`.
    pub reason: String,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Writes; each is of another object.
    pub changes: Vec<Change>,
    /// Policies that are not there, or not bound.
    pub missing: BTreeSet<String>,
}

/// Decides one pass.
pub fn decide(observed: &Observed) -> Decision {
    let mut changes: Vec<Change> = observed
        .broken
        .iter()
        .flat_map(|broken| set_aside(observed, broken))
        .collect();
    changes.extend(observed.marks.iter().map(mark));
    let missing = match &observed.bound {
        Some(bound) => observed.wanted.difference(bound).cloned().collect(),
        // Not known is not missing, and not there again either.
        None => observed.missing_before.clone(),
    };
    for name in missing.difference(&observed.missing_before) {
        changes.push(Change::Event(Notice {
            regarding: reference(
                "admissionregistration.k8s.io/v1",
                "ValidatingAdmissionPolicy",
                None,
                name,
                "",
            ),
            warning: true,
            reason: "ProtectionRemoved".to_owned(),
            note: format!(
                "the admission policy {name} or its binding is gone: slots can be deleted; helm upgrade puts it back"
            ),
        }));
    }
    for target in observed
        .targets
        .iter()
        .filter(|target| !observed.targets_before.contains(&target.uid))
    {
        changes.push(Change::Event(Notice {
            regarding: reference("v1", "Pod", Some(&target.namespace), &target.name, &target.uid),
            warning: true,
            reason: "DisruptionDenied".to_owned(),
            note: format!(
                "{} tried to take this slot pod away and was denied; see the runbook",
                target.reason
            ),
        }));
    }
    Decision { changes, missing }
}

/// A reason begins a time at whose end both annotations are taken off. An end that lies further away is not believed.
fn set_aside(observed: &Observed, broken: &Broken) -> Vec<Change> {
    let latest = observed.now_ms + observed.broken_millis;
    let until = broken
        .until
        .as_ref()
        .and_then(|text| text.parse::<Timestamp>().ok())
        .map(Timestamp::as_millisecond)
        // Written in whole seconds, by a clock that may be another replica's.
        .filter(|until| *until <= latest + 2_000);
    let (why, limit) = broken.seal.annotations();
    let [(opened, may), (closed, was)] = broken.seal.words();
    let Some(reason) = &broken.reason else {
        return vec![patch(broken, &json!({limit: null}))];
    };
    match until {
        None => {
            let end = Timestamp::from_second(latest / 1000)
                .unwrap_or(Timestamp::UNIX_EPOCH)
                .to_string();
            let note = format!("{may} {end}: {reason}; who did it is in the API server's audit log");
            vec![patch(broken, &json!({limit: end})), notice(broken, opened, &note)]
        }
        Some(until) if until <= observed.now_ms => vec![
            patch(broken, &json!({why: null, limit: null})),
            notice(broken, closed, &format!("{was}: {reason}")),
        ],
        Some(_) => Vec::new(),
    }
}

fn mark(mark: &Mark) -> Change {
    Change::Merge(Object {
        resource: mark.resource.clone(),
        namespace: mark.namespace.clone(),
        name: mark.name.clone(),
        value: json!({"metadata": {
            "uid": mark.uid, "resourceVersion": mark.resource_version,
            "labels": {PROTECTED: mark.carries.then_some("true")},
        }}),
    })
}

fn patch(broken: &Broken, annotations: &Value) -> Change {
    Change::Merge(Object {
        resource: broken.resource.clone(),
        namespace: broken.namespace.clone(),
        name: broken.name.clone(),
        value: json!({"metadata": {
            "uid": broken.uid, "resourceVersion": broken.resource_version, "annotations": annotations,
        }}),
    })
}

fn notice(broken: &Broken, reason: &str, note: &str) -> Change {
    let resource = &broken.resource;
    Change::Event(Notice {
        regarding: reference(
            &resource.api_version,
            &resource.kind,
            broken.namespace.as_deref(),
            &broken.name,
            &broken.uid,
        ),
        warning: true,
        reason: reason.to_owned(),
        note: note.chars().take(1024).collect(),
    })
}

fn reference(api_version: &str, kind: &str, namespace: Option<&str>, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn broken(reason: Option<&str>, until: Option<&str>) -> Broken {
        Broken {
            seal: Seal::Glass,
            resource: ApiResource::erase::<Pod>(&()),
            namespace: Some("gonka".to_owned()),
            name: "tiny-abc".to_owned(),
            uid: "u1".to_owned(),
            resource_version: "7".to_owned(),
            reason: reason.map(str::to_owned),
            until: until.map(str::to_owned),
        }
    }

    fn pass(now_ms: i64, broken: Broken) -> Vec<Change> {
        let observed = Observed {
            now_ms,
            broken_millis: 900_000,
            broken: vec![broken],
            ..Observed::default()
        };
        decide(&observed).changes
    }

    fn annotations(changes: &[Change]) -> Value {
        let Some(Change::Merge(object)) = changes.first() else {
            panic!("a patch: {changes:?}")
        };
        assert_eq!(object.value["metadata"]["resourceVersion"], "7");
        object.value["metadata"]["annotations"].clone()
    }

    #[test]
    fn a_broken_glass_gets_an_end_is_told_of_once_and_mended_then() {
        let end = "2023-11-14T22:28:20Z";
        let first = pass(NOW, broken(Some("fire"), None));
        assert_eq!(annotations(&first), json!({BREAK_GLASS_UNTIL: end}));
        assert!(
            matches!(&first[1], Change::Event(notice) if notice.reason == "GlassBroken" && notice.note.contains("fire"))
        );
        assert!(pass(NOW + 899_000, broken(Some("fire"), Some(end))).is_empty());
        let last = pass(NOW + 900_000, broken(Some("fire"), Some(end)));
        assert_eq!(annotations(&last), json!({BREAK_GLASS: null, BREAK_GLASS_UNTIL: null}));
        assert!(matches!(&last[1], Change::Event(notice) if notice.reason == "GlassMended"));
    }

    #[test]
    fn a_breaker_that_a_person_closed_holds_again_after_a_while() {
        let breaker = |reason, until| Broken {
            seal: Seal::Breaker,
            ..broken(reason, until)
        };
        let end = "2023-11-14T22:28:20Z";
        let first = pass(NOW, breaker(Some("scaled down"), None));
        assert_eq!(annotations(&first), json!({REARM_UNTIL: end}));
        assert!(matches!(&first[1], Change::Event(notice) if notice.reason == "BreakerRearmed"));
        let last = pass(NOW + 900_000, breaker(Some("scaled down"), Some(end)));
        assert_eq!(annotations(&last), json!({REARM: null, REARM_UNTIL: null}));
        assert!(matches!(&last[1], Change::Event(notice) if notice.reason == "BreakerArmed"));
    }

    #[test]
    fn an_end_that_somebody_wrote_too_far_away_or_wrongly_counts_for_nothing() {
        for end in ["2099-01-01T00:00:00Z", "tomorrow"] {
            let changes = pass(NOW, broken(Some("fire"), Some(end)));
            assert_eq!(
                annotations(&changes),
                json!({BREAK_GLASS_UNTIL: "2023-11-14T22:28:20Z"})
            );
        }
    }

    #[test]
    fn a_reason_that_was_taken_off_takes_the_end_with_it() {
        let changes = pass(NOW, broken(None, Some("2023-11-14T22:28:20Z")));
        assert_eq!(annotations(&changes), json!({BREAK_GLASS_UNTIL: null}));
        assert_eq!(changes.len(), 1);
    }

    #[test]
    fn a_policy_that_is_gone_is_told_of_once_and_one_that_cannot_be_read_is_not() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut observed = Observed {
            wanted: set(&["a", "b"]),
            bound: Some(set(&["a"])),
            ..Observed::default()
        };
        let decision = decide(&observed);
        assert_eq!((decision.missing.clone(), decision.changes.len()), (set(&["b"]), 1));
        observed.missing_before = decision.missing;
        assert!(decide(&observed).changes.is_empty());
        observed.bound = None;
        assert_eq!(decide(&observed).missing, set(&["b"]), "not known is not there again");
    }

    #[test]
    fn a_pod_that_somebody_tried_to_take_away_is_told_of_once() {
        let target = Target {
            namespace: "gonka".to_owned(),
            name: "tiny-abc".to_owned(),
            uid: "u1".to_owned(),
            reason: "PreemptionByScheduler".to_owned(),
        };
        let mut observed = Observed {
            targets: vec![target],
            ..Observed::default()
        };
        assert_eq!(decide(&observed).changes.len(), 1);
        observed.targets_before.insert("u1".to_owned());
        assert!(decide(&observed).changes.is_empty());
    }

    #[test]
    fn what_carries_slots_is_marked_and_what_does_not_any_more_is_not() {
        for (carries, label) in [(true, json!("true")), (false, Value::Null)] {
            let observed = Observed {
                marks: vec![Mark {
                    resource: ApiResource::erase::<crds::ModelDeployment>(&()),
                    namespace: Some("gonka".to_owned()),
                    name: "tiny".to_owned(),
                    uid: "u1".to_owned(),
                    resource_version: "7".to_owned(),
                    carries,
                }],
                ..Observed::default()
            };
            let changes = decide(&observed).changes;
            let [Change::Merge(object)] = changes.as_slice() else {
                panic!("one patch: {changes:?}")
            };
            assert_eq!(object.value["metadata"]["labels"], json!({PROTECTED: label}));
        }
    }
}
