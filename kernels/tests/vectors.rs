//! The checker over the copied vectors, and proof that it notices: each test below makes one thing wrong the way a
//! wrong implementation would, and expects a failure at that place.

use kernels::decoder::{Config, Recipe};
use kernels::vectors::{self, Effort, FileReport, Outcome};
use proptest::{prelude::*, test_runner::TestRunner};
use rstest::rstest;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn check_document(name: &str, document: &Value) -> FileReport {
    vectors::check_document(name, document, Effort::Standard)
}

fn check_text(name: &str, text: &[u8]) -> FileReport {
    vectors::check_text(name, text, Effort::Standard)
}

fn check_directory(directory: &Path, each: &mut dyn FnMut(&FileReport)) -> Result<vectors::Report, vectors::Error> {
    vectors::check_directory(directory, Effort::Standard, each)
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn load(name: &str) -> Value {
    let text = fs::read(directory().join(name)).expect("copied vector file");
    serde_json::from_slice(&text).expect("JSON")
}

/// The file cut down to its first set or case, so that a mutation costs milliseconds.
fn smallest(name: &str) -> Value {
    let mut document = load(name);
    for list in ["sets", "cases"] {
        if let Some(list) = document.get_mut(list).and_then(Value::as_array_mut) {
            list.truncate(1);
        }
    }
    if let Some(set) = document.pointer_mut("/sets/0").and_then(Value::as_object_mut) {
        set.remove("inputs_fullsize");
    }
    if let Some(cases) = document.pointer_mut("/sets/0/cases").and_then(Value::as_array_mut) {
        cases.truncate(1);
    }
    if let Some(case) = document.pointer_mut("/sets/0/cases/0").and_then(Value::as_object_mut) {
        case.remove("input_seq256_dim1792_f16");
    }
    if let Some(runs) = document.pointer_mut("/cases/0/runs").and_then(Value::as_array_mut) {
        runs.truncate(1);
    }
    document
}

fn at<'a>(document: &'a mut Value, pointer: &str) -> &'a mut Value {
    document.pointer_mut(pointer).expect("the copied file has this place")
}

#[track_caller]
fn assert_fails_at(report: &FileReport, path: &str) {
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
    assert!(
        report.problems.iter().any(|problem| problem.path.contains(path)),
        "no problem at {path}: {report}"
    );
}

#[test]
fn every_copied_file_passes() {
    let mut heard = 0;
    let report = check_directory(&directory(), &mut |_| heard += 1).expect("the directory is there");
    for file in &report.files {
        assert_eq!(file.outcome, Outcome::Passed, "{file}");
    }
    assert_eq!(
        report.to_string(),
        "7 passed (1 of them in part: see what needs --large), 0 failed, 0 skipped"
    );
    assert_eq!(heard, 7);
    // What a standard run does not compute is said by name, and nothing else is left out.
    let in_part: Vec<&str> = report
        .files
        .iter()
        .filter(|file| !file.left_out.is_empty())
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(in_part, ["v1_model_mainnet.json"]);
    assert!(report.is_success());
}

#[rstest]
#[case("v1_rng.json")]
#[case("v1_model_small.json")]
#[case("v2_rng.json")]
#[case("v2_tiny_models.json")]
#[case("v2_commitment.json")]
#[case("v2_misc.json")]
fn a_cut_down_file_still_passes(#[case] name: &str) {
    let report = check_document(name, &smallest(name));
    assert_eq!(report.outcome, Outcome::Passed, "{report}");
    assert!(report.checks > 10);
}

#[test]
fn files_are_recognised_by_content_under_any_name() {
    for name in [
        "v1_rng.json",
        "v1_model_small.json",
        "v2_rng.json",
        "v2_tiny_models.json",
        "v2_commitment.json",
        "v2_misc.json",
    ] {
        assert_eq!(check_document("renamed.json", &smallest(name)).outcome, Outcome::Passed);
    }
}

