use k8s_openapi::api::core::v1::Pod;
use kube::api::ApiResource;

use super::*;

const NOW: i64 = 1_800_000_000_000;

fn object(kind: &str, name: &str, value: Value) -> Object {
    let mut resource = ApiResource::erase::<Pod>(&());
    kind.clone_into(&mut resource.kind);
    Object {
        resource,
        namespace: Some("gonka".to_owned()),
        name: name.to_owned(),
        value,
    }
}

fn pod(store: &mut Store) -> Id {
    let value = json!({"metadata": {"generateName": "tiny-", "labels": {"fleet.gonka.ai/protected": "true"}}, "spec": {"nodeName": "n1"}});
    let made = store.write("m", Change::Create(object("Pod", "", value)), NOW);
    made.expect("made").expect("a pod has a place")
}

#[test]
fn a_write_that_changes_nothing_is_no_news() {
    let mut store = Store::default();
    let value = json!({"spec": {"a": 1}, "status": {"ignored": true}});
    let write = Change::Apply(object("Service", "s", value));
    store.write("m", write.clone(), NOW).expect("written");
    assert_eq!(store.take_news().len(), 1);
    store.write("m", write, NOW + 5_000).expect("written");
    assert!(!store.has_news());
    let (_, value) = store.list(Kind::Service).next().expect("there");
    assert!(
        value["status"].is_null(),
        "an apply of the object leaves its status alone"
    );
}

#[test]
fn only_a_change_of_the_spec_is_a_new_generation() {
    let mut store = Store::default();
    let id = store.make(
        Kind::ModelDeployment,
        "gonka",
        "tiny",
        json!({"spec": {"slots": 1}}),
        NOW,
    );
    store
        .edit(&id, |value| value["status"] = json!({"x": 1}))
        .expect("there");
    assert_eq!(store.get(&id).expect("there")["metadata"]["generation"], json!(1));
    store
        .edit(&id, |value| value["spec"]["slots"] = json!(2))
        .expect("there");
    assert_eq!(store.get(&id).expect("there")["metadata"]["generation"], json!(2));
}

#[test]
fn a_write_that_names_another_uid_is_refused_and_makes_nothing() {
    let mut store = Store::default();
    let id = pod(&mut store);
    let labels = |uid: &str, name: &str| {
        Change::Apply(object(
            "Pod",
            name,
            json!({"metadata": {"uid": uid, "labels": {"x": "y"}}}),
        ))
    };
    let stranger = store.write("m", labels("stranger", &id.name), NOW);
    assert_eq!(stranger, Err(Refusal::Conflict(id.clone())));
    assert!(store.write("m", labels("any", "gone"), NOW).is_err());
    assert_eq!(store.list(Kind::Pod).count(), 1);
}

#[test]
fn a_running_pod_is_told_to_end_and_goes_at_once_only_by_force() {
    let mut store = Store::default();
    let id = pod(&mut store);
    store.delete(&id, Actor::Operator, None, NOW).expect("told");
    assert!(!store.get(&id).expect("ending")["metadata"]["deletionTimestamp"].is_null());
    store.delete(&id, Actor::Operator, Some(0), NOW).expect("removed");
    assert!(store.get(&id).is_none());
}

#[test]
fn nobody_else_deletes_what_carries_a_slot_without_breaking_the_glass() {
    let mut store = Store::default();
    let id = pod(&mut store);
    let denied = store.delete(&id, Actor::Person, None, NOW);
    assert_eq!(denied, Err(Refusal::Denied(id.clone())));
    let annotate = |value: &mut Value| value["metadata"]["annotations"]["fleet.gonka.ai/break-glass"] = json!("fire");
    store.edit(&id, annotate).expect("there");
    assert_eq!(store.delete(&id, Actor::Person, None, NOW), Ok(()));
}

#[test]
fn an_old_list_shows_what_was_there_then() {
    let mut store = Store::default();
    let id = pod(&mut store);
    let then = store.version();
    store
        .edit(&id, |value| value["status"]["phase"] = json!("Running"))
        .expect("there");
    store.remove(&id);
    assert!(store.list_at(Kind::Pod, store.version()).is_empty());
    let old = store.list_at(Kind::Pod, then);
    assert_eq!(old.len(), 1);
    assert_eq!(old[0].1["status"]["phase"], json!("Pending"));
}

#[test]
fn an_owner_takes_with_it_what_nothing_protects() {
    let mut store = Store::default();
    let owner = store.make(Kind::ModelDeployment, "gonka", "tiny", json!({}), NOW);
    let uid = store.get(&owner).expect("there")["metadata"]["uid"].clone();
    let child = |protected: &str| json!({"metadata": {"ownerReferences": [{"uid": uid}], "labels": {"fleet.gonka.ai/protected": protected}}});
    store.make(Kind::PodDisruptionBudget, "gonka", "tiny", child("false"), NOW);
    store.make(Kind::Pod, "gonka", "tiny-1", child("true"), NOW);
    store.remove(&owner);
    assert_eq!(store.list(Kind::PodDisruptionBudget).count(), 0);
    assert_eq!(
        store.list(Kind::Pod).count(),
        1,
        "the policies keep it from the collector"
    );
}

#[test]
fn an_eviction_is_refused_by_the_budget_and_without_one_by_the_policies() {
    let mut store = Store::default();
    let id = pod(&mut store);
    store
        .edit(&id, |value| {
            value["metadata"]["labels"]["app"] = json!("slot");
            value["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        })
        .expect("there");
    assert_eq!(store.evict(&id, NOW), Err(Refusal::Denied(id.clone())));
    let budget = |least: u32| json!({"spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "slot"}}}});
    let kept = store.make(Kind::PodDisruptionBudget, "gonka", "tiny", budget(1_000_000), NOW);
    assert_eq!(store.evict(&id, NOW), Err(Refusal::Budget(id.clone())));
    store
        .edit(&kept, |value| value["spec"] = budget(0)["spec"].clone())
        .expect("there");
    assert_eq!(store.evict(&id, NOW), Err(Refusal::Denied(id.clone())));
    store
        .edit(&id, |value| {
            value["metadata"]["labels"]["fleet.gonka.ai/protected"] = json!("false");
        })
        .expect("there");
    assert_eq!(store.evict(&id, NOW), Ok(()));
}
