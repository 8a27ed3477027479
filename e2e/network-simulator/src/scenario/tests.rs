use super::*;

const GOOD: &str = "
version: 1
network: {seed: 7, blockMillis: 200, epochs: 1, parameters: {epoch_length: 84, epoch_shift: 23}}
models: [{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense, statTest: {dist_milli: 20, p_mismatch_bp: 1000}}]
hosts:
  - {name: ours, driver: external}
  - {name: rival, count: 2, driver: simulated, nodes: 2, noncesPerSecond: 20, votes: honest}
exams: {confirmationPerEpoch: 0, preserve: [rival-1-0]}
steps: [{at: P-5s, do: stop, target: rpc/2, for: 30s}, {at: epoch 2 +5 blocks, do: triggerConfirmation}]
expect: [{exam: last, host: ours, committedAtLeastBp: 9000, verdict: Accepted}]
";

#[test]
fn a_complete_scenario_is_read() {
    let scenario = parse(GOOD).expect("valid");
    assert_eq!(scenario.hosts[1].members().len(), 2);
    assert_eq!(scenario.hosts[1].members()[1].0, "rival-2");
    assert_eq!(scenario.steps[0].verb, Verb::Stop);
    assert_eq!(scenario.exams.preserve, Preserve::Ids(vec!["rival-1-0".to_owned()]));
    assert_eq!(
        scenario.parameters.json["poc_params"]["models"][0]["model_id"],
        "gonka-fleet/tiny_qwen3_dense"
    );
}

#[test]
fn every_mistake_is_one_line_with_its_path() {
    let text = "
version: 1
network: {blockMillis: 1, forceBlockHash: {61: xyz}}
models: [{id: a, recipe: tiny_elephant}, {id: b}]
hosts: [{name: rival, driver: simulated, votes: sometimes}, {name: rival, driver: simulated, model: c}]
steps: [{at: soon, do: stop, target: rpc/9}, {at: P, do: fly}, {at: P, do: slow, target: rpc/1}]
expect: [{exam: last, host: nobody}]
weather: fine
";
    let Invalid(lines) = parse(text).expect_err("invalid");
    for start in [
        "network.blockMillis:",
        "network.forceBlockHash.61:",
        "models[0].recipe:",
        "models[1]:",
        "hosts[0]:",
        "hosts:",
        "steps[0].at:",
        "steps[1].do:",
        "steps[2].bytesPerSecond:",
        "expect[0].host:",
        "weather:",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(start)),
            "no line starts with {start} in {lines:#?}"
        );
    }
    assert!(
        lines.iter().any(|line| line.contains("tiny_elephant")),
        "the unknown recipe is named"
    );
    assert!(lines.iter().all(|line| !line.contains('\n')));
}

#[test]
fn a_file_that_is_no_mapping_is_refused() {
    assert!(parse("- 1").is_err());
    assert!(parse("{").is_err());
    assert!(parse("").is_err());
}
