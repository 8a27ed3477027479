//! What virtual time costs, and that it grows no faster than what is simulated. The figures are printed; what is asserted
//! are ratios within one run, far from where the next power would be.

use network_simulator::{
    scenario::{self, Scenario},
    virtual_time::{BEGINNING_MS, counting::CountingNodes},
};
use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

/// Four times as much may take so many times as long; the square would be 16.
const MOST_FOR_FOUR: f64 = 9.0;
const ATTEMPTS: usize = 5;

fn scenario(epochs: u64, hosts: u32, nodes: u32) -> Arc<Scenario> {
    let text = format!(
        "
version: 1
network:
  blockMillis: 5000
  epochs: {epochs}
  parameters: {{epoch_length: 50, epoch_shift: 40, poc_stage_duration: 10, poc_validation_delay: 2, poc_validation_duration: 8,
    set_new_validators_delay: 2, inference_validation_cutoff: 2, confirmation_poc_safety_window: 2, validation_sample_size: 40}}
models: [{{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}}]
hosts:
  - {{name: ours, driver: external, nodes: {nodes}, noncesPerSecond: 5, noisePermille: 20}}
  - {{name: rival, count: {hosts}, driver: simulated, nodes: {nodes}, noncesPerSecond: 5, noisePermille: 20}}
exams: {{confirmationPerEpoch: 1, preserve: true}}
"
    );
    Arc::new(scenario::parse(&text).expect("valid"))
}

/// The shortest of a few runs: what a busy machine adds is in the others.
fn shortest(scenario: &Arc<Scenario>) -> Duration {
    let run = |_| {
        let began = Instant::now();
        let (mut driver, mut nodes) = CountingNodes::registered(scenario, BEGINNING_MS);
        while !driver.is_over() && driver.step(&mut nodes) {
            driver.take_exams();
            driver.take_epochs();
        }
        began.elapsed()
    };
    (0..ATTEMPTS).map(run).min().unwrap_or_default()
}

fn ratio(small: &Arc<Scenario>, large: &Arc<Scenario>, what: &str) -> f64 {
    let (small, large) = (shortest(small).as_secs_f64(), shortest(large).as_secs_f64());
    let ratio = large / small;
    show(&format!(
        "four times the {what} take {ratio:.2} times as long ({small:.3} s, {large:.3} s)"
    ));
    ratio
}

/// Past the harness, which keeps to itself what a test that passes prints.
fn show(line: &str) {
    writeln!(std::io::stderr(), "virtual time: {line}").expect("standard error is open");
}

#[test]
fn the_cost_is_linear_in_epochs_and_in_slots() {
    let epochs = ratio(&scenario(150, 3, 2), &scenario(600, 3, 2), "epochs");
    assert!(epochs < MOST_FOR_FOUR, "{epochs}");
    let slots = ratio(&scenario(20, 10, 50), &scenario(20, 10, 200), "slots");
    assert!(slots < MOST_FOR_FOUR, "{slots}");
    let epochs = 600.0 / shortest(&scenario(600, 3, 2)).as_secs_f64();
    show(&format!(
        "{epochs:.0} DevNet epochs a second, exams, votes, settlements and claims included"
    ));
}