#[test]
fn a_pick_in_another_order_is_noticed() {
    let mut document = smallest("v2_rng.json");
    let by_score = at(&mut document, "/sets/0/pick_indices/0/indices_by_ascending_score").clone();
    *at(&mut document, "/sets/0/pick_indices/0/indices_cuda_topk_order") = by_score;
    assert_fails_at(
        &check_document("v2_rng.json", &document),
        "pick_indices[0].indices_cuda_topk_order",
    );

    let mut document = smallest("v2_tiny_models.json");
    let other = at(&mut document, "/cases/0/runs/0/vector_b64_fp32_model_if_cpu_topk_order").clone();
    *at(&mut document, "/cases/0/runs/0/vector_b64_fp32_model") = other;
    assert_fails_at(
        &check_document("v2_tiny_models.json", &document),
        "runs[0].vector_b64_fp32_model[0]",
    );
}

#[test]
fn missing_reflections_are_noticed() {
    let mut document = smallest("v2_tiny_models.json");
    let unhooked = at(&mut document, "/cases/0/runs/0/vector_b64_fp32_model_hooks_off").clone();
    *at(&mut document, "/cases/0/runs/0/vector_b64_fp32_model") = unhooked;
    assert_fails_at(
        &check_document("v2_tiny_models.json", &document),
        "runs[0].vector_b64_fp32_model[0]",
    );

    let mut document = smallest("v2_tiny_models.json");
    let hooked = at(&mut document, "/cases/0/runs/0/vector_b64_fp32_model").clone();
    *at(&mut document, "/cases/0/runs/0/vector_b64_fp32_model_hooks_off") = hooked;
    assert_fails_at(
        &check_document("v2_tiny_models.json", &document),
        "vector_b64_fp32_model_hooks_off[0]",
    );
}

#[rstest]
#[case("v2_rng.json", "/sets/0/block_hash", "legacy_seq4_dim64_f32")]
#[case("v2_rng.json", "/sets/0/block_hash", "householder_vectors[0]")]
#[case("v2_tiny_models.json", "/cases/0/block_hash", "vector_b64_fp32_model[0]")]
#[case("v2_tiny_models.json", "/cases/0/block_hash", "vector_b64_bf16_model[0]")]
fn a_block_hash_of_another_case_is_noticed(#[case] name: &str, #[case] pointer: &str, #[case] path: &str) {
    let mut document = smallest(name);
    let hash = at(&mut document, pointer).as_str().expect("text").to_lowercase();
    *at(&mut document, pointer) = Value::String(hash);
    assert_fails_at(&check_document(name, &document), path);
}

#[test]
fn the_other_input_generator_is_noticed() {
    let mut document = smallest("v2_tiny_models.json");
    *at(&mut document, "/cases/0/runs/0/input_scheme") = json!("concat_murmur");
    assert_fails_at(
        &check_document("v2_tiny_models.json", &document),
        "inputs_f32_nonce0_first16",
    );
}

#[test]
fn another_weights_tag_is_noticed() {
    let mut document = smallest("v2_tiny_models.json");
    *at(&mut document, "/cases/0/weights_tag") = json!("public-tiny-v2");
    assert_fails_at(&check_document("v2_tiny_models.json", &document), "weights[0].first4");
}

#[test]
fn the_recipes_have_the_published_shapes() {
    let document = load("v2_tiny_models.json");
    let cases = document["cases"].as_array().expect("list");
    assert_eq!(cases.len(), Recipe::ALL.len());
    for case in cases {
        let recipe: Recipe = case["model"].as_str().expect("text").parse().expect("a recipe");
        let published: Config = serde_json::from_value(case["config"].clone()).expect("a config");
        assert_eq!(recipe.config(), published);
    }
}

