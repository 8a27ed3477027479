//! `observed.yaml` → `desired.yaml` for every case; and after what is desired was written, nothing more is.
//! `UPDATE_GENERATED=1` rewrites `desired.yaml`.

#![expect(clippy::panic, reason = "a helper of tests ends the test with what it saw")]

use std::fs;
use std::path::{Path, PathBuf};

use operator::change::Change;
use operator::sprint_schedule::decide::decide;
use operator::sprint_schedule::observe::Observed;
use serde_json::Value;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sprint_schedule");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the golden folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.sort();
    cases
}

fn observed(case: &Path) -> Observed {
    let text = fs::read_to_string(case.join("observed.yaml")).expect("observed.yaml");
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

#[expect(clippy::disallowed_methods, reason = "a test asks whether to write its expectations")]
fn updating() -> bool {
    std::env::var_os("UPDATE_GENERATED").is_some()
}

fn statuses(changes: &[Change]) -> Vec<Value> {
    changes
        .iter()
        .map(|change| match change {
            Change::Status(object) => object.value.clone(),
            other => panic!("a status is all that is written, not {other:?}"),
        })
        .collect()
}

#[test]
fn decisions_are_as_recorded() {
    let update = updating();
    let cases = cases();
    assert!(cases.len() >= 8, "cases are missing: {cases:?}");
    for case in cases {
        let desired = serde_yaml::to_string(&statuses(&decide(&observed(&case)))).expect("YAML");
        let file = case.join("desired.yaml");
        if update {
            fs::write(&file, &desired).expect("written");
        }
        let recorded = fs::read_to_string(&file).expect("desired.yaml");
        assert_eq!(desired, recorded, "{}", case.display());
    }
}

#[test]
fn a_second_pass_over_an_unchanged_world_writes_nothing() {
    for case in cases() {
        let mut observed = observed(&case);
        let Some(written) = statuses(&decide(&observed)).pop() else {
            continue;
        };
        let status = serde_json::from_value(written["status"].clone()).expect("a status");
        match &mut observed.object {
            Some(object) => object.status = Some(status),
            None => observed.previous = Some(status),
        }
        assert_eq!(decide(&observed), [], "{}", case.display());
        // Nor does the clock alone make a change, as long as facts are not stale.
        observed.now_ms += 1000;
        assert_eq!(decide(&observed), [], "{} a second later", case.display());
    }
}
