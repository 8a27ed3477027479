//! Alerts ask for metrics that exist, each has a page, and every metric is in `docs/metrics.md`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use operator::metrics::Metrics;
use prometheus::Registry;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).expect("a file of the repository")
}

/// Names that begin with `prefix` in a text.
fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    text.match_indices(prefix)
        .map(|(at, _)| {
            text[at..]
                .chars()
                .take_while(|character| character.is_ascii_alphanumeric() || *character == '_')
                .collect()
        })
        .collect()
}

fn metrics() -> String {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).expect("metrics register");
    let mut page = "# Metrics of the operator\n\nGenerated; `UPDATE_GENERATED=1 cargo test -p operator --test alerts`. Agents have those of dcgm-exporter under their\nnames, and `gonka_agent_…`.\n\n| metric | labels | what it is |\n|---|---|---|\n".to_owned();
    for description in metrics.descriptions() {
        let labels = description.variable_labels.join(", ");
        page.push_str(&format!(
            "| `{}` | {labels} | {} |\n",
            description.fq_name, description.help
        ));
    }
    page
}

#[test]
fn every_metric_is_documented() {
    let path = repository().join("docs/metrics.md");
    let page = metrics();
    #[expect(
        clippy::disallowed_methods,
        reason = "the switch of every generator of this repository"
    )]
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &page).expect("docs are writable");
    }
    assert_eq!(read("docs/metrics.md"), page);
}

#[test]
fn every_alert_asks_for_metrics_that_exist_and_has_a_page() {
    let rules = read("charts/gonka-fleet/templates/monitoring/rules.yaml");
    let known = names(&metrics(), "gonka_operator_");
    let asked = names(&rules, "gonka_operator_");
    assert!(asked.is_subset(&known), "{:?} do not exist", asked.difference(&known));
    let alerts: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned))
        .collect();
    let pages: BTreeSet<String> = std::fs::read_dir(repository().join("docs/alerts"))
        .expect("docs/alerts")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            path.file_stem().expect("a name").to_string_lossy().into_owned()
        })
        .collect();
    assert_eq!(alerts, pages);
}
