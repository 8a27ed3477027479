//! Golden decisions: `observed.yaml` (a merge patch on `base.yaml`, a settled deployment) → `desired.yaml`.
//! `UPDATE_GENERATED=1` writes `base.yaml` and every `desired.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use operator::change::{Change, Object};
use operator::model_deployment::decide::{self, Desired, Step};
use operator::model_deployment::observed::Observed;
use serde_json::{Value, json};

use crate::fleet::Fleet;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model_deployment")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the switch of every generator of this repository"
)]
fn updating() -> bool {
    std::env::var_os("UPDATE_GENERATED").is_some()
}

/// Compares with the file, or writes it.
fn same(path: &Path, text: &str) -> bool {
    if updating() {
        std::fs::write(path, text).expect("the golden folder is writable");
        return true;
    }
    std::fs::read_to_string(path).unwrap_or_default() == text
}

fn yaml(value: &impl serde::Serialize) -> String {
    serde_yaml::to_string(value).expect("a value is YAML")
}

fn base() -> Value {
    let mut fleet = Fleet::new(2, 1, 3);
    fleet.settle(60).expect("a new deployment comes to rest");
    serde_json::to_value(fleet.observe()).expect("a snapshot is JSON")
}

/// RFC 7396.
fn patch(target: &mut Value, patch_value: &Value) {
    let Value::Object(patch_map) = patch_value else {
        *target = patch_value.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch_map {
        if value.is_null() {
            target.as_object_mut().expect("made above").remove(key);
        } else {
            patch(&mut target[key], value);
        }
    }
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("each case has an observed.yaml");
    serde_yaml::from_str(&text).expect("observed.yaml is YAML")
}

fn render(desired: &Desired) -> Value {
    let slots: Vec<Value> = desired
        .slots
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.slot,
                "takeover": slot.takeover.as_ref().map(|takeover| json!({
                    "from": takeover.from, "to": takeover.to, "cause": takeover.cause,
                    "generation": takeover.generation, "nodeID": takeover.node_id,
                })),
                "steps": slot.steps.iter().map(step).collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut shown: BTreeMap<String, usize> = BTreeMap::new();
    let changes: Vec<Value> = desired
        .changes
        .iter()
        .filter_map(|entry| {
            let value = change(entry);
            let times = shown.entry(value.to_string()).or_default();
            *times += 1;
            (*times == 1).then_some(value)
        })
        .collect();
    let repeated: Vec<usize> = shown.into_values().filter(|times| *times > 1).collect();
    json!({
        "slots": slots,
        "changes": changes,
        "sameAgain": repeated,
        "rehearsals": desired.rehearsals.iter().map(|rehearsal| json!({
            "pod": rehearsal.pod, "slot": rehearsal.slot, "generation": rehearsal.generation,
            "nonces": rehearsal.nonces, "seed": rehearsal.round.seed, "callbackURL": rehearsal.round.callback_url,
        })).collect::<Vec<_>>(),
        "asked": desired.asked.iter().map(|(action, verdict)| json!({
            "action": action.to_string(), "verdict": verdict,
        })).collect::<Vec<_>>(),
        "againAfterMillis": desired.again_after_ms,
    })
}

fn step(step: &Step) -> Value {
    match step {
        Step::Demote(demote) => json!({"demote": {
            "pod": demote.pod, "address": demote.address, "slot": demote.slot, "generation": demote.generation,
            "superseded": demote.superseded,
        }}),
        Step::Change(entry) => change(entry),
        Step::Promote(promote) => json!({"promote": {
            "pod": promote.pod, "address": promote.address, "slot": promote.slot, "generation": promote.generation,
            "nodeID": promote.node_id, "nodeNum": promote.node_num, "callbackBase": promote.callback_base,
            "running": promote.running, "resume": promote.resume,
        }}),
    }
}

fn change(change: &Change) -> Value {
    let named = |verb: &str, object: &Object| json!({ verb: object.value });
    match change {
        // The whole pod is in `pod.yaml`.
        Change::Apply(object) if object.resource.kind == "ControllerRevision" => json!({"record": {
            "name": object.name, "number": object.value["revision"], "labels": object.value["metadata"]["labels"],
            "weights": object.value["data"]["spec"]["containers"][0]["command"][8],
        }}),
        Change::Apply(object) => named("apply", object),
        Change::Merge(object) => named("merge", object),
        // The whole pod is in `pod.yaml`.
        Change::Create(object) => json!({"create": {
            "labels": object.value["metadata"]["labels"], "affinity": object.value["spec"]["affinity"],
        }}),
        Change::Status(object) => json!({"status": status(&object.value["status"])}),
        Change::Delete(deletion) => json!({"delete": {
            "kind": deletion.resource.kind, "name": deletion.name, "uid": deletion.uid,
            "graceSeconds": deletion.grace_seconds,
        }}),
        Change::Event(notice) => json!({"event": {
            "warning": notice.warning, "reason": notice.reason, "note": notice.note,
        }}),
    }
}

/// A status with each condition in one line.
fn status(value: &Value) -> Value {
    let mut value = value.clone();
    let conditions: BTreeMap<String, String> = value["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|condition| {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            (
                text("type"),
                format!("{} {}: {}", text("status"), text("reason"), text("message")),
            )
        })
        .collect();
    value["conditions"] = json!(conditions);
    value
}

