//! Contract with the chain: recorded answers of v0.2.14, and the same in shapes of neighbouring releases.

#![expect(clippy::panic, reason = "a helper of tests ends the test with what it saw")]

use std::path::Path;

use crds::references::Stage;
use crds::sprint_schedule::{ChainModel, ChainParameters, StageHeights};
use operator::chain::answers::{self, Event, EventPhase, Preserved};
use operator::chain::{heights, parameters};
use rstest::rstest;
use serde_json::{Value, json};

/// Body of a recording.
fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../e2e/network-simulator/tests/recorded")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: Value = serde_json::from_str(&text).expect("a recording is JSON");
    file["body"].clone()
}

fn epoch_parameters() -> ChainParameters {
    ChainParameters {
        source_height: 145,
        epoch_length: 100,
        poc_stage_duration: 12,
        poc_exchange_duration: 0,
        poc_validation_delay: 3,
        poc_validation_duration: 16,
        set_new_validators_delay: 4,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 10,
        poc_slot_allocation: "0.1".into(),
        alpha_threshold: "0".into(),
        ..ChainParameters::default()
    }
}

fn all_parameters() -> ChainParameters {
    ChainParameters {
        expected_confirmations_per_epoch: 12,
        alpha_threshold: "0.5".into(),
        upgrade_protection_window: 1,
        validation_vote_threshold_basis_points: 5000,
        validation_sample_size: 200,
        stronger_rng: false,
        models: vec![ChainModel {
            model_id: "Qwen/Qwen2.5-7B-Instruct".into(),
            seq_len: 1024,
            dist_threshold: Some("0.4".into()),
            p_mismatch: Some("0.1".into()),
            p_value_threshold: Some("0.05".into()),
            weight_scale_factor: Some("0.3024".into()),
        }],
        ..epoch_parameters()
    }
}

#[test]
fn parameters_of_rest_are_read_in_full() {
    let body = recorded("rest-epoch_info__145.json");
    assert_eq!(parameters::parse(&body, 145), Ok(all_parameters()));
    assert_eq!(parameters::epoch_shift(&body), Ok(55));
    assert_eq!(
        parameters::parse(&recorded("rest-params__162.json"), 145),
        Ok(all_parameters())
    );
}

#[test]
fn parameters_of_dapi_come_as_numbers_with_zeros_left_out() {
    let body = recorded("dapi-epochs-latest__145.json");
    assert_eq!(parameters::parse(&body, 145), Ok(epoch_parameters()));
}

#[test]
fn parameters_without_a_box_are_the_same() {
    let body = recorded("rest-params__162.json");
    let mut flat = json!({});
    for section in ["epoch_params", "poc_params", "confirmation_poc_params"] {
        for (key, value) in body["params"][section].as_object().expect("a section") {
            flat[key] = value.clone();
        }
    }
    assert_eq!(parameters::parse(&flat, 145), Ok(all_parameters()));
}

#[test]
fn strings_and_numbers_nulls_and_gaps_are_the_same() {
    fn numbers(value: &Value) -> Value {
        match value {
            Value::String(text) => text.parse::<i64>().map_or_else(|_| value.clone(), Value::from),
            Value::Array(list) => list.iter().map(numbers).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), numbers(value))).collect(),
            other => other.clone(),
        }
    }
    let mut body = numbers(&recorded("rest-params__162.json"));
    assert_eq!(parameters::parse(&body, 145), Ok(all_parameters()));
    body["params"]["epoch_params"]["poc_exchange_duration"] = Value::Null;
    assert_eq!(parameters::parse(&body, 145), Ok(all_parameters()));
}

#[test]
fn the_weight_factor_may_have_moved_elsewhere() {
    let mut body = recorded("rest-params__162.json");
    body["params"]["poc_params"]["models"][0]["weight_scale_factor"] = Value::Null;
    let read = parameters::parse(&body, 145).expect("known");
    assert_eq!(read.models[0].weight_scale_factor, None);
}