/// One hex digit, one base64 character or one number changed.
#[rstest]
#[case("v1_rng.json", "/sets/0/rng_layers/0/entropy_u32/5")]
#[case("v1_rng.json", "/sets/0/rng_layers/3/pcg64_state_dec")]
#[case("v1_rng.json", "/sets/0/rng_layers/1/raw_u64_first8/7")]
#[case("v1_rng.json", "/sets/0/rng_layers/2/standard_normal_first32/hex_le")]
#[case("v1_rng.json", "/sets/0/cases/0/input_seq8_dim64_f64/first_hex_le")]
#[case("v1_rng.json", "/sets/0/cases/0/input_seq8_dim64_f16/hex_le")]
#[case("v1_rng.json", "/sets/0/cases/0/perm_dim64/63")]
#[case("v1_rng.json", "/sets/0/cases/0/perm_dim8196/last_hex_le")]
#[case("v1_rng.json", "/sets/0/target_vocab_8196/first_hex_le")]
#[case("v1_model_small.json", "/cases/0/pool_size")]
#[case(
    "v1_model_small.json",
    "/cases/0/tensors_in_named_parameters_order/20/start_or_shift"
)]
#[case("v1_model_small.json", "/cases/0/tensors_in_named_parameters_order/5/sha256_le")]
#[case("v1_model_small.json", "/cases/0/freqs_cis_fp32_first_rows/hex_le")]
#[case("v1_model_small.json", "/cases/0/last_token_logits_fp16arith_fp32acc/hex_le")]
#[case("v1_model_small.json", "/cases/0/block_hash")]
#[case("v1_model_small.json", "/cases/0/public_key")]
#[case("v1_model_small.json", "/cases/0/nonces/7")]
#[case("v1_model_small.json", "/cases/0/params/multiple_of")]
#[case("v2_rng.json", "/sets/0/inputs/0/legacy_seq4_dim64_f32/hex_le")]
#[case("v2_rng.json", "/sets/0/householder_vectors/0/unit_vector_f32/hex_le")]
#[case("v2_rng.json", "/sets/0/apply_householder/y_bf16_bits/hex_le")]
#[case("v2_rng.json", "/sets/0/haar_rotation/y_f32/hex_le")]
#[case("v2_rng.json", "/sets/0/uniform_f32_n32/hex_le")]
#[case("v2_rng.json", "/sets/0/seeds_from_string/0/seed_u32")]
#[case("v2_rng.json", "/sets/0/murmur3_32/hash_u32/3")]
#[case("v2_rng.json", "/sets/0/pseudo_input_ids/0/ids/31")]
#[case(
    "v2_rng.json",
    "/sets/0/postprocess_last_hidden_to_artifact/0/vector_b64_cuda_order/1"
)]
#[case("v2_rng.json", "/pseudo_ids_frozen_doc_vectors/sum/2")]
#[case("v2_tiny_models.json", "/cases/0/runs/0/final_normed_last_hidden_f32/hex_le")]
#[case(
    "v2_tiny_models.json",
    "/cases/0/runs/0/per_layer_last_token_after_reflection_f32/0/hidden/hex_le"
)]
#[case("v2_tiny_models.json", "/cases/0/runs/0/vector_b64_fp32_model/2")]
#[case("v2_tiny_models.json", "/cases/0/runs/0/vector_b64_bf16_model/2")]
#[case("v2_tiny_models.json", "/cases/0/reference_validation/1/result/n_mismatch")]
#[case("v2_commitment.json", "/sum_trees/0/leaves/100/vector_b64")]
#[case("v2_commitment.json", "/sum_trees/0/leaves/100/nonce")]
#[case("v2_commitment.json", "/sum_trees/0/commits/1/root_b64")]
#[case("v2_misc.json", "/encode_decode/1/vector_b64")]
#[case("v2_misc.json", "/fraud_test_table/50/n_mismatch")]
#[case("v2_misc.json", "/critical_counts/0/min_mismatches_for_fraud_at_0.01")]
#[case("v2_misc.json", "/nonce_iterator/4/first10/9")]
fn one_changed_value_is_noticed(#[case] name: &str, #[case] pointer: &str) {
    let mut document = smallest(name);
    let value = at(&mut document, pointer);
    *value = match value {
        Value::Number(number) => json!(number.as_i64().expect("an integer") + 1),
        Value::String(text) => {
            // The fourth character: for vectors and arrays the high byte of the first or second element.
            let mut characters: Vec<char> = text.chars().collect();
            characters[3] = if characters[3] == '7' { '0' } else { '7' };
            Value::String(characters.into_iter().collect())
        }
        other => panic!("{pointer} is {other}"),
    };
    assert_eq!(check_document(name, &document).outcome, Outcome::Failed, "{pointer}");
}

