use super::{counting::CountingNodes, *};
use crate::{
    dapi::Status,
    faults::Port,
    ledger,
    scenario::{self, verb::Verb},
};
use serde_json::json;

/// 50-block epochs as on the community's DevNet: Sprints at 10, 60, 110 and so on.
const DEVNET: &str = "
version: 1
network:
  blockMillis: 5000
  epochs: 4
  parameters: {epoch_length: 50, epoch_shift: 40, poc_stage_duration: 10, poc_validation_delay: 2, poc_validation_duration: 8,
    set_new_validators_delay: 2, inference_validation_cutoff: 2, confirmation_poc_safety_window: 2, validation_sample_size: 40}
models: [{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}]
hosts:
  - {name: ours, driver: external, nodes: 4, noncesPerSecond: 10}
  - {name: rival, count: 3, driver: simulated, nodes: 4, noncesPerSecond: 10}
exams: {preserve: false}
";

fn start(text: &str) -> (Driver, CountingNodes) {
    let scenario = scenario::parse(text).unwrap_or_else(|invalid| panic!("{invalid}"));
    CountingNodes::registered(&Arc::new(scenario), BEGINNING_MS)
}

fn run(text: &str) -> Driver {
    let (mut driver, mut nodes) = start(text);
    assert!(driver.run(&mut nodes), "the scenario has an end");
    driver
}

/// The exams of a run with these steps.
fn exams(steps: &str) -> Vec<ledger::Exam> {
    run(&format!("{DEVNET}steps:\n{steps}")).take_exams()
}

/// The Sprint of an epoch.
fn sprint(exams: &[ledger::Exam], epoch: u64) -> &ledger::Exam {
    let found = exams.iter().find(|exam| exam.epoch == epoch && exam.kind == "Sprint");
    found.expect("every epoch has a Sprint")
}

fn physical(host: &ledger::Host) -> Vec<bool> {
    let nodes = host.nodes.iter();
    nodes.map(|node| node.physically_available_weight > 0).collect()
}

fn delivered(host: &ledger::Host) -> Vec<bool> {
    host.nodes.iter().map(|node| node.accepted > 0).collect()
}

#[test]
fn a_run_goes_through_its_epochs_and_everybody_is_paid() {
    let driver = run(&DEVNET.replace("preserve: false", "preserve: true, confirmationPerEpoch: 2"));
    let net = driver.net();
    assert!(net.record.exams.len() > 4, "{}", net.record.exams.len());
    for exam in &net.record.exams {
        for host in &exam.hosts {
            assert!(host.weight > 0, "{} of epoch {}: {host:#?}", exam.kind, exam.epoch);
            let carried: u64 = host.nodes.iter().map(|node| node.carried_weight).sum();
            assert!(host.physically_available_weight >= host.weight - carried, "{host:#?}");
        }
    }
    let settled = net.epochs.values().filter_map(|epoch| epoch.settlement.as_ref());
    let mut rewards = settled.flat_map(|settlement| settlement.rewards.values());
    assert!(rewards.all(|reward| reward.claimed_height > 0));
}

#[test]
fn the_same_scenario_gives_the_same_history() {
    let history = || {
        let driver = run(&DEVNET.replace("noncesPerSecond: 10", "noncesPerSecond: 10, noisePermille: 50"));
        let ledger = crate::views::control::ledger(driver.net());
        (serde_json::to_string(&ledger).expect("JSON"), driver.trace())
    };
    assert_eq!(history(), history());
}

#[test]
fn what_breaks_after_an_exam_has_begun_was_there_and_what_is_broken_before_was_not() {
    let exams = exams(
        "
  - {at: epoch 2 P+1s, do: stop, target: node/ours-0}
  - {at: epoch 2 P-1s, do: stop, target: node/ours-1}
  - {at: epoch 2 P-1s, do: stall, target: node/ours-2, for: 3s}
",
    );
    let ours = &sprint(&exams, 2).hosts[0];
    assert_eq!(physical(ours), [true, false, false, true]);
    assert_eq!(
        delivered(ours),
        [false, false, true, true],
        "the third was only cut off"
    );
    let later = &sprint(&exams, 4).hosts[0];
    assert_eq!(physical(later), [false, false, true, true]);
    assert_eq!(
        ours.physically_available_weight,
        ours.nodes
            .iter()
            .map(|node| node.physically_available_weight)
            .sum::<u64>()
    );
}