/// Those of a later release: each model has a block per scheme of proof.
fn with_schemes(in_force: Value, blocks: &[(Value, i64)]) -> Value {
    let mut body = recorded("rest-params__162.json");
    let poc = &mut body["params"]["poc_params"];
    poc["poc_scheme"] = in_force;
    let model = &mut poc["models"][0];
    let test = model["stat_test"].take();
    model["seq_len"] = json!("0");
    model["schemes"] = blocks
        .iter()
        .map(|(scheme, seq_len)| {
            json!({"scheme": scheme, "seq_len": seq_len.to_string(), "max_tokens": "0", "stat_test": test})
        })
        .collect();
    body
}

#[rstest]
#[case(json!("POC_SCHEME_PREFILL"), &[(json!("POC_SCHEME_PREFILL"), 1024)])]
#[case(json!(0), &[(Value::Null, 1024)])]
#[case(Value::Null, &[(json!("POC_SCHEME_DECODE"), 256), (json!("POC_SCHEME_PREFILL"), 1024)])]
#[case(json!("POC_SCHEME_DECODE"), &[(json!("POC_SCHEME_PREFILL"), 256), (json!("POC_SCHEME_DECODE"), 1024)])]
fn a_models_proof_is_that_of_the_scheme_in_force(#[case] in_force: Value, #[case] blocks: &[(Value, i64)]) {
    assert_eq!(
        parameters::parse(&with_schemes(in_force, blocks), 145),
        Ok(all_parameters())
    );
}

#[test]
fn a_model_without_a_block_of_the_scheme_in_force_is_unknown() {
    let body = with_schemes(json!("POC_SCHEME_DECODE"), &[(json!("POC_SCHEME_PREFILL"), 1024)]);
    let error = parameters::parse(&body, 145).expect_err("not known");
    assert!(error.to_string().contains("no block of POC_SCHEME_DECODE"), "{error}");
}

#[test]
fn parameters_in_a_box_of_their_own_name_are_the_same() {
    let mut body = recorded("rest-params__162.json");
    let epoch = body["params"]["epoch_params"].take();
    body["params"]["epoch_params"] = json!({ "epoch_params": epoch });
    assert_eq!(parameters::parse(&body, 145), Ok(all_parameters()));
    assert_eq!(parameters::epoch_shift(&body), Ok(55));
}

#[rstest]
#[case("/params/epoch_params/epoch_length", json!({"blocks": 100}))]
#[case("/params/epoch_params/epoch_length", json!("a hundred"))]
#[case("/params/epoch_params/epoch_length", Value::Null)]
#[case("/params/epoch_params/epoch_length", json!(20))]
#[case("/params/epoch_params/poc_stage_duration", json!("-12"))]
#[case("/params/epoch_params/poc_stage_duration", json!(1_i64 << 60))]
#[case("/params/poc_params/models", json!({"Qwen": {}}))]
#[case("/params/poc_params/models/0/model_id", json!(7))]
#[case("/params/epoch_params/poc_slot_allocation", json!({"numerator": 1, "denominator": 10}))]
fn an_unknown_shape_is_an_error_that_names_the_member(#[case] pointer: &str, #[case] value: Value) {
    let mut body = recorded("rest-params__162.json");
    *body.pointer_mut(pointer).expect("a member") = value;
    let error = parameters::parse(&body, 145).expect_err("not known");
    let member = pointer.rsplit('/').next().expect("a last part");
    assert!(error.field.contains(member), "{error}");
}

#[test]
fn the_hash_changes_with_a_parameter_and_not_with_the_height_it_was_read_at() {
    let later = ChainParameters {
        source_height: 999,
        ..all_parameters()
    };
    let longer = ChainParameters {
        epoch_length: 101,
        ..all_parameters()
    };
    assert_eq!(parameters::hash(&all_parameters()), parameters::hash(&later));
    assert_ne!(parameters::hash(&all_parameters()), parameters::hash(&longer));
}