/// A case too large for a standard run is named, and what is cheap of it still checked.
#[test]
fn a_model_too_large_for_a_standard_run_is_left_out_by_name() {
    let mut document = smallest("v1_model_small.json");
    let nonces: Vec<i64> = (0..200_000).collect();
    *at(&mut document, "/cases/0/nonces") = json!(nonces);
    let report = check_document("v1_model_small.json", &document);
    assert_eq!(report.outcome, Outcome::Passed, "{report}");
    assert_eq!(
        report.left_out,
        ["tensors, logits and distances of A_small_mha_tiled_pool"]
    );
    assert!(
        report.to_string().contains("NOT CHECKED without --large: tensors"),
        "{report}"
    );
}

/// A damaged array whose digest was repaired: only recomputation can notice it.
#[test]
fn a_flipped_bit_under_a_matching_digest_is_noticed() {
    use sha2::{Digest, Sha256};
    let mut document = smallest("v2_tiny_models.json");
    let array = at(&mut document, "/cases/0/runs/0/yk_f32");
    let mut bytes = hex::decode(array["hex_le"].as_str().expect("text")).expect("hex");
    bytes[2] ^= 0x10;
    array["hex_le"] = json!(hex::encode(&bytes));
    array["sha256_le"] = json!(hex::encode(Sha256::digest(&bytes)));
    array.as_object_mut().expect("object").remove("values");
    assert_fails_at(&check_document("v2_tiny_models.json", &document), "runs[0].yk_f32");
}

#[rstest]
#[case("v1_rng.json", "/sets/0/rng_layers/0/num_hashes", json!(1_000_000), "rng_layers[0].num_hashes")]
#[case("v1_rng.json", "/sets/0/cases/0/nonce", json!("many"), "cases[0].nonce")]
#[case("v1_model_small.json", "/cases/0/params/dim", json!(1_u64 << 40), "cases[0].params")]
#[case("v1_model_small.json", "/cases/0/params/n_heads", json!(3), "cases[0].params")]
#[case("v1_model_small.json", "/cases/0/params/use_scaled_rope", json!(true), "cases[0].params")]
#[case("v1_model_small.json", "/cases/0/nonces", json!([]), "cases[0].nonces")]
#[case("v1_model_mainnet.json", "/params/n_layers", json!(4096), "$.params")]
#[case("v1_model_mainnet.json", "/params/vocab_size", json!("many"), "$.params")]
#[case("v1_model_mainnet.json", "/tensors/578/name", json!("layers.64.norm"), "tensors[578].name")]
#[case("v1_model_mainnet.json", "/tensors/0/start", json!("x"), "tensors[0].start")]
#[case("v2_rng.json", "/sets/0/block_hash", json!(7), "$.sets[0].block_hash")]
#[case("v2_rng.json", "/sets/0/householder_vectors/1/dim", json!(99_999_999_999_i64), "householder_vectors[1].dim")]
#[case("v2_rng.json", "/sets/0/householder_vectors/1/dim", json!(-1), "householder_vectors[1].dim")]
#[case("v2_rng.json", "/sets/0/inputs/0/legacy_seq4_dim64_f32/shape", json!([4, 4_000_000_000_u64]), "shape")]
#[case("v2_rng.json", "/sets/0/inputs/0/legacy_seq4_dim64_f32/dtype", json!("float128"), "dtype")]
#[case("v2_rng.json", "/sets/0/inputs/0/legacy_seq4_dim64_f32/hex_le", json!("zz"), "hex_le")]
#[case("v2_rng.json", "/sets/0/nonces", json!([]), "postprocess")]
#[case("v2_rng.json", "/sets/0/pick_indices", json!({}), "pick_indices")]
#[case("v2_tiny_models.json", "/cases/0/config/hidden", json!("wide"), "$.cases[0].config")]
#[case("v2_tiny_models.json", "/cases/0/config/heads", json!(0), "$.cases[0].config")]
#[case("v2_tiny_models.json", "/cases/0/config/hidden", json!(1_u64 << 40), "$.cases[0].config")]
#[case("v2_tiny_models.json", "/cases/0/k_dim", json!(65), "$.cases[0].k_dim")]
#[case("v2_tiny_models.json", "/cases/0/nonces", json!([]), "$.cases[0].nonces")]
#[case("v2_tiny_models.json", "/cases/0/nonces", json!([0]), "vector_b64")]
#[case("v2_tiny_models.json", "/cases/0/runs/0/vector_b64_fp32_model/0", json!("not base64"), "vector_b64_fp32_model[0]")]
#[case("v2_tiny_models.json", "/cases/0/weights/0/name", json!("layers.9.mlp"), "weights[0].name")]
#[case("v2_misc.json", "/nonce_iterator/0/node_count", json!(0), "nonce_iterator[0]")]
#[case("v2_misc.json", "/fraud_test_table/0/n_total", json!("many"), "fraud_test_table[0].n_total")]
#[case("v2_commitment.json", "/sum_trees/0/commits/0/count", json!(1_000_000), "root_b64")]
fn a_malformed_value_fails_with_its_path(
    #[case] name: &str,
    #[case] pointer: &str,
    #[case] value: Value,
    #[case] path: &str,
) {
    let mut document = smallest(name);
    *at(&mut document, pointer) = value;
    assert_fails_at(&check_document(name, &document), path);
}