#[test]
fn what_is_lost_in_generation_is_attainable_until_then_and_what_comes_back_in_time_altogether() {
    let exams = exams(
        "
  - {at: epoch 2 P+20s, do: stop, target: node/ours-0}
  - {at: epoch 2 P+20s, do: stall, target: node/ours-1, for: 20s}
  - {at: epoch 2 P+20s, do: stall, target: dapi/ml, for: 10s}
  - {at: epoch 3 P+20s, do: stop, target: dapi/ml, for: 200s}
",
    );
    let attainable = |epoch, host: usize| sprint(&exams, epoch).hosts[host].attainable_weight;
    let available = |epoch, host: usize| sprint(&exams, epoch).hosts[host].physically_available_weight;
    let whole = available(1, 0);
    assert_eq!(attainable(1, 0), whole, "nothing happened");
    assert_eq!(available(2, 0), whole, "all was there as it began");
    let (slot, generation_s) = (whole / 4, 50);
    // The first node is seen to be gone with the next thing that happens, at once or nearly.
    let expected = 3 * slot + slot * 20 / generation_s;
    assert!(
        attainable(2, 0).abs_diff(expected) <= 2,
        "{} of {whole}",
        attainable(2, 0)
    );
    let (deaf, there) = (attainable(3, 0), available(3, 0));
    assert!(deaf.abs_diff(there * 20 / generation_s) <= 2, "{deaf} of {there}");
    assert!((1..=3).all(|epoch| attainable(epoch, 1) == available(epoch, 1)));
}

#[test]
fn a_machine_that_comes_back_has_to_load_before_it_counts() {
    let steps = "
  - {at: epoch 2 P-100s, do: stop, target: node/ours-0, for: 90s}
  - {at: epoch 2 P-100s, do: stop, target: node/ours-1, for: 20s}
";
    let quick = DEVNET.replace(
        "nodes: 4, noncesPerSecond: 10}",
        "nodes: 4, noncesPerSecond: 10, loadMillis: 50000}",
    );
    let exams = run(&format!("{quick}steps:\n{steps}")).take_exams();
    assert_eq!(physical(&sprint(&exams, 2).hosts[0])[..2], [false, true]);
}

#[test]
fn a_confirmation_is_held_against_what_was_there_when_it_was_announced() {
    let steps = "
  - {at: height 83, do: triggerConfirmation, force: true}
  - {at: height 85, do: stop, target: node/ours-0}
  - {at: height 83, do: stop, target: node/ours-1}
";
    let exams = exams(steps);
    let confirmation = exams
        .iter()
        .find(|exam| exam.kind == "Confirmation")
        .expect("announced");
    assert_eq!((confirmation.trigger_height, confirmation.start_height), (84, 86));
    assert_eq!(physical(&confirmation.hosts[0]), [true, false, true, true]);
    assert_eq!(delivered(&confirmation.hosts[0]), [false, false, true, true]);
}

#[test]
fn a_node_that_is_disabled_is_no_slot_from_the_next_epoch_on() {
    let (mut driver, mut nodes) = start(DEVNET);
    driver.step_until(BEGINNING_MS + 50 * 5000, &mut nodes);
    driver.door().set_enabled("ours-1", false).expect("answers");
    driver.run(&mut nodes);
    let exams = driver.take_exams();
    assert_eq!(physical(&sprint(&exams, 1).hosts[0]), [true; 4]);
    assert_eq!(physical(&sprint(&exams, 2).hosts[0]), [true, false, true, true]);
}

#[test]
fn a_node_left_on_inference_counts_with_what_it_carries_only() {
    let driver = run(&DEVNET.replace("preserve: false", "preserve: [ours-0, rival-1-3]"));
    let exams = &driver.net().record.exams;
    let exam = sprint(exams, 3);
    assert_eq!(physical(&exam.hosts[0]), [false, true, true, true]);
    assert_eq!(physical(&exam.hosts[1]), [true, true, true, false]);
    assert!(exam.hosts[0].nodes[0].carried_weight > 0);
}

