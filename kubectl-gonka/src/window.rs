//! `kubectl gonka window` as text: what the Window Gate allows now, why, and for how long; then the days to come. Pure.

use std::fmt::Write as _;

use crds::references::Window;
use crds::sprint_schedule::CalendarEntry;
use crds::sprint_view::GateHistory;
use crds::{GonkaHost, SprintSchedule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::clock::{Clock, lasts};
use crate::table;

/// All schedules, `days` ahead.
pub(crate) fn render(schedules: &[SprintSchedule], hosts: &[GonkaHost], days: u32, clock: &Clock) -> String {
    if schedules.is_empty() {
        return "no SprintSchedule is there; kubectl apply one (see examples/)\n".to_owned();
    }
    let mut text = String::new();
    for schedule in schedules {
        text.push_str(&now(schedule, clock));
        text.push('\n');
        text.push_str(&ahead(schedule, days, clock));
        text.push('\n');
    }
    text.push_str(&host_table(hosts));
    text
}

/// What a window means for whoever wants to disrupt something.
fn means(window: Window) -> &'static str {
    match window {
        Window::Green => "no exam can be announced: disruption within each host's budget",
        Window::Amber => {
            "an exam is possible at two blocks' notice, or a Sprint is near: slots move to rehearsed spares, nothing else"
        }
        Window::Sprint => "a Sprint generates: nothing is disrupted",
        Window::Confirmation => "a confirmation runs: nothing is disrupted",
        Window::Validation => "a Sprint is validated: nothing is disrupted",
        Window::Challenge => "a host is under challenge: nothing of it is disrupted",
        Window::UpgradeFreeze => "an upgrade of the chain is near: nothing is disrupted",
        Window::Unknown => "the chain is not known well enough: nothing is disrupted, serving goes on",
    }
}

fn now(schedule: &SprintSchedule, clock: &Clock) -> String {
    let status = schedule.status.clone().unwrap_or_default();
    let mut text = format!(
        "{} ({})  window {}\n  {}\n",
        schedule.metadata.name.as_deref().unwrap_or_default(),
        schedule.spec.chain_id,
        status.window,
        means(status.window)
    );
    if let (Some(present), next) = (status.calendar.first(), status.calendar.get(1)) {
        let then = next.map(|next| format!(", then {} for {}", next.window, length(next)));
        let _infallible = writeln!(
            text,
            "  until {} (in {}, ± {}){}",
            clock.later(&present.until_time, &present.from_time),
            lasts(clock.seconds_until(&present.until_time)),
            lasts(present.error_seconds),
            then.unwrap_or_default()
        );
    }
    if status.window == Window::Unknown {
        let why = status.conditions.iter().filter(|condition| condition.status != "True");
        for condition in why.filter(|condition| !condition.message.is_empty()) {
            let _infallible = writeln!(
                text,
                "  {} {}: {}",
                condition.type_, condition.reason, condition.message
            );
        }
    }
    if let Some(plan) = &status.upgrade_plan {
        let _infallible = writeln!(text, "  upgrade {} at height {}", plan.name, plan.height);
    }
    for vote in &status.upgrade_votes {
        let ends = vote.voting_end_time.as_ref();
        let ends = ends.map_or_else(|| "an end not told".to_owned(), |end| clock.day(end));
        let _infallible = writeln!(
            text,
            "  upgrade {} at height {} if proposal {} passes; it is voted on until {ends}",
            vote.name, vote.height, vote.proposal
        );
    }
    text
}

fn length(entry: &CalendarEntry) -> String {
    lasts(entry.until_time.0.as_second() - entry.from_time.0.as_second())
}