/// DAPI computes the same heights; its answer holds two epochs.
#[rstest]
#[case("dapi-epochs-latest__145.json", "epoch_stages")]
#[case("dapi-epochs-latest__145.json", "next_epoch_stages")]
#[case("dapi-epochs-latest__182.json", "epoch_stages")]
#[case("dapi-epochs-latest__182.json", "next_epoch_stages")]
fn stage_heights_are_those_of_dapi(#[case] file: &str, #[case] member: &str) {
    let body = recorded(file);
    let parameters = parameters::parse(&body, 145).expect("known");
    let told = &body[member];
    let height = |name: &str| told[name].as_i64().expect("a height");
    assert_eq!(
        heights::stages(height("poc_start"), &parameters),
        StageHeights {
            poc_start_height: height("poc_start"),
            early_share_height: height("poc_start") + 4,
            wind_down_height: height("poc_generation_wind_down"),
            generation_end_height: height("poc_generation_end"),
            validation_start_height: height("poc_validation_start"),
            validation_wind_down_height: height("poc_validation_wind_down"),
            validation_end_height: height("poc_validation_end"),
            set_new_validators_height: height("set_new_validators"),
            claim_height: height("claim_money"),
            inference_cutoff_height: height("inference_validation_cutoff"),
            next_poc_start_height: height("next_poc_start"),
        }
    );
}

/// Mainnet since v0.2.10, offsets from P.
#[test]
fn stage_heights_of_mainnet() {
    let mainnet = ChainParameters {
        epoch_length: 15_391,
        poc_stage_duration: 35,
        poc_validation_delay: 5,
        poc_validation_duration: 240,
        set_new_validators_delay: 120,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 500,
        ..ChainParameters::default()
    };
    let p = 5_536_724;
    let stages = heights::stages(p, &mainnet);
    assert_eq!(
        stages,
        StageHeights {
            poc_start_height: p,
            early_share_height: p + 11,
            wind_down_height: p + 28,
            generation_end_height: p + 35,
            validation_start_height: p + 40,
            validation_wind_down_height: p + 232,
            validation_end_height: p + 280,
            set_new_validators_height: p + 400,
            claim_height: p + 401,
            inference_cutoff_height: p + 15_391 - 2,
            next_poc_start_height: 5_552_115,
        }
    );
    assert_eq!(
        heights::confirmation_triggers(&stages, &mainnet),
        (p + 400, p + 15_391 - 902)
    );
}

#[rstest]
#[case(144, Stage::Unknown)]
#[case(145, Stage::SprintGeneration)]
#[case(153, Stage::SprintGeneration)]
#[case(154, Stage::SprintWindDown)]
#[case(156, Stage::SprintWindDown)]
#[case(157, Stage::SprintExchange)]
#[case(160, Stage::SprintValidation)]
#[case(175, Stage::SprintValidation)]
#[case(176, Stage::SprintSettling)]
#[case(180, Stage::Inference)]
#[case(244, Stage::Inference)]
#[case(245, Stage::Unknown)]
fn stages_of_the_recorded_epoch(#[case] height: i64, #[case] stage: Stage) {
    let stages = heights::stages(145, &epoch_parameters());
    assert_eq!(heights::stage(height, &stages), stage);
}

#[test]
fn the_clock_of_a_sprint() {
    let clock = answers::clock(&recorded("rest-epoch_info__145.json")).expect("known");
    assert_eq!((clock.height, clock.epoch, clock.poc_start), (145, 2, 145));
    assert_eq!(clock.parameters, all_parameters());
    assert_eq!(clock.event, None);
}

const SEED: &str = "7b1581245152377580070b8db443977b56edda6f47412b61ee80d62cfa293a66";

#[rstest]
#[case("rest-epoch_info__180.json", EventPhase::Grace, "")]
#[case("rest-epoch_info__182.json", EventPhase::Generation, SEED)]
#[case("rest-epoch_info__212.json", EventPhase::Completed, SEED)]
#[case("dapi-epochs-latest__182.json", EventPhase::Generation, SEED)]
fn the_clock_of_a_confirmation(#[case] file: &str, #[case] phase: EventPhase, #[case] seed: &str) {
    let clock = answers::clock(&recorded(file)).expect("known");
    let event = Event {
        trigger_height: 180,
        generation_start_height: 182,
        phase,
        seed: seed.to_owned(),
    };
    assert_eq!(clock.event, Some(event));
}