#[test]
fn lost_callbacks_come_again_with_the_next_and_all_lost_are_lost() {
    let steps =
        |percent| format!("  - {{at: epoch 2 P+0s, do: drop, target: dapi/ml, percent: {percent}, for: 20 blocks}}\n");
    let weight = |percent| sprint(&exams(&steps(percent)), 2).hosts[0].weight;
    let (none, half, all) = (weight(0), weight(50), weight(100));
    assert_eq!(all, 0);
    assert!(half > none * 6 / 10 && half < none, "{half} of {none}");
}

#[test]
fn a_node_behind_a_lossy_network_is_slow_to_start_and_keeps_most() {
    let exams = exams("  - {at: epoch 2 P-5s, do: drop, target: node/ours-0, percent: 60}\n");
    let nodes = &sprint(&exams, 2).hosts[0].nodes;
    assert!(nodes[0].accepted < nodes[1].accepted, "{nodes:#?}");
}

#[test]
fn half_a_start_starts_half_of_the_nodes_once() {
    let steps = "
  - {at: epoch 2 P-5s, do: partialStart, target: ours, percent: 50}
  - {at: epoch 2 P-5s, do: partialStart, target: rival-1, percent: 25}
";
    let exams = exams(steps);
    assert_eq!(delivered(&sprint(&exams, 2).hosts[0]), [true, true, false, false]);
    assert_eq!(delivered(&sprint(&exams, 2).hosts[1]), [true, false, false, false]);
    assert_eq!(
        physical(&sprint(&exams, 2).hosts[1]),
        [true; 4],
        "they could have been started"
    );
    assert_eq!(delivered(&sprint(&exams, 3).hosts[0]), [true; 4]);
}

#[test]
fn a_competitor_can_grow_at_once() {
    let exams = exams("  - {at: epoch 2 P-5s, do: weight, target: rival-1, percent: 300, for: 30 blocks}\n");
    let weight = |epoch| sprint(&exams, epoch).hosts[1].weight;
    assert_eq!(weight(2), 3 * weight(1));
    assert_eq!(weight(3), weight(1));
}

#[test]
fn validators_that_vote_no_reject_whom_they_outweigh() {
    let no = |host| format!("  - {{at: epoch 2 P-5s, do: vote, target: {host}, value: invalid}}\n");
    let one = exams(&no("rival-1"));
    assert!(sprint(&one, 2).hosts[0].weight > 0, "one of four is not enough");
    let all: String = ["rival-1", "rival-2", "rival-3"].map(no).concat();
    let all = exams(&all);
    assert!(sprint(&all, 1).hosts[0].weight > 0);
    assert_eq!(sprint(&all, 2).hosts[0].weight, 0);
}

#[test]
fn fraud_is_found_where_artifacts_are_only_counted_too() {
    let text = DEVNET.replace(
        "exams:",
        "  - {name: liar, driver: simulated, nodes: 1, artifacts: random}\nexams:",
    );
    let exams = run(&text).take_exams();
    assert_eq!(sprint(&exams, 1).hosts[4].weight, 0);
    assert!(sprint(&exams, 1).hosts[0].weight > 0);
}

#[test]
fn a_chain_that_waits_for_ever_ends_the_recorded_run() {
    let (mut driver, mut nodes) = start(&format!(
        "{DEVNET}steps: [{{at: height 30, do: stop, target: chain}}]\n"
    ));
    let directory = tempfile::tempdir().expect("a directory");
    let outcome = record::run(&mut driver, &mut nodes, directory.path(), DEVNET).expect("written");
    assert!(!outcome.over);
    assert!(!driver.run(&mut nodes));
    assert_eq!(driver.net().height(), 30);
}

#[test]
fn a_streamed_ledger_is_the_ledger() {
    let (mut driver, mut nodes) = start(DEVNET);
    let directory = tempfile::tempdir().expect("a directory");
    record::run(&mut driver, &mut nodes, directory.path(), DEVNET).expect("written");
    let text = std::fs::read_to_string(directory.path().join(history::LEDGER)).expect("there");
    let streamed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(streamed, json!(crate::views::control::ledger(run(DEVNET).net())));
}

