//! What rows follow from what was said.

use super::*;

fn judged(product: &str, said: Vec<Said>) -> Vec<Row> {
    let gpu = Granted {
        uuid: "GPU-a".into(),
        product: Some(product.into()),
        ..Granted::default()
    };
    let story = Story {
        said: said.into_iter().map(|said| (Instant::now(), said)).collect(),
        ended: Ended::Done,
    };
    rows(&gpu, &Table::load(None).unwrap(), &story, &Samples::new())
}

fn outcome(rows: &[Row], check: &str) -> Option<Outcome> {
    rows.iter().find(|row| row.check == check).map(|row| row.outcome)
}

fn facts(multiprocessors: u32) -> Said {
    Said::Facts {
        name: "any".into(),
        multiprocessors,
        total_bytes: 1 << 30,
    }
}

#[test]
fn a_product_without_thresholds_is_unknown_and_its_numbers_are_reported() {
    let found = judged("NVIDIA T4", vec![facts(40)]);
    assert_eq!(outcome(&found, "product"), Some(Outcome::Unknown));
    assert_eq!(outcome(&found, "multiprocessors"), Some(Outcome::Reported));
}

#[test]
fn a_number_that_nobody_measured_judges_nothing() {
    let rate = Said::Rate {
        load: "any".into(),
        nonces: 1,
        nonces_per_second: Some(0.1),
        teraflops: Some(0.1),
        differing: 0,
        not_finite: 0,
    };
    let found = judged("NVIDIA H200", vec![facts(132), rate]);
    assert_eq!(outcome(&found, "noncesPerSecond"), Some(Outcome::Reported));
    assert_eq!(outcome(&found, "multiprocessors"), Some(Outcome::Passed));
    assert_eq!(
        outcome(&judged("NVIDIA H200", vec![facts(131)]), "multiprocessors"),
        Some(Outcome::Failed)
    );
}

#[test]
fn a_published_number_that_was_not_measured_is_unknown() {
    let found = judged("NVIDIA H200", Vec::new());
    assert_eq!(outcome(&found, "memorySize"), Some(Outcome::Unknown));
}

#[test]
fn memory_that_somebody_else_holds_is_unknown_and_not_well() {
    let weights = Said::Weights {
        bytes: 1 << 28,
        layers: 1,
        width: 1,
        passes: 2,
        differing: 0,
        finite: true,
        bad: None,
    };
    let found = judged("NVIDIA H200", vec![facts(132), weights]);
    assert_eq!(outcome(&found, "filled"), Some(Outcome::Unknown));
}