#[rstest]
#[case("rest-active_confirmation_poc_event__180.json", EventPhase::Grace)]
#[case("rest-active_confirmation_poc_event__182.json", EventPhase::Generation)]
#[case("rest-active_confirmation_poc_event__212.json", EventPhase::Completed)]
fn the_event_alone(#[case] file: &str, #[case] phase: EventPhase) {
    let event = answers::event(&recorded(file)).expect("known").expect("active");
    assert_eq!((event.trigger_height, event.phase), (180, phase));
}

/// `stop` came at 196 and the event was gone at 216 in the recorded epoch.
#[test]
fn heights_of_the_recorded_confirmation() {
    let clock = answers::clock(&recorded("rest-epoch_info__182.json")).expect("known");
    let exam = heights::confirmation(&clock.event.expect("active"), &clock.parameters);
    assert_eq!(exam.generation_end_height, 193);
    assert_eq!(exam.validation_start_height, 196);
    assert_eq!(heights::confirmation_clear(&exam, &clock.parameters), 216);
    assert_eq!(exam.seed, SEED);
}

#[test]
fn an_active_confirmation_without_an_event_is_unknown() {
    let mut body = recorded("rest-epoch_info__182.json");
    body["active_confirmation_poc_event"] = Value::Null;
    assert!(answers::clock(&body).is_err());
}

#[test]
fn a_phase_of_a_later_release_is_still_an_exam() {
    let mut body = recorded("rest-epoch_info__182.json");
    body["active_confirmation_poc_event"]["phase"] = json!("CONFIRMATION_POC_APPEAL");
    let clock = answers::clock(&body).expect("known");
    assert_eq!(clock.event.expect("active").phase, EventPhase::Unknown);
}

#[test]
fn before_the_first_sprint_the_shift_places_it() {
    let mut body = recorded("rest-epoch_info__145.json");
    body["block_height"] = json!("7");
    body["latest_epoch"] = Value::Null;
    let clock = answers::clock(&body).expect("known");
    assert_eq!((clock.epoch, clock.poc_start), (0, -55));
    assert_eq!(heights::stages(-55, &clock.parameters).next_poc_start_height, 45);
}

#[test]
fn a_start_above_the_height_is_unknown() {
    let mut body = recorded("rest-epoch_info__145.json");
    body["latest_epoch"]["poc_start_block_height"] = json!("146");
    assert!(answers::clock(&body).is_err());
}

const HASH_162: &str = "722F7F5F94F80062CF77561089825BB4A0DB30D72A47D81360A5F308B12D85B7";

#[test]
fn status_block_and_notice_tell_the_same_block() {
    let status = answers::status(&recorded("rpc-status__162.json")).expect("known");
    let block = answers::block(&recorded("rpc-block__162.json")).expect("known");
    let notice = answers::new_block(&recorded("ws-newblock__162.json")).expect("a block");
    assert!(!status.catching_up);
    assert_eq!(status.block, block);
    assert_eq!(notice, block);
    assert_eq!((block.height, block.hash.as_str()), (162, HASH_162));
    assert_eq!(block.chain_id, "gonka-testnet-1");
    assert_eq!(block.time_ms, 1_795_345_065_487);
}

#[rstest]
#[case("/result/sync_info/latest_block_height", json!("0"))]
#[case("/result/sync_info/latest_block_height", json!("high"))]
#[case("/result/sync_info/latest_block_hash", json!("not hex"))]
#[case("/result/sync_info/latest_block_time", json!("yesterday"))]
#[case("/result/sync_info", Value::Null)]
fn a_status_of_another_shape_is_unknown(#[case] pointer: &str, #[case] value: Value) {
    let mut body = recorded("rpc-status__162.json");
    *body.pointer_mut(pointer).expect("a member") = value;
    assert!(answers::status(&body).is_err());
}

