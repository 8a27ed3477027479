//! What a nonce of each model weighs in an epoch, where coefficients move: fixed at the Sprint's end, for the epoch's confirmations too.

use super::{book_count, verdict};
use crate::{
    coefficients::{self, Config, Share},
    exam::Exam,
    network::{Network, Scale},
    scenario::{Model, expect::Verdict},
};
use std::collections::BTreeMap;

/// Counts that make weight, per model: committed ones of whoever was accepted, carried ones of everybody.
fn current(net: &Network, exam: &Exam) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for entry in &exam.entries {
        let is_accepted = verdict(net, exam, entry) == Verdict::Accepted;
        for model in entry.books.keys().filter(|_| is_accepted) {
            *counts.entry(model.clone()).or_default() += book_count(entry, model);
        }
        for node in &entry.nodes {
            *counts.entry(node.model.clone()).or_default() += node.carried;
        }
    }
    counts
}

/// The same as it ended up in an epoch's seats.
fn seated(net: &Network, epoch: u64) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let seats = net.epoch(epoch).into_iter().flat_map(|epoch| epoch.seats.values());
    for node in seats.flat_map(|seat| &seat.nodes) {
        *counts.entry(node.model.clone()).or_default() += node.poc_weight;
    }
    counts
}

fn share(models: &[(&Model, Config)], counts: &BTreeMap<String, u64>, id: &str) -> Share {
    let weighed = models.iter().map(|(model, config)| {
        let count = counts.get(&model.id).copied().unwrap_or_default();
        (
            model.id.as_str(),
            u128::from(config.difficulty.floor_of(count.saturating_mul(1000))),
        )
    });
    weighed.fold(Share::default(), |share, (model, weight)| Share {
        part: share.part + if model == id { weight } else { 0 },
        whole: share.whole + weight,
    })
}

/// A Sprint ends: the controllers make their step of the epoch.
pub(super) fn fix(net: &mut Network, exam: &Exam) {
    let moving = |model: &'_ Model| model.dynamic;
    let scenario = std::sync::Arc::clone(&net.scenario);
    let models: Vec<(&Model, Config)> = scenario
        .models
        .iter()
        .filter_map(|model| Some((model, moving(model)?)))
        .collect();
    if models.is_empty() {
        return;
    }
    let before = exam.epoch.saturating_sub(1);
    let (now, earlier) = (current(net, exam), seated(net, before));
    let scales: BTreeMap<String, Scale> = models
        .iter()
        .map(|(model, config)| {
            let known = net.epoch(before).and_then(|epoch| epoch.scales.get(&model.id));
            let state = match known {
                Some(scale) => config.step(scale.state, share(&models, &earlier, &model.id)),
                None => config.begin(model.weight_scale_factor),
            };
            let effective = config.effective(state.base, share(&models, &now, &model.id));
            let effective = coefficients::decimal(effective);
            (model.id.clone(), Scale { state, effective })
        })
        .collect();
    net.epoch_mut(exam.epoch).scales = scales;
}

#[cfg(test)]
mod tests {
    use crate::{
        decimal::Decimal,
        faults::Port,
        ledger, scenario,
        views::{View, control, rest_epoch},
        virtual_time::{BEGINNING_MS, counting::CountingNodes},
    };
    use serde_json::json;
    use std::sync::Arc;

    const TWO_MODELS: &str = "
version: 1
network:
  version: v0.2.16
  blockMillis: 5000
  epochs: 5
  parameters: {epoch_length: 50, epoch_shift: 40, poc_stage_duration: 10, poc_validation_delay: 2, poc_validation_duration: 8,
    set_new_validators_delay: 2, inference_validation_cutoff: 2, confirmation_poc_safety_window: 2, validation_sample_size: 40}
models:
  - {id: rich, recipe: tiny_qwen3_dense, weightScaleFactor: 0.3, dynamic: {targetShareBps: 5000, coeffMin: 0.2, coeffMax: 0.4}}
  - {id: poor, recipe: tiny_llama_dense, weightScaleFactor: 0.3, dynamic: {targetShareBps: 5000, coeffMin: 0.2, coeffMax: 0.4}}
hosts:
  - {name: ours, driver: external, model: rich, nodes: 4, noncesPerSecond: 10}
  - {name: rival, count: 2, driver: simulated, model: rich, nodes: 4, noncesPerSecond: 10}
  - {name: other, driver: simulated, model: poor, nodes: 4, noncesPerSecond: 10}
exams: {preserve: false, confirmationPerEpoch: 1}
";

    /// Hundred-thousandths.
    fn scale(exam: &ledger::Exam, model: &str) -> u64 {
        let text = exam.weight_scales[model]["value"].as_str().expect("a value");
        text.parse::<u64>().expect("a number") / 10_000_000
    }

    #[test]
    fn a_crowded_model_falls_and_an_empty_one_rises_epoch_by_epoch() {
        let scenario = scenario::parse(TWO_MODELS).unwrap_or_else(|invalid| panic!("{invalid}"));
        let (mut driver, mut nodes) = CountingNodes::registered(&Arc::new(scenario), BEGINNING_MS);
        assert!(driver.run(&mut nodes));
        let net = driver.net();
        let exams = &net.record.exams;
        let sprints: Vec<&ledger::Exam> = exams.iter().filter(|exam| exam.kind == "Sprint").collect();
        let of = |model: &str| sprints.iter().map(|exam| scale(exam, model)).collect::<Vec<u64>>();
        // 0.3, and from then on 5 % a step; three quarters of the compute where a half is wanted count as 0.2 + (base - 0.2) x 2/3.
        assert_eq!(of("poor"), [30_000, 31_500, 33_075, 34_728, 36_465]);
        let rich = of("rich");
        assert!((26_500..26_800).contains(&rich[0]), "{rich:?}");
        assert!(
            rich.windows(2).all(|pair| pair[1] < pair[0]) && rich[4] >= 20_000,
            "{rich:?}"
        );
        for exam in exams {
            for host in &exam.hosts {
                let (count, model) = host
                    .commits
                    .last()
                    .map_or((0, "rich"), |commit| (commit.count, commit.model.as_str()));
                let scale = Decimal::from_rest(&exam.weight_scales[model]).expect("a decimal");
                let expected = scale.floor_of(count.into());
                assert_eq!(host.weight, expected, "{} {} {}", exam.kind, exam.epoch, host.name);
            }
        }
        assert!(exams.iter().any(|exam| exam.kind == "Confirmation"));
        let view = View::new(net, Port::Rest(0));
        let group = rest_epoch::epoch_group_data(&view, 5, None).expect("ruling");
        let row = &group["epoch_group_data"]["confirmation_weight_scales"][1];
        assert_eq!(
            (&row["model_id"], row["base_coefficient"]["exponent"].as_i64()),
            (&json!("poor"), Some(-12))
        );
        assert_eq!(
            control::ledger_frame(net).models["rich"].weight_scale_factor,
            json!("moves")
        );
    }

    #[test]
    fn coefficients_move_from_a_release_on_and_towards_parts_of_one_whole() {
        let refused = |from: &str, to: &str| {
            let told = scenario::parse(&TWO_MODELS.replacen(from, to, 1));
            told.map(drop).expect_err("refused").to_string()
        };
        assert!(refused("version: v0.2.16", "version: v0.2.15").contains("from v0.2.16 on"));
        assert!(refused("targetShareBps: 5000", "targetShareBps: 4000").contains("add up to 9000"));
        assert!(refused("coeffMin: 0.2", "coeffMin: 0.5").contains("models[0].dynamic: coeffMin is above coeffMax"));
    }
}