#[test]
fn text_that_is_no_json_fails_and_unknown_json_is_skipped() {
    assert_fails_at(&check_text("v2_rng.json", b"{\"sets\": [1,"), "$");
    assert_eq!(check_text("other.json", b"{\"a\": 1}").outcome, Outcome::Skipped);
    assert_eq!(check_text("other.json", b"[null, 3]").outcome, Outcome::Skipped);
    for name in ["v1_rng.json", "v1_model_small.json", "v1_model_mainnet.json"] {
        assert_fails_at(&check_text(name, b"{}"), "$");
    }
}

#[test]
fn a_known_name_with_nothing_to_check_fails() {
    for text in ["{}", "[]", "3", "{\"sets\": []}", "{\"sets\": 3}"] {
        assert_fails_at(&check_text("v2_rng.json", text.as_bytes()), "$");
    }
}

#[test]
fn a_directory_without_known_files_is_no_success() {
    let empty = tempfile::tempdir().expect("temporary directory");
    let report = check_directory(empty.path(), &mut |_| ()).expect("listed");
    assert!(!report.is_success());
    fs::write(empty.path().join("unknown.json"), "{}").expect("written");
    fs::write(empty.path().join("notes.txt"), "no JSON").expect("written");
    let report = check_directory(empty.path(), &mut |_| ()).expect("listed");
    assert_eq!(report.to_string(), "0 passed, 0 failed, 1 skipped");
    assert!(!report.is_success());
    assert!(check_directory(&empty.path().join("absent"), &mut |_| ()).is_err());
}

/// What a generator of foreign files might put anywhere.
fn foreign_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        Just(json!("AAAA")),
        Just(json!(-1)),
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(4_294_967_296_u64)),
        Just(json!(u64::MAX)),
        Just(json!(1e300)),
        Just(json!([[0, 1], [2]])),
    ]
}

/// Paths of all values down to a depth, lists by their first and last items.
fn places(value: &Value, at: &str, depth: usize, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let mut into = |key: String, value: &Value| {
        if depth > 0 {
            places(value, &format!("{at}/{key}"), depth - 1, found);
        }
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| into(key.clone(), value)),
        Value::Array(items) if !items.is_empty() => {
            into("0".to_owned(), &items[0]);
            into((items.len() - 1).to_string(), &items[items.len() - 1]);
        }
        _ => {}
    }
}

#[rstest]
#[case("v1_rng.json")]
#[case("v1_model_small.json")]
#[case("v2_rng.json")]
#[case("v2_tiny_models.json")]
#[case("v2_commitment.json")]
#[case("v2_misc.json")]
fn no_foreign_value_anywhere_makes_it_panic(#[case] name: &str) {
    let document = smallest(name);
    let mut found = Vec::new();
    places(&document, "", 8, &mut found);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let strategy = (prop::sample::select(found), foreign_value());
    runner
        .run(&strategy, |(place, value)| {
            let mut document = document.clone();
            *document.pointer_mut(&place).expect("collected from it") = value;
            let report = check_document(name, &document);
            prop_assert_eq!(report.outcome == Outcome::Failed, !report.problems.is_empty());
            Ok(())
        })
        .expect("no panic");
}