#[test]
fn a_chain_without_a_block_is_early_not_strange() {
    let mut status = recorded("rpc-status__162.json");
    assert!(!answers::is_before_first_block(&status));
    status["result"]["sync_info"]["latest_block_height"] = json!("0");
    assert!(answers::is_before_first_block(&status));
    let mut clock = recorded("rest-epoch_info__145.json");
    assert!(!answers::is_before_first_block(&clock));
    clock["block_height"] = json!("0");
    assert!(answers::is_before_first_block(&clock));
    assert!(!answers::is_before_first_block(&json!({})));
}

#[test]
fn an_rpc_error_is_no_block() {
    let body = json!({"jsonrpc": "2.0", "id": -1, "error": {"code": -32603, "message": "height must be available"}});
    assert!(answers::block(&body).is_err());
}

#[test]
fn preserved_nodes_come_per_participant_or_in_one_list() {
    let recorded = recorded("rest-preserved_nodes_snapshot__162.json");
    let none = Preserved {
        anchor_height: 145,
        node_ids: Vec::new(),
    };
    assert_eq!(answers::preserved(&recorded), Ok(Some(none)));
    let snapshot = |models: Value| {
        let body = json!({"found": true, "snapshot": {"episode_anchor_height": 145, "model_preserved_nodes": models}});
        answers::preserved(&body).expect("known").expect("found").node_ids
    };
    let nested = json!([{"model_id": "m", "participants": [{"participant_id": "p", "node_ids": ["b", "a"]}]}]);
    let flat = json!([{"model_id": "m", "preserved_node_ids": ["a", "b"]}]);
    assert_eq!(snapshot(nested), ["a", "b"]);
    assert_eq!(snapshot(flat), ["a", "b"]);
    assert_eq!(answers::preserved(&json!({"found": false})), Ok(None));
}

#[test]
fn upgrades() {
    assert_eq!(
        answers::upgrade_plan(&recorded("rest-cosmos_upgrade_current_plan__162.json")),
        Ok(None)
    );
    let plan = answers::upgrade_plan(&json!({"plan": {"name": "v0.2.17", "height": "6500000"}}));
    assert_eq!(plan.expect("known").expect("planned").height, 6_500_000);
    assert_eq!(
        answers::upgrade_votes(&recorded("rest-cosmos_gov_v1_proposals_proposal_status_2__162.json")),
        Ok(vec![])
    );
    assert_eq!(
        answers::last_upgrade(&recorded("rest-last_upgrade_height__162.json")),
        Ok(None)
    );
}

#[test]
fn upgrades_among_the_proposals_that_are_voted_on() {
    let plan = json!({"name": "v0.2.18", "height": "7000000", "info": ""});
    let proposal = |id: &str, message: Value| json!({"id": id, "status": "PROPOSAL_STATUS_VOTING_PERIOD", "voting_end_time": "2026-11-28T09:00:00.5Z", "messages": [message]});
    let message = |kind: &str| json!({"@type": kind, "authority": "gonka1…", "plan": plan});
    let answer = json!({"proposals": [
        proposal("110", message("/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade")),
        proposal("111", message("/cosmos.upgrade.v1beta1.MsgCancelUpgrade")),
        proposal("112", json!({"@type": "/cosmos.gov.v1.MsgExecLegacyContent",
            "content": message("/cosmos.upgrade.v1beta1.SoftwareUpgradeProposal")})),
        proposal("113", json!({"@type": "/inference.inference.MsgUpdateParams", "params": {"deep": [1, 2]}})),
    ]});
    let votes = answers::upgrade_votes(&answer).expect("a known shape");
    let told: Vec<(i64, &str, i64, Option<i64>)> = votes
        .iter()
        .map(|vote| (vote.proposal, vote.name.as_str(), vote.height, vote.ends_ms))
        .collect();
    let end = Some(1_795_856_400_500);
    assert_eq!(
        told,
        [(110, "v0.2.18", 7_000_000, end), (112, "v0.2.18", 7_000_000, end)]
    );
    assert!(answers::upgrade_votes(&json!({"proposals": "many"})).is_err());
}