fn ahead(schedule: &SprintSchedule, days: u32, clock: &Clock) -> String {
    let status = schedule.status.clone().unwrap_or_default();
    let rows: Vec<Vec<String>> = status
        .calendar
        .iter()
        .filter(|entry| clock.seconds_until(&entry.from_time) < i64::from(days) * 86_400)
        .map(|entry| {
            vec![
                clock.day(&entry.from_time),
                clock.later(&entry.until_time, &entry.from_time),
                length(entry),
                entry.if_passed.map_or_else(
                    || entry.window.to_string(),
                    |proposal| format!("{} if {proposal} passes", entry.window),
                ),
                entry.from_height.to_string(),
                format!("± {}", lasts(entry.error_seconds)),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no calendar: the chain's parameters or pace are not known\n".to_owned();
    }
    table::render(&["FROM", "UNTIL", "LASTS", "WINDOW", "FIRST HEIGHT", "EXACT TO"], &rows)
        + "confirmations and challenges come by surprise and are not in it\n"
}

fn host_table(hosts: &[GonkaHost]) -> String {
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|host| {
            let status = host.status.clone().unwrap_or_default();
            vec![
                host.metadata.namespace.clone().unwrap_or_default(),
                host.metadata.name.clone().unwrap_or_default(),
                status.window.to_string(),
                format!("{} bp", host.spec.disruption.max_weight_basis_points),
                format!("{:?}", host.spec.disruption.allow_in_inference),
            ]
        })
        .collect();
    table::render(&["NAMESPACE", "HOST", "WINDOW", "MAY BE OUT", "IN AMBER"], &rows)
}

/// What the gate answered whom, newest last.
pub(crate) fn history(answers: &GateHistory, clock: &Clock) -> String {
    if answers.lines.is_empty() {
        return "\nthe gate was asked nothing since this leader began\n".to_owned();
    }
    let rows: Vec<Vec<String>> = answers
        .lines
        .iter()
        .map(|line| {
            let since = Timestamp::from_millisecond(line.time_ms).map(Time);
            vec![
                since.map(|since| clock.day(&since)).unwrap_or_default(),
                line.who.clone(),
                line.action.clone(),
                line.verdict.clone(),
                line.reason.clone(),
                line.until_height.map(|height| height.to_string()).unwrap_or_default(),
            ]
        })
        .collect();
    format!(
        "\n{}",
        table::render(
            &["SINCE", "WHO ASKED", "FOR", "ANSWER", "WHY NOT", "UNTIL HEIGHT"],
            &rows
        )
    )
}

#[cfg(test)]
mod tests {
    use crds::sprint_view::GateView;
    use k8s_openapi::jiff::tz::TimeZone;

    use super::*;
    use crate::clock::at;

    fn clock() -> Clock {
        Clock {
            now: Timestamp::from_second(1_764_245_000).expect("a time"),
            zone: TimeZone::UTC,
        }
    }

    fn schedule() -> SprintSchedule {
        let mut from = 1_764_240_000;
        let windows = [
            (Window::Amber, 12_000),
            (Window::Green, 3_910),
            (Window::Amber, 600),
            (Window::Sprint, 186),
            (Window::Validation, 1_300),
            (Window::Green, 640),
            (Window::UpgradeFreeze, 5_000),
            (Window::Amber, 195_000),
        ];
        let calendar: Vec<CalendarEntry> = windows
            .into_iter()
            .map(|(window, seconds)| {
                let entry = CalendarEntry {
                    window,
                    from_height: from / 5,
                    until_height: (from + seconds) / 5 - 1,
                    from_time: at(from),
                    until_time: at(from + seconds),
                    error_seconds: (from - 1_764_239_000) / 200,
                    if_passed: (window == Window::UpgradeFreeze).then_some(112),
                };
                from += seconds;
                entry
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "SprintSchedule", "metadata": {"name": "mainnet"},
            "spec": {"chainID": "gonka-mainnet", "endpoints": [], "quorum": 2},
            "status": {"window": "Amber", "calendar": calendar, "upgradeVotes": [
                {"proposal": 112, "name": "v0.2.18", "height": 352_900_000, "votingEndTime": "2025-11-28T09:00:00Z"}]},
        }))
        .expect("a schedule")
    }

    #[test]
    fn says_what_is_allowed_until_when_and_what_comes() {
        insta::assert_snapshot!(render(&[schedule()], &[], 2, &clock()));
    }

    #[test]
    fn shows_what_the_gate_answered() {
        let answers = GateHistory {
            leader: true,
            lines: vec![GateView {
                time_ms: 1_764_245_000_000,
                who: "gonka/tiny".to_owned(),
                action: "Rollout".to_owned(),
                verdict: "Wait".to_owned(),
                reason: "ExamActive".to_owned(),
                until_height: Some(280),
            }],
        };
        let text = history(&answers, &clock());
        assert!(
            text.contains("Thu 27 Nov 12:03  gonka/tiny  Rollout  Wait    ExamActive           280"),
            "{text}"
        );
        assert!(history(&GateHistory::default(), &clock()).contains("asked nothing"));
    }

    #[test]
    fn says_why_nothing_is_known() {
        let mut schedule = schedule();
        schedule.status = serde_json::from_value(serde_json::json!({"window": "Unknown", "conditions": [{
            "type": "EndpointsAgree", "status": "False", "reason": "QuorumLost",
            "message": "1 of 3 endpoints answers", "lastTransitionTime": "2026-11-27T12:00:00Z",
        }]}))
        .expect("a status");
        let text = render(&[schedule], &[], 2, &clock());
        assert!(
            text.contains("EndpointsAgree QuorumLost: 1 of 3 endpoints answers"),
            "{text}"
        );
        assert!(text.contains("no calendar"), "{text}");
    }
}
