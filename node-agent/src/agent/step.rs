//! Box 3, the whole decision for one sample: remember, evaluate, report. Pure; golden tests drive exactly this.

use std::collections::BTreeMap;

use crds::gpu_node::GpuNodeStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::evaluate::freshness::{Freshness, freshness};
use super::evaluate::{Evaluation, Inputs, evaluate};
use super::history::History;
use super::observe::Sample;
use super::report::build_status;

/// What follows from one sample.
#[derive(Clone, Debug)]
pub struct Step {
    /// To go on with.
    pub history: History,
    /// For metrics.
    pub evaluation: Evaluation,
    /// For the API server. None while there is nothing to say: an agent that just started knows less than its last report.
    pub status: Option<GpuNodeStatus>,
}

/// Decides.
pub fn step(history: &History, sample: &Sample, inputs: &Inputs) -> Step {
    let mut history = history.remember(sample, &inputs.policy);
    let evaluation = evaluate(&history, sample, inputs);
    for verdict in &evaluation.gpus {
        if let Some(known) = history.gpus.get_mut(&verdict.uuid) {
            let rules = verdict.findings.iter().map(|found| found.rule.as_ref());
            known.findings = since(&known.findings, rules, &sample.now);
        }
    }
    let pending = matches!(freshness(sample, &inputs.policy), Freshness::Pending) || sample.host.is_none();
    let status = (!pending).then(|| build_status(&history, sample, &evaluation, inputs));
    if let Some(status) = &status {
        history.conditions.clone_from(&status.conditions);
    }
    Step {
        history,
        evaluation,
        status,
    }
}

fn since<'a>(
    before: &BTreeMap<String, Time>,
    rules: impl Iterator<Item = &'a str>,
    now: &Time,
) -> BTreeMap<String, Time> {
    rules
        .map(|rule| (rule.to_owned(), before.get(rule).unwrap_or(now).clone()))
        .collect()
}
