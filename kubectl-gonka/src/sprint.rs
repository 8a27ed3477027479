//! `kubectl gonka sprint` as text. Pure: a view in, lines out.

use std::fmt::Write as _;

use crds::sprint_view::{ScheduleView, SlotView, View};
use crds::{GonkaHost, SprintSchedule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::table;

/// The leader's (or a follower's) live view.
pub(crate) fn render(view: &View, hosts: &[GonkaHost]) -> String {
    let mut text = String::new();
    for schedule in &view.schedules {
        text.push_str(&schedule_lines(schedule));
    }
    if view.schedules.is_empty() {
        text.push_str("no SprintSchedule is read; kubectl apply one (see examples/)\n");
    }
    text.push('\n');
    text.push_str(&host_table(hosts));
    text.push('\n');
    if view.leader {
        text.push_str(&slot_table(&view.slots));
    } else {
        let _infallible = writeln!(
            text,
            "{} does not lead and sees no slots; no leader answered",
            view.replica
        );
    }
    text
}

/// What status says when no operator answers.
pub(crate) fn render_fallback(schedules: &[SprintSchedule], hosts: &[GonkaHost], error: &str) -> String {
    let mut text = format!("the operator did not answer ({error}); this is status as last written\n\n");
    let rows: Vec<Vec<String>> = schedules
        .iter()
        .map(|schedule| {
            let status = schedule.status.clone().unwrap_or_default();
            vec![
                schedule.metadata.name.clone().unwrap_or_default(),
                status.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
                status.stage.to_string(),
                status.window.to_string(),
                status
                    .next_poc_start_height
                    .map(|height| height.to_string())
                    .unwrap_or_default(),
                status
                    .next_sprint_time
                    .map(|time| time.0.to_string())
                    .unwrap_or_default(),
            ]
        })
        .collect();
    text.push_str(&table::render(
        &["NETWORK", "EPOCH", "STAGE", "WINDOW", "NEXT SPRINT", "EXPECTED"],
        &rows,
    ));
    text.push('\n');
    text.push_str(&host_table(hosts));
    text
}

fn schedule_lines(schedule: &ScheduleView) -> String {
    let mut text = format!(
        "{} ({})  epoch {}  {}  window {}\n  height {} ({} ago, {} of {} endpoints agree)\n",
        schedule.name,
        schedule.chain_id,
        schedule.epoch,
        schedule.stage,
        schedule.window,
        schedule.height,
        duration(schedule.age_ms),
        schedule.agreeing,
        schedule.endpoints,
    );
    match (schedule.next_poc_start_height, schedule.millis_to_sprint) {
        (Some(height), Some(millis)) if millis >= 0 => {
            let error = schedule
                .error_ms
                .map(|error| format!(" ± {}", duration(error)))
                .unwrap_or_default();
            let _infallible = writeln!(text, "  next Sprint at {height}, in {}{error}", duration(millis));
        }
        (Some(height), _) => {
            let _infallible = writeln!(text, "  Sprint of {height} is due");
        }
        (None, _) => text.push_str("  next Sprint unknown\n"),
    }
    if let Some(exam) = &schedule.exam {
        let left = exam.generation_end_height - schedule.height;
        let _infallible = writeln!(
            text,
            "  {} from {} to {}{}",
            exam.kind,
            exam.generation_start_height,
            exam.generation_end_height,
            if left > 0 {
                format!(", {left} blocks left")
            } else {
                String::new()
            },
        );
    }
    for problem in &schedule.problems {
        let _infallible = writeln!(text, "  ! {problem}");
    }
    text
}

/// "1h 02m 03s", "4.2s", "230ms".
fn duration(millis: i64) -> String {
    let seconds = millis / 1000;
    match seconds {
        _ if millis < 1000 => format!("{millis}ms"),
        0..60 => format!("{}.{}s", seconds, millis % 1000 / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m {:02}s", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

fn host_table(hosts: &[GonkaHost]) -> String {
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|host| {
            let status = host.status.clone().unwrap_or_default();
            let (ready, why) = condition(&status.conditions, "SprintReady");
            vec![
                host.metadata.namespace.clone().unwrap_or_default(),
                host.metadata.name.clone().unwrap_or_default(),
                host.spec.management_policy.to_string(),
                status.window.to_string(),
                ready,
                status.weight.map(|weight| weight.to_string()).unwrap_or_default(),
                why,
            ]
        })
        .collect();
    table::render(
        &["NAMESPACE", "HOST", "POLICY", "WINDOW", "SPRINT READY", "WEIGHT", "WHY"],
        &rows,
    )
}

fn condition(conditions: &[Condition], kind: &str) -> (String, String) {
    conditions.iter().find(|condition| condition.type_ == kind).map_or_else(
        || ("Unknown".to_owned(), String::new()),
        |condition| {
            let why = if condition.status == "True" {
                String::new()
            } else {
                format!("{}: {}", condition.reason, condition.message)
            };
            (condition.status.clone(), why)
        },
    )
}

fn slot_table(slots: &[SlotView]) -> String {
    let rows: Vec<Vec<String>> = slots
        .iter()
        .map(|slot| {
            vec![
                slot.deployment.clone(),
                if slot.slot < 0 {
                    "spare".to_owned()
                } else {
                    slot.slot.to_string()
                },
                slot.state.clone(),
                slot.node.clone(),
                slot.pod.clone(),
                slot.generated.to_string(),
                slot.accepted.to_string(),
                format!(
                    "{}.{}",
                    slot.nonces_per_second_milli / 1000,
                    slot.nonces_per_second_milli % 1000 / 100
                ),
                slot.first_nonce_ms.map(|millis| millis.to_string()).unwrap_or_default(),
                if slot.connected {
                    slot.reasons.join(",")
                } else {
                    "operator does not hear from the pod".to_owned()
                },
            ]
        })
        .collect();
    table::render(
        &[
            "DEPLOYMENT",
            "SLOT",
            "STATE",
            "MACHINE",
            "POD",
            "NONCES",
            "ACCEPTED",
            "PER SECOND",
            "FIRST MS",
            "WHY NOT READY",
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        serde_yaml::from_str(include_str!("../tests/view.yaml")).expect("a view")
    }

    #[test]
    fn shows_countdown_window_exam_and_slots() {
        insta::assert_snapshot!(render(&view(), &[]));
    }

    #[test]
    fn a_follower_says_that_it_sees_no_slots() {
        let text = render(
            &View {
                leader: false,
                ..view()
            },
            &[],
        );
        assert!(text.contains("does not lead and sees no slots"), "{text}");
    }

    #[test]
    fn durations_read_like_a_clock() {
        assert_eq!(
            [0, 999, 4_230, 83_000, 3_723_000].map(duration),
            ["0ms", "999ms", "4.2s", "1m 23s", "1h 02m 03s"]
        );
    }
}