#[test]
fn old_blocks_and_epochs_are_forgotten_and_nothing_misses_them() {
    let scenario = DEVNET.replace("epochs: 4", "epochs: 60");
    let (mut driver, mut nodes) = start(&scenario);
    driver.keep_blocks(5);
    let (mut exams, mut epochs) = (0, Vec::new());
    while !driver.is_over() && driver.step(&mut nodes) {
        exams += driver.take_exams().len();
        epochs.extend(driver.take_epochs());
    }
    epochs.extend(driver.take_all_epochs());
    assert_eq!(exams, 60);
    let indices: Vec<u64> = epochs.iter().map(|epoch| epoch.index).collect();
    assert_eq!(indices, (1..60).collect::<Vec<_>>());
    assert!(
        epochs
            .iter()
            .all(|epoch| epoch.rewards.iter().all(|reward| reward.claimed_height > 0))
    );
}

/// Nodes of which the first answers in its own time.
#[derive(Debug)]
struct Slow {
    nodes: CountingNodes,
    after_ms: Option<u64>,
    held: Vec<(u64, Ticket)>,
}

/// Apart from the tokens of the nodes.
const TOKEN: u64 = u64::MAX;

impl Outside for Slow {
    fn call(&mut self, door: &mut Door<'_>, ticket: Ticket, call: &Call) -> Response {
        if call.host != "ours-0" {
            return self.nodes.call(door, ticket, call);
        }
        let Some(ms) = self.after_ms else {
            return Response::Never;
        };
        self.held.push((door.now_ms() + ms, ticket));
        door.wake_after(ms, TOKEN);
        Response::Later
    }

    fn wake(&mut self, door: &mut Door<'_>, token: u64) {
        if token != TOKEN {
            return self.nodes.wake(door, token);
        }
        let now_ms = door.now_ms();
        let (due, later) = self.held.drain(..).partition(|(at_ms, _)| *at_ms <= now_ms);
        self.held = later;
        let due: Vec<(u64, Ticket)> = due;
        for (_, ticket) in due {
            let body = Arc::new(json!({"state": "INFERENCE", "data": [{"id": "gonka-fleet/tiny_qwen3_dense"}]}));
            door.answer(ticket, Ok(Answer::value(200, body)));
        }
    }

    fn units(&mut self, net: &Network, stage_height: i64) -> Vec<Unit> {
        self.nodes.units(net, stage_height)
    }
}

#[test]
fn an_answer_may_come_later_but_not_after_the_time_out() {
    let status = |after_ms| {
        let (mut driver, nodes) = start(DEVNET);
        let held = Vec::new();
        let mut outside = Slow { nodes, after_ms, held };
        driver.step_until(BEGINNING_MS + 30_000, &mut outside);
        driver.net().dapi.nodes[0].current.0
    };
    assert_eq!(status(Some(1000)), Status::Inference);
    assert_eq!(status(Some(6000)), Status::Failed);
    assert_eq!(status(None), Status::Failed);
}

#[test]
fn stepping_to_a_moment_does_what_is_due_and_no_more() {
    let (mut driver, mut nodes) = start(DEVNET);
    driver.step_until(BEGINNING_MS + 24_999, &mut nodes);
    assert_eq!((driver.net().height(), driver.now_ms()), (4, BEGINNING_MS + 24_999));
    driver.step_until(BEGINNING_MS + 25_000, &mut nodes);
    assert_eq!(driver.newest_block().map(|block| block.height), Some(5));
}

#[test]
fn a_door_that_is_closed_lets_nobody_in() {
    let (mut driver, mut nodes) = start(DEVNET);
    driver.step_until(BEGINNING_MS + 60_000, &mut nodes);
    let mut door = driver.door();
    assert_eq!(door.nodes().map(<[_]>::len), Ok(4));
    let command = |verb, arguments: serde_json::Value| Command {
        verb,
        arguments: serde_json::from_value(arguments).expect("arguments"),
    };
    let stop = command(Verb::Stop, json!({"target": "dapi", "for": "4s"}));
    door.command(&stop).expect("stops");
    assert!(door.nodes().is_err() && door.delete_node("ours-0").is_err());
    let answer = command(Verb::Answer, json!({"target": "rest/2", "status": 503}));
    door.command(&answer).expect("answers");
    assert!(door.view(Port::Rest(1)).is_err() && door.view(Port::Rest(0)).is_ok());
    driver.step_until(BEGINNING_MS + 65_000, &mut nodes);
    let reply = driver.door().set_enabled("ours-3", false).expect("up again");
    assert_eq!(reply.status, 200);
    assert!(!driver.net().dapi.nodes[3].admin.enabled);
}