#[test]
fn a_slot_pod_is_as_recorded() {
    let mut fleet = Fleet::new(1, 0, 1);
    fleet.deployment.spec.placement.node_selector = BTreeMap::from([("pool".to_owned(), "h200".to_owned())]);
    let desired = decide::decide(&fleet.observe());
    let created = desired.changes.iter().find_map(|change| match change {
        Change::Create(object) => Some(object.value.clone()),
        _ => None,
    });
    let created = created.expect("a new deployment makes a pod");
    let typed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(created.clone()).expect("it is a pod");
    assert_eq!(
        serde_json::to_value(typed).expect("JSON"),
        created,
        "every field is one that pods have"
    );
    assert!(
        same(&folder().join("pod.yaml"), &yaml(&created)),
        "the slot pod is not as recorded; look at the difference, then run with UPDATE_GENERATED=1"
    );
    assert!(
        !yaml(&created).contains(env!("CARGO_PKG_VERSION")),
        "nothing of the operator's own version is in it: an upgrade would roll every pod"
    );
    // Another operator: it has settled the fleet long ago, has other flags than slots see, and was told other things.
    fleet.settle(60).expect("a new deployment comes to rest");
    fleet.deployment.spec.rollout.canary_slots = 3;
    fleet.deployment.metadata.generation = Some(7);
    fleet.facts.height += 1_000;
    fleet.remove_pod("tiny-0001");
    let again = decide::decide(&fleet.observe())
        .changes
        .into_iter()
        .find_map(|change| match change {
            Change::Create(object) => Some(object.value),
            _ => None,
        });
    assert_eq!(again, Some(created), "the same spec makes the same pod");
}

#[test]
fn decisions_are_as_recorded() {
    let base = base();
    assert!(
        same(&folder().join("base.yaml"), &yaml(&base)),
        "base.yaml is not what a settled deployment looks like; look at the difference, then run with UPDATE_GENERATED=1"
    );
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("there are goldens")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 15, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let mut value = base.clone();
        patch(&mut value, &read(&case.join("observed.yaml")));
        let observed: Observed =
            serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let desired = decide::decide(&observed);
        crate::between::nothing_comes_between_two_looks(&observed, &desired);
        let text = yaml(&render(&desired));
        if !same(&case.join("desired.yaml"), &text) {
            wrong.push(format!("{}\n{text}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "not as recorded:\n{}", wrong.join("\n"));
}

#[test]
fn a_revision_that_is_known_is_not_computed_again_and_another_spec_is_another_revision() {
    let mut fleet = Fleet::new(2, 1, 3);
    let mut revisions = decide::Revisions::default();
    let first = revisions.of(&fleet.observe());
    fleet.deployment.spec.slots = 1;
    let created = |fleet: &Fleet, revision: Option<String>| {
        let mut observed = fleet.observe();
        observed.revision = revision;
        let pods = decide::decide(&observed).changes.into_iter();
        let labels = pods.filter_map(|change| match change {
            Change::Create(object) => object.value["metadata"]["labels"][crds::labels::REVISION]
                .as_str()
                .map(str::to_owned),
            _ => None,
        });
        labels.collect::<Vec<_>>()
    };
    assert_eq!(
        created(&fleet, None),
        created(&fleet, Some(revisions.of(&fleet.observe())))
    );
    fleet.deployment.spec.slots = 2;
    fleet.deployment.spec.model.revision = Some("public-tiny-v2".to_owned());
    let second = revisions.of(&fleet.observe());
    assert_ne!(first, second);
    assert_eq!(created(&fleet, None), vec![second; 3]);
    fleet.deployment.spec.model.revision = Some("public-tiny-v1".to_owned());
    assert_eq!(revisions.of(&fleet.observe()), first);
}

#[test]
fn a_snapshot_survives_being_written_and_read() {
    let value = base();
    let observed: Observed = serde_json::from_value(value.clone()).expect("it is a snapshot");
    assert_eq!(serde_json::to_value(observed).expect("JSON"), value);
}
