//! Whatever is done to a network in virtual time, what the chain promises holds, and it happens the same way twice. Stories
//! are lists of steps that follow from a number; one that fails is printed as a scenario to replay.

use network_simulator::{
    identity, ledger, scenario,
    virtual_time::{BEGINNING_MS, counting::CountingNodes},
};
use std::{collections::BTreeSet, sync::Arc};

const STORIES: u64 = 60;

const NETWORK: &str = "
version: 1
network:
  version: v0.2.16
  blockMillis: 5000
  jitterMillis: 400
  epochs: 6
  parameters: {epoch_length: 90, epoch_shift: 70, poc_stage_duration: 20, poc_validation_delay: 2, poc_validation_duration: 12,
    set_new_validators_delay: 2, inference_validation_cutoff: 2, confirmation_poc_safety_window: 2, validation_sample_size: 40}
models: [{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense, weightScaleFactor: 0.3024}]
hosts:
  - {name: ours, driver: external, nodes: 4, noncesPerSecond: 10, noisePermille: 20, loadMillis: 60000}
  - {name: rival, count: 3, driver: simulated, nodes: 4, noncesPerSecond: 10, noisePermille: 20}
exams: {confirmationPerEpoch: 2, preserve: true}
dapi: {feeNgonka: 10, allowanceNgonka: 5000}
steps:
";

/// Choices that follow from a story's number, one after another.
struct Dice {
    story: String,
    thrown: u64,
}

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.thrown += 1;
        identity::number_below(bound, &["story", &self.story, &self.thrown.to_string()])
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

fn step(dice: &mut Dice) -> String {
    const NODES: [&str; 4] = ["node/ours-0", "node/ours-1", "node/ours-2", "node/ours-3"];
    const PORTS: [&str; 5] = ["dapi", "dapi/ml", "dapi/admin", "rpc/1", "endpoint/2"];
    const RIVALS: [&str; 3] = ["rival-1", "rival-2", "rival-3"];
    let at = match dice.below(3) {
        0 => format!("height {}", 1 + dice.below(540)),
        1 => format!(
            "epoch {} P{}{}s",
            1 + dice.below(6),
            dice.of(&["+", "-"]),
            dice.below(150)
        ),
        _ => format!("epoch {} +{} blocks", 1 + dice.below(6), dice.below(50)),
    };
    let lasting = match dice.below(3) {
        0 => String::new(),
        1 => format!(", for: {}s", 1 + dice.below(200)),
        _ => format!(", for: {} blocks", 1 + dice.below(60)),
    };
    let percent = dice.below(101);
    let what = match dice.below(14) {
        0 => format!(
            "{}, target: {}{lasting}",
            dice.of(&["stop", "stall", "restart", "start"]),
            dice.of(&PORTS)
        ),
        1 | 2 => format!(
            "{}, target: {}{lasting}",
            dice.of(&["stop", "stall", "restart", "start"]),
            dice.of(&NODES)
        ),
        3 => format!(
            "drop, target: {}, percent: {percent}{lasting}",
            dice.of(&["dapi/ml", "node/ours-0"])
        ),
        4 => format!(
            "weight, target: {}, percent: {}{lasting}",
            dice.of(&RIVALS),
            3 * percent
        ),
        5 => format!(
            "vote, target: {}, value: {}{lasting}",
            dice.of(&RIVALS),
            dice.of(&["invalid", "absent"])
        ),
        6 => format!(
            "partialStart, target: {}, percent: {percent}",
            dice.of(&["ours", "rival-1"])
        ),
        7 => format!(
            "{}, target: chain, for: {}s",
            dice.of(&["stop", "stall"]),
            1 + dice.below(200)
        ),
        8 => format!("burst, target: chain, blocks: {}", 1 + dice.below(20)),
        10 => format!(
            "scheduleMaintenance, target: {}, height: {}, blocks: {}",
            dice.of(&["ours", "rival-1", "rival-2"]),
            1 + dice.below(540),
            1 + dice.below(50)
        ),
        11 => format!(
            "{}, target: rival-1{lasting}",
            dice.of(&["cancelMaintenance", "missBlocks"])
        ),
        12 => format!("challenge, target: {}", dice.of(&["ours", "rival-1"])),
        9 => format!(
            "grant, target: ours, ngonka: {}{lasting}",
            [0, 1_000, 1_000_000_000][dice.below(3) as usize]
        ),
        _ => dice
            .of(&["triggerConfirmation, force: true", "loseDatabase, target: dapi"])
            .to_owned(),
    };
    format!("  - {{at: {at}, do: {what}}}\n")
}

fn story(number: u64) -> String {
    let mut dice = Dice {
        story: number.to_string(),
        thrown: 0,
    };
    let steps = 1 + dice.below(20);
    let steps: String = (0..steps).map(|_| step(&mut dice)).collect();
    format!("{NETWORK}{steps}")
}

/// What a story came to: its ledger and the digest of all that happened.
fn tell(text: &str) -> (ledger::Ledger, u64) {
    let scenario = Arc::new(scenario::parse(text).expect("stories are valid scenarios"));
    let (mut driver, mut nodes) = CountingNodes::registered(&scenario, BEGINNING_MS);
    assert!(driver.run(&mut nodes), "the story has no end:\n{text}");
    (network_simulator::views::control::ledger(driver.net()), driver.trace())
}

fn assert_promises(ledger: &ledger::Ledger, text: &str) {
    for exam in &ledger.exams {
        for host in &exam.hosts {
            let voters: BTreeSet<&String> = host.votes.iter().map(|vote| &vote.validator).collect();
            assert_eq!(voters.len(), host.votes.len(), "a validator votes once:\n{text}");
            for node in &host.nodes {
                assert!(node.committed <= node.accepted, "{node:?}\n{text}");
            }
            let rows: u64 = host.nodes.iter().map(|node| node.physically_available_weight).sum();
            let rounding = host.nodes.len() as u64;
            let whole = host.physically_available_weight;
            assert!(rows <= whole && whole <= rows + rounding, "{rows} of {whole}\n{text}");
            let carried: u64 = host.nodes.iter().map(|node| node.carried_weight).sum();
            let (made, most) = (host.weight.saturating_sub(carried), host.attainable_weight + rounding);
            assert!(made <= most, "{made} came of {most} attainable: {host:#?}\n{text}");
        }
    }
    for epoch in &ledger.epochs {
        let number = |text: &String| text.parse::<u128>().expect("a number");
        let paid: u128 = epoch.rewards.iter().map(|reward| number(&reward.ngonka)).sum();
        assert!(
            paid <= number(&epoch.total_ngonka),
            "more is paid than there is:\n{text}"
        );
    }
}

#[test]
fn whatever_happens_the_chain_keeps_its_promises_and_it_happens_the_same_way_twice() {
    for number in 0..STORIES {
        let text = story(number);
        let (ledger, trace) = tell(&text);
        assert!(ledger.exams.len() >= 6, "{}\n{text}", ledger.exams.len());
        assert_promises(&ledger, &text);
        let (again, trace_again) = tell(&text);
        assert_eq!(trace, trace_again, "{text}");
        let json = |ledger: &ledger::Ledger| serde_json::to_string(ledger).expect("JSON");
        assert!(json(&ledger) == json(&again), "two histories of one story:\n{text}");
    }
}
