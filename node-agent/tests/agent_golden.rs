//! Golden tests of the whole decision: `tests/golden/<case>/samples.yaml` → `report.yaml`, `metrics.txt`.
//!
//! Metrics are compared where a case says `metrics: true`. A case is a list of samples as `node-agent observe --once` prints them. `restart: true` before a sample is a restart of
//! the agent: only what the state file keeps is left. `UPDATE_GENERATED=1` writes the expectations.

#![expect(clippy::panic, reason = "a helper of tests ends the test with what it saw")]
#![expect(
    clippy::disallowed_methods,
    reason = "UPDATE_GENERATED turns the check into the generator"
)]

use std::collections::BTreeMap;
use std::path::Path;

use crds::GpuNodeStatus;
use crds::gpu_node::HealthOverride;
use node_agent::agent::evaluate::{Evaluation, Inputs};
use node_agent::agent::history::History;
use node_agent::agent::metrics::{View, render};
use node_agent::agent::observe::Sample;
use node_agent::agent::policy::Policy;
use node_agent::agent::publish::Outcomes;
use node_agent::agent::step::step;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    about: String,
    #[serde(default)]
    metrics: bool,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    overrides: Vec<HealthOverride>,
    generation: Option<i64>,
    samples: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    restart: bool,
    #[serde(flatten)]
    sample: Sample,
}

/// What is compared: each step in short, the last status in full.
#[derive(Serialize)]
struct Report {
    about: String,
    steps: Vec<Short>,
    status: Option<GpuNodeStatus>,
}

#[derive(Serialize)]
struct Short {
    now: String,
    published: bool,
    gpus: Vec<String>,
    /// Conditions that differ from the step before.
    conditions: BTreeMap<String, String>,
}

fn read_case(folder: &Path) -> Case {
    let text = std::fs::read_to_string(folder.join("samples.yaml")).expect("the case has samples.yaml");
    let mut value: serde_yaml::Value = serde_yaml::from_str(&text).expect("samples.yaml is YAML");
    // A merged map may merge another one: each turn resolves one level.
    for _ in 0..4 {
        value.apply_merge().expect("merge keys name maps");
    }
    serde_yaml::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

fn play(case: Case) -> (String, String) {
    let inputs = Inputs {
        policy: case.policy,
        overrides: case.overrides,
        generation: case.generation,
    };
    let mut history = History::default();
    let mut report = Report {
        about: case.about,
        steps: Vec::new(),
        status: None,
    };
    let mut shown = BTreeMap::new();
    let mut metrics = String::new();
    for entry in case.samples {
        if entry.restart {
            let kept = serde_json::to_string(&history).expect("a memory is JSON");
            history = serde_json::from_str(&kept).expect("a memory comes back");
        }
        let step = step(&history, &entry.sample, &inputs);
        history = step.history;
        let now = conditions(&step.evaluation);
        report.steps.push(Short {
            now: entry.sample.now.0.to_string(),
            published: step.status.is_some(),
            gpus: gpus(&step.evaluation),
            conditions: now
                .iter()
                .filter(|(key, value)| shown.get(*key) != Some(*value))
                .map(clone)
                .collect(),
        });
        shown = now;
        report.status = step.status.or(report.status);
        metrics = render(
            &View {
                node_name: "node-1",
                sample: &entry.sample,
                stale_seconds: inputs.policy.stale_seconds,
                history: &history,
                evaluation: &step.evaluation,
                outcomes: Outcomes::default(),
                state_saved: true,
            },
            0,
        );
    }
    (serde_yaml::to_string(&report).expect("a report is YAML"), metrics)
}

fn clone((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn conditions(evaluation: &Evaluation) -> BTreeMap<String, String> {
    let judgements = evaluation.judgements.iter();
    judgements
        .map(|(condition, judgement)| {
            (
                condition.to_string(),
                format!("{} {}", judgement.status, judgement.reason),
            )
        })
        .collect()
}

fn gpus(evaluation: &Evaluation) -> Vec<String> {
    let gpus = evaluation.gpus.iter();
    gpus.map(|gpu| {
        let findings = gpu.findings.iter();
        let findings: Vec<String> = findings
            .map(|found| format!(" {}{}", found.rule, if found.blocking { "!" } else { "" }))
            .collect();
        format!("{} {}{}", gpu.uuid, gpu.health, findings.concat())
    })
    .collect()
}

fn compare(path: &Path, fresh: &str) -> Option<String> {
    if std::env::var("UPDATE_GENERATED").is_ok() {
        std::fs::write(path, fresh).expect("the expectation can be written");
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    (expected != fresh).then(|| format!("--- {} is not what came out:\n{fresh}", path.display()))
}

#[test]
fn samples_lead_to_the_reports_and_metrics_of_their_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<_> = std::fs::read_dir(&root)
        .expect("there is a folder of cases")
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 10, "cases are missing from {}", root.display());
    let mut differences = Vec::new();
    for folder in folders {
        let case = read_case(&folder);
        let with_metrics = case.metrics;
        let (report, metrics) = play(case);
        differences.extend(compare(&folder.join("report.yaml"), &report));
        if with_metrics {
            differences.extend(compare(&folder.join("metrics.txt"), &metrics));
        }
    }
    assert!(
        differences.is_empty(),
        "{}\nif this is right: UPDATE_GENERATED=1 cargo test -p node-agent --test agent_golden, and read the diff",
        differences.join("\n")
    );
}

#[test]
fn a_second_step_over_an_unchanged_world_changes_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for folder in std::fs::read_dir(root).expect("there is a folder of cases") {
        let case = read_case(&folder.expect("a readable entry").path());
        let inputs = Inputs {
            policy: case.policy,
            overrides: case.overrides,
            generation: case.generation,
        };
        let last = case.samples.last().expect("a case has samples");
        let before = case.samples.iter().fold(History::default(), |history, entry| {
            step(&history, &entry.sample, &inputs).history
        });
        let again = Sample {
            xids: Vec::new(),
            ..last.sample.clone()
        };
        let first = step(&before, &again, &inputs);
        let second = step(&first.history, &again, &inputs);
        assert_eq!(first.history, second.history, "{}", case.about);
        assert_eq!(first.status, second.status, "{}", case.about);
    }
}
