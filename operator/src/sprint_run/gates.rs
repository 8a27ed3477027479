//! Box 3: the verdicts before an exam, taken when their moment passes. Pure.

use std::collections::BTreeMap;

use crds::GonkaHost;
use crds::conditions::ConditionType;
use crds::sprint_run::{Gate, GateResult, GateVerdict};
use crds::sprint_schedule::Margins;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The gates before a Sprint with their lead times, milliseconds.
pub fn lead_times(margins: &Margins) -> [(Gate, i64); 3] {
    let millis = |seconds: i32| i64::from(seconds) * 1000;
    [
        (Gate::ColdLoad, millis(margins.cold_load_seconds)),
        (Gate::ReadyBy, millis(margins.ready_by_seconds)),
        (Gate::Drain, millis(margins.drain_seconds)),
    ]
}

/// Gates whose moment lies between two looks at the clock: `before` and `now` are milliseconds until the Sprint. A first look
/// has no `before` and passes no gate: whoever comes late cannot say what was.
pub fn passed(margins: &Margins, before: Option<i64>, now: i64) -> Vec<Gate> {
    let Some(before) = before else {
        return Vec::new();
    };
    lead_times(margins)
        .into_iter()
        .filter(|(_, lead)| before > *lead && now <= *lead)
        .map(|(gate, _)| gate)
        .collect()
}

/// What a host's `SprintReady` says at a gate.
pub fn verdict(gate: Gate, host: &GonkaHost, now_ms: i64) -> GateVerdict {
    let ready = ConditionType::SprintReady.to_string();
    let condition = host
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .find(|condition| condition.type_ == ready);
    let (verdict, reasons) = match condition {
        Some(condition) if condition.status == "True" => (GateResult::Green, Vec::new()),
        // Not known is no evidence, and without evidence the light is red.
        Some(condition) => (
            GateResult::Red,
            condition.message.split("; ").take(32).map(str::to_owned).collect(),
        ),
        None => (GateResult::Red, vec!["the host was not looked at yet".to_owned()]),
    };
    let time = Timestamp::from_second(now_ms.div_euclid(1000)).ok().map(Time);
    GateVerdict {
        gate,
        verdict,
        reasons,
        time,
    }
}

/// Milliseconds until the Sprint at the last look, by Sprint.
pub type Clock = BTreeMap<i64, i64>;

#[cfg(test)]
mod tests {
    use crds::GonkaHostStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, 5000, &[])]
    #[case(Some(1_900_000), 1_850_000, &[])]
    #[case(Some(1_800_001), 1_800_000, &[Gate::ColdLoad])]
    #[case(Some(700_000), 100_000, &[Gate::ReadyBy, Gate::Drain])]
    #[case(Some(100_000), 90_000, &[])]
    fn a_gate_is_passed_once_when_its_moment_goes_by(
        #[case] before: Option<i64>,
        #[case] now: i64,
        #[case] gates: &[Gate],
    ) {
        assert_eq!(passed(&Margins::default(), before, now), gates);
    }

    fn host(status: &str, message: &str) -> GonkaHost {
        let condition = Condition {
            type_: "SprintReady".to_owned(),
            status: status.to_owned(),
            message: message.to_owned(),
            reason: "NotRehearsed".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let mut host = GonkaHost::new("ours", crds::GonkaHostSpec::default());
        host.status = Some(GonkaHostStatus {
            conditions: vec![condition],
            ..GonkaHostStatus::default()
        });
        host
    }

    #[test]
    fn only_evidence_makes_a_green_light() {
        assert_eq!(verdict(Gate::Drain, &host("True", ""), 1000).verdict, GateResult::Green);
        let red = verdict(Gate::Drain, &host("Unknown", "ChainUnknown: x; Unreachable: y"), 1000);
        assert_eq!((red.verdict, red.reasons.len()), (GateResult::Red, 2));
        let fresh = GonkaHost::new("ours", crds::GonkaHostSpec::default());
        assert_eq!(verdict(Gate::Drain, &fresh, 1000).verdict, GateResult::Red);
    }
}
