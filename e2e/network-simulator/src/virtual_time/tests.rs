use super::{counting::CountingNodes, *};
use crate::scenario;

/// 50-block epochs as on the community's DevNet.
pub const DEVNET: &str = "
version: 1
network:
  blockMillis: 5000
  epochs: 6
  parameters: {epoch_length: 50, epoch_shift: 40, poc_stage_duration: 10, poc_validation_delay: 2, poc_validation_duration: 8,
    set_new_validators_delay: 2, inference_validation_cutoff: 2, confirmation_poc_safety_window: 2, validation_sample_size: 40}
models: [{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}]
hosts:
  - {name: ours, driver: external, nodes: 2, noncesPerSecond: 5}
  - {name: rival, count: 3, driver: simulated, nodes: 2, noncesPerSecond: 5}
exams: {confirmationPerEpoch: 1, preserve: false}
";

fn run(text: &str) -> Driver {
    let scenario = scenario::parse(text).unwrap_or_else(|invalid| panic!("{invalid}"));
    let (mut driver, mut nodes) = CountingNodes::registered(&Arc::new(scenario), BEGINNING_MS);
    driver.run(&mut nodes);
    driver
}

#[test]
fn a_run_goes_through_its_epochs_and_everybody_is_paid() {
    let driver = run(DEVNET);
    let net = driver.net();
    assert!(net.record.exams.len() >= 6, "{}", net.record.exams.len());
    for exam in &net.record.exams {
        for host in &exam.hosts {
            assert!(host.weight > 0, "{} of epoch {}: {host:#?}", exam.kind, exam.epoch);
            assert!(host.physically_available_weight >= host.weight, "{host:#?}");
        }
    }
    let claimed = net.epochs.values().filter_map(|epoch| epoch.settlement.as_ref());
    assert!(
        claimed
            .flat_map(|settlement| settlement.rewards.values())
            .all(|reward| reward.claimed_height > 0)
    );
}

#[test]
fn the_same_scenario_gives_the_same_history() {
    let history = || {
        let ledger = crate::views::control::ledger(run(DEVNET).net());
        serde_json::to_string(&ledger).expect("JSON")
    };
    assert_eq!(history(), history());
}
