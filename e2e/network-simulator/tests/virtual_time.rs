//! `network-simulator run` and `replay` as people use them: the program, its scenarios, its histories. Prints what it
//! measures; asserts only what does not depend on how busy the machine is.

use sha2::{Digest, Sha256};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{process::Command, time::timeout};

const LIMIT: Duration = Duration::from_secs(240);

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name)
}

/// What the program said, and its exit status.
async fn program(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_network-simulator"))
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = timeout(LIMIT, output).await.expect("in time").expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs a scenario into a directory and gives the first line: what it took.
async fn run(scenario: &Path, directory: &Path, more: &[&str]) -> String {
    let (scenario, ledger) = (scenario.to_str().expect("text"), directory.to_str().expect("text"));
    let mut arguments = vec!["run", scenario, "--ledger", ledger];
    arguments.extend(more);
    let (status, out, err) = program(&arguments).await;
    assert_eq!(status, Some(0), "{out}\n{err}");
    let line = out.lines().next().unwrap_or_default();
    show(&format!("{}: {line}", scenario.rsplit('/').next().unwrap_or_default()));
    line.to_owned()
}

/// Past the harness, which keeps to itself what a test that passes prints.
fn show(line: &str) {
    writeln!(std::io::stderr(), "virtual time: {line}").expect("standard error is open");
}

fn number_before(line: &str, word: &str) -> f64 {
    let before = line.split(word).next().unwrap_or_default();
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().expect(line)
}

#[tokio::test]
async fn a_month_of_the_main_network_has_all_its_exams_and_hours() {
    let directory = tempfile::tempdir().expect("a directory");
    let line = run(&scenario("month.yaml"), directory.path(), &[]).await;
    let ledger = std::fs::read_to_string(directory.path().join("ledger.json")).expect("a ledger");
    let ledger: serde_json::Value = serde_json::from_str(&ledger).expect("one JSON value");
    let of_kind = |kind: &str| {
        let exams = ledger["exams"].as_array().expect("exams").iter();
        exams.filter(|exam| exam["kind"] == kind).count()
    };
    assert_eq!(of_kind("Sprint"), 33);
    // 32 epochs in which four are expected each; fewer than half of that is no accident.
    assert!(of_kind("Confirmation") > 64, "{}", of_kind("Confirmation"));
    assert_eq!(ledger["physical"], "capacity");
    let facts = std::fs::read_to_string(directory.path().join("facts.jsonl")).expect("facts");
    let hours = number_before(&line, " days") * 24.0;
    assert!(
        (facts.lines().count() as f64 - hours).abs() < 3.0,
        "{} of {hours}",
        facts.lines().count()
    );
}

#[tokio::test]
async fn the_same_again_is_the_same_to_the_byte_and_another_seed_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = directory.path().join("history");
    run(&scenario("what-if.yaml"), &history, &["--seed", "4"]).await;
    let history = history.to_str().expect("text");
    let (status, out, _) = program(&["replay", history]).await;
    assert_eq!(status, Some(0), "{out}");
    assert!(out.ends_with("the same history, byte for byte\n"), "{out}");
    let (status, out, _) = program(&["replay", history, "--seed", "5"]).await;
    assert_eq!(status, Some(1));
    assert!(
        out.contains("another history: ledger.json, line 1: seed is 4 in the first and 5 in the second"),
        "{out}"
    );
    let what_if = scenario("what-if.yaml");
    let (status, out, _) = program(&["replay", what_if.to_str().expect("text"), "--seed", "6"]).await;
    assert_eq!(status, Some(0), "{out}");
}

#[tokio::test]
async fn a_history_that_was_touched_is_told_by_the_field() {
    let directory = tempfile::tempdir().expect("a directory");
    run(&scenario("devnet.yaml"), directory.path(), &["--epochs", "4"]).await;
    let path = directory.path().join("ledger.json");
    let ledger = std::fs::read_to_string(&path).expect("a ledger");
    let touched = ledger.replacen("\"accepted\":", "\"accepted\":9", 1);
    std::fs::write(&path, touched).expect("written");
    let (status, out, _) = program(&["replay", directory.path().to_str().expect("text")]).await;
    assert_eq!(status, Some(1));
    assert!(
        out.contains("Sprint of epoch 1 at 10: hosts[0].nodes[0].accepted is 9"),
        "{out}"
    );
}

/// The digest is written down: a machine on which anything differs fails here. `UPDATE_GENERATED=1` writes it anew when
/// the network's rules have changed.
#[tokio::test]
async fn a_history_is_the_same_on_every_machine() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut found = String::new();
    for (name, epochs) in [("devnet.yaml", "40"), ("what-if.yaml", "10")] {
        run(&scenario(name), directory.path(), &["--epochs", epochs]).await;
        for file in ["ledger.json", "facts.jsonl"] {
            let bytes = std::fs::read(directory.path().join(file)).expect("a history");
            found.push_str(&format!("{} {name} {file}\n", hex::encode(Sha256::digest(bytes))));
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories.sha256");
    if update_generated() {
        std::fs::write(&path, &found).expect("written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, known,
        "run with UPDATE_GENERATED=1 if the rules were meant to change"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests that write files are told so by the environment, as everywhere here"
)]
fn update_generated() -> bool {
    std::env::var_os("UPDATE_GENERATED").is_some()
}

#[tokio::test]
async fn a_hundred_competitors_and_five_thousand_slots_fit_two_gibibytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = std::fs::read_to_string(scenario("month.yaml")).expect("a scenario");
    let start = text.find("hosts:").expect("hosts");
    let end = text.find("exams:").expect("exams");
    let hosts = "hosts:
  - {name: ours, driver: external, nodes: 100, noncesPerSecond: 29, noisePermille: 20}
  - {name: rival, count: 100, driver: simulated, nodes: 49, noncesPerSecond: 29, noisePermille: 20}
";
    let path = directory.path().join("large.yaml");
    std::fs::write(&path, format!("{}{hosts}{}", &text[..start], &text[end..])).expect("written");
    let line = run(&path, &directory.path().join("history"), &["--epochs", "3"]).await;
    let peak_mib = number_before(&line, " kB") / 1024.0;
    assert!(peak_mib < 2048.0, "{peak_mib} MiB");
}

#[tokio::test]
async fn ten_times_as_many_epochs_take_no_more_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut peaks = Vec::new();
    for epochs in ["1000", "10000"] {
        let line = run(&scenario("devnet.yaml"), directory.path(), &["--epochs", epochs]).await;
        peaks.push(number_before(&line, " kB"));
    }
    assert!(peaks[1] < peaks[0] * 1.25, "{peaks:?} kB");
}

#[tokio::test]
async fn what_needs_sockets_is_refused_before_the_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lie.yaml");
    let text = std::fs::read_to_string(scenario("devnet.yaml")).expect("a scenario");
    let steps = "steps: [{at: P, do: lie, target: rest/1, field: epoch, value: x}]\n";
    std::fs::write(&path, format!("{text}{steps}")).expect("written");
    let (status, _, err) = program(&["run", path.to_str().expect("text")]).await;
    assert_eq!(status, Some(2));
    assert!(err.contains("steps[0]: lie changes fields of JSON"), "{err}");
}
