//! CEL rules and schema bounds without a server: what the API server will refuse, and what it will take.

use crds::{GonkaHost, ModelDeployment, SprintRun, SprintSchedule};
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The examples users are told to apply, by kind.
fn example(kind: &str) -> Value {
    let text = include_str!("../../examples/devnet.yaml");
    serde_yaml::Deserializer::from_str(text)
        .map(|document| <Value as serde::Deserialize>::deserialize(document).expect("YAML"))
        .find(|object| object["kind"] == kind)
        .expect("the example has this kind")
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of its kind")
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("the parent exists")[key] = value;
    object
}

/// Every value of `part` is in `whole`, which may hold defaults besides.
fn covers(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, want)| whole.get(key).is_some_and(|have| covers(have, want))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(have, want)| covers(have, want))
        }
        (whole, part) => whole == part,
    }
}

#[test]
fn examples_parse_and_round_trip() {
    for kind in ["SprintSchedule", "GonkaHost", "ModelDeployment"] {
        let object = example(kind);
        let back = match kind {
            "SprintSchedule" => serde_json::to_value(typed::<SprintSchedule>(object.clone())),
            "GonkaHost" => serde_json::to_value(typed::<GonkaHost>(object.clone())),
            _ => serde_json::to_value(typed::<ModelDeployment>(object.clone())),
        }
        .expect("JSON");
        assert!(covers(&back, &object), "{kind} lost something: {back}");
    }
}

#[test]
fn a_rollout_has_a_canary_and_goes_back_by_itself_unless_told_otherwise() {
    let told =
        |rollout: Value| typed::<ModelDeployment>(with(example("ModelDeployment"), "/spec/rollout", rollout)).spec;
    let mut silent = example("ModelDeployment");
    silent["spec"].as_object_mut().expect("a spec").remove("rollout");
    for spec in [told(json!({})), typed::<ModelDeployment>(silent).spec] {
        let rollout = spec.rollout;
        assert_eq!(
            (rollout.paused, rollout.canary_slots, rollout.automatic_rollback),
            (false, 1, true)
        );
    }
    let rollout = told(json!({"canarySlots": 0, "automaticRollback": false})).rollout;
    assert_eq!((rollout.canary_slots, rollout.automatic_rollback), (0, false));
}

#[test]
fn defaults_are_those_of_mainnet() {
    let mut object = example("SprintSchedule");
    object["spec"].as_object_mut().expect("a spec").remove("margins");
    let schedule: SprintSchedule = typed(object);
    let margins = schedule.spec.margins;
    assert_eq!(
        (
            margins.cold_load_seconds,
            margins.ready_by_seconds,
            margins.drain_seconds,
            margins.first_nonce_seconds
        ),
        (1800, 600, 120, 10)
    );
    let mut object = example("GonkaHost");
    object["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("managementPolicy");
    let host: GonkaHost = typed(object);
    assert_eq!(host.spec.management_policy, crds::gonka_host::ManagementPolicy::Observe);
    assert_eq!(host.spec.disruption.max_weight_basis_points, 300);
}

#[rstest]
#[case("/spec/quorum", json!(4), "quorum cannot be larger")]
#[case("/spec/margins/drainSeconds", json!(900), "coldLoadSeconds >= readyBySeconds >= drainSeconds")]
#[case("/spec/endpoints", json!([{"name": "a", "rpcURL": "ftp://x", "restURL": "http://x"}]), "rpcURL must begin with")]
fn a_schedule_is_refused(#[case] pointer: &str, #[case] value: Value, #[case] message: &str) {
    let object: SprintSchedule = typed(with(example("SprintSchedule"), pointer, value));
    let errors = format!("{:?}", object.validate_cel().expect_err("refused"));
    assert!(errors.contains(message), "{errors}");
}

#[rstest]
#[case("/spec/networkNode", json!({"type": "External"}), "external must be set if and only if")]
#[case("/spec/publicURL", json!("gonka.example.org"), "publicURL must begin with")]
#[case("/spec/participation", json!([{"modelID": "m", "mode": "Delegate"}]), "delegateAddress must be set if and only if")]
fn a_host_is_refused(#[case] pointer: &str, #[case] value: Value, #[case] message: &str) {
    let object: GonkaHost = typed(with(example("GonkaHost"), pointer, value));
    let errors = format!("{:?}", object.validate_cel().expect_err("refused"));
    assert!(errors.contains(message), "{errors}");
}

#[rstest]
#[case("/spec/engine", json!({"type": "VLLM"}), "vllm must be set if and only if")]
#[case("/spec/enrollment", json!("Reserve"), "a Reserve deployment holds no slots")]
fn a_deployment_is_refused(#[case] pointer: &str, #[case] value: Value, #[case] message: &str) {
    let object: ModelDeployment = typed(with(example("ModelDeployment"), pointer, value));
    let errors = format!("{:?}", object.validate_cel().expect_err("refused"));
    assert!(errors.contains(message), "{errors}");
}

#[test]
fn identity_does_not_change_after_creation() {
    let old: SprintSchedule = typed(example("SprintSchedule"));
    let new: SprintSchedule = typed(with(example("SprintSchedule"), "/spec/chainID", json!("gonka-mainnet")));
    assert!(format!("{:?}", new.validate_cel_update(&old).expect_err("refused")).contains("chainID is immutable"));

    let old: GonkaHost = typed(example("GonkaHost"));
    let new: GonkaHost = typed(with(
        example("GonkaHost"),
        "/spec/account/address",
        json!("gonka1other"),
    ));
    assert!(format!("{:?}", new.validate_cel_update(&old).expect_err("refused")).contains("account is immutable"));

    let old: ModelDeployment = typed(example("ModelDeployment"));
    let new: ModelDeployment = typed(with(example("ModelDeployment"), "/spec/model/id", json!("other")));
    assert!(format!("{:?}", new.validate_cel_update(&old).expect_err("refused")).contains("model.id is immutable"));
    let scaled: ModelDeployment = typed(with(example("ModelDeployment"), "/spec/slots", json!(5)));
    scaled.validate_cel_update(&old).expect("slots may change");
}

#[test]
fn a_record_is_immutable_in_spec() {
    let run = |height: i64| -> SprintRun {
        typed(json!({
            "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "SprintRun", "metadata": {"name": "ours-s-61", "namespace": "gonka"},
            "spec": {"hostRef": {"name": "ours", "uid": "u"}, "kind": "Sprint", "pocStartHeight": height, "triggerHeight": 61, "seed": "C0DE", "epoch": 1}
        }))
    };
    assert!(format!("{:?}", run(62).validate_cel_update(&run(61)).expect_err("refused")).contains("immutable"));
    run(61).validate_cel_update(&run(61)).expect("no change");
}

#[test]
fn an_older_reader_survives_a_newer_object() {
    let object = with(example("GonkaHost"), "/spec/fieldOfTheFuture", json!({"a": 1}));
    let host: GonkaHost = typed(object);
    assert_eq!(host.spec.schedule_name, "devnet");
    let status: crds::SprintScheduleStatus = typed(json!({"window": "Lavender", "stage": "SprintGeneration"}));
    assert_eq!(status.window, crds::references::Window::Unknown);
}
