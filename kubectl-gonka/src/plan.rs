//! `kubectl gonka plan` as text: what will happen to which machines and deployments, when, and why not now. Pure.

use crds::conditions::{ConditionType, Reason};
use crds::gpu_node::MaintenanceStage;
use crds::{GpuNode, ModelDeployment};
use kube::ResourceExt as _;

use crate::clock::{Clock, lasts};
use crate::table;

/// One line per thing that is planned, the next first.
pub(crate) fn render(machines: &[GpuNode], deployments: &[ModelDeployment], clock: &Clock) -> String {
    let mut lines: Vec<Line> = machines
        .iter()
        .filter_map(|machine| maintenance(machine, clock))
        .collect();
    lines.extend(deployments.iter().filter_map(|deployment| rollout(deployment, clock)));
    lines.extend(deployments.iter().filter_map(fewer_slots));
    lines.extend(deployments.iter().flat_map(power));
    if lines.is_empty() {
        return "nothing is planned: every pod has its wanted revision, nobody wishes to work on a machine\n"
            .to_owned();
    }
    lines.sort_by(|one, other| (one.rank, &one.subject).cmp(&(other.rank, &other.subject)));
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|line| vec![line.what, line.subject, line.state, line.when, line.why])
        .collect();
    table::render(
        &["WHAT", "OF", "STATE", "EXPECTED", "WHY NOT NOW, OR WHAT TO DO"],
        &rows,
    )
}

struct Line {
    rank: i64,
    what: String,
    subject: String,
    state: String,
    when: String,
    why: String,
}

fn maintenance(machine: &GpuNode, clock: &Clock) -> Option<Line> {
    let answer = machine.status.as_ref()?.maintenance.as_ref()?;
    let wish = &machine.spec.maintenance;
    let expected = answer.expected_release_time.as_ref();
    let when = match (answer.state, expected) {
        (MaintenanceStage::Released, _) => format!("{} ago", lasts(-clock.seconds_until(&answer.since_time))),
        (_, Some(time)) if clock.seconds_until(time) > 0 => format!("about {}", clock.day(time)),
        (_, Some(_)) => "now".to_owned(),
        (MaintenanceStage::Returning, None) => String::new(),
        (_, None) => "unknown".to_owned(),
    };
    let reason = wish.reason.as_deref().unwrap_or("cordoned");
    Some(Line {
        rank: match answer.state {
            MaintenanceStage::Released => 0,
            MaintenanceStage::Returning => 1,
            MaintenanceStage::Draining => 2,
            MaintenanceStage::Waiting | MaintenanceStage::Unknown => {
                3 + i64::from(answer.queue_position.unwrap_or(i32::MAX))
            }
        },
        what: format!("maintenance, {} min: {reason}", wish.expected_minutes),
        subject: format!("machine {}", machine.name_any()),
        state: match answer.queue_position {
            Some(place) => format!("{} ({place})", answer.state),
            None => answer.state.to_string(),
        },
        when,
        why: answer.message.clone(),
    })
}

fn rollout(deployment: &ModelDeployment, clock: &Clock) -> Option<Line> {
    let status = deployment.status.as_ref()?;
    let rolled_out = ConditionType::RolledOut.to_string();
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == rolled_out)
        .filter(|condition| condition.status == "False")?;
    let told = status.rollout.as_ref();
    let revision = told.map(|told| &told.revision).or(status.revision.as_ref());
    let expected = told.and_then(|told| told.expected_time.as_ref());
    Some(Line {
        rank: 2,
        what: format!("rollout of revision {}", revision.map_or("?", String::as_str)),
        subject: format!(
            "{}/{}",
            deployment.namespace().unwrap_or_default(),
            deployment.name_any()
        ),
        state: told.map_or_else(
            || condition.reason.clone(),
            |told| format!("{} {} of {}", told.state, told.updated_slots, told.slots),
        ),
        when: match expected {
            Some(time) if clock.seconds_until(time) > 0 => format!("about {}", clock.day(time)),
            Some(_) => "now".to_owned(),
            None => String::new(),
        },
        why: format!("{}: {}", condition.reason, condition.message),
    })
}

/// Slots that are not wanted any more and wait for a window.
fn fewer_slots(deployment: &ModelDeployment) -> Option<Line> {
    let reconciling = ConditionType::Reconciling.to_string();
    let mut conditions = deployment.status.as_ref()?.conditions.iter();
    let waits = conditions
        .find(|condition| condition.type_ == reconciling)
        .filter(|condition| condition.status == "True" && condition.reason == Reason::WaitingForWindow.to_string())?;
    let leaves = deployment.metadata.deletion_timestamp.is_some();
    Some(Line {
        rank: 2,
        what: if leaves { "deletion" } else { "fewer slots" }.to_owned(),
        subject: format!(
            "{}/{}",
            deployment.namespace().unwrap_or_default(),
            deployment.name_any()
        ),
        state: waits.reason.clone(),
        when: "see kubectl gonka window".to_owned(),
        why: waits.message.clone(),
    })
}

/// Racks that may draw more than was planned.
fn power(deployment: &ModelDeployment) -> impl Iterator<Item = Line> {
    let name = format!(
        "{}/{}",
        deployment.namespace().unwrap_or_default(),
        deployment.name_any()
    );
    let domains = deployment.status.iter().flat_map(|status| &status.power);
    domains.map(move |domain| Line {
        rank: i64::MAX,
        what: "every GPU at its limit".to_owned(),
        subject: format!("{} of {name}", domain.domain),
        state: format!("{} of {} W", domain.watts, domain.limit_watts),
        when: "each exam".to_owned(),
        why: "above spec.placement.domainWatts: lower power limits or spread slots".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use k8s_openapi::jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;

    fn machine(name: &str, spec: &serde_json::Value, answer: &serde_json::Value) -> GpuNode {
        serde_json::from_value(json!({
            "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "GpuNode", "metadata": {"name": name},
            "spec": {"maintenance": spec}, "status": {"maintenance": answer},
        }))
        .expect("a machine")
    }

    fn deployment(name: &str, reason: &str, message: &str, status: &serde_json::Value) -> ModelDeployment {
        let mut status = status.clone();
        status["conditions"] = json!([{"type": "RolledOut", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": "2025-11-27T11:00:00Z"}]);
        serde_json::from_value(json!({
            "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "gonka"},
            "spec": {"hostRef": {"name": "ours"}, "model": {"id": "m"}, "engine": {"type": "Native", "native": {}},
                "slots": 2},
            "status": status,
        }))
        .expect("a deployment")
    }

    #[test]
    fn shows_racks_that_may_draw_too_much() {
        let clock = Clock {
            now: Timestamp::from_second(1_764_245_000).expect("a time"),
            zone: TimeZone::UTC,
        };
        let status = json!({"power": [{"domain": "r1", "machines": 2, "watts": 13_200, "limitWatts": 12_000}]});
        let mut hot = deployment("hot", "AsExpected", "", &status);
        hot.status.as_mut().expect("a status").conditions.clear();
        let text = render(&[], &[hot], &clock);
        assert!(text.contains("r1 of gonka/hot  13200 of 12000 W  each exam"), "{text}");
    }

    #[test]
    fn shows_slots_that_are_kept_until_nobody_expects_their_weight() {
        let clock = Clock {
            now: Timestamp::from_second(1_764_245_000).expect("a time"),
            zone: TimeZone::UTC,
        };
        let mut smaller = deployment("tiny", "AsExpected", "", &json!({}));
        let conditions = &mut smaller.status.as_mut().expect("a status").conditions;
        conditions[0].type_ = "Reconciling".to_owned();
        conditions[0].status = "True".to_owned();
        assert!(render(&[], &[smaller.clone()], &clock).contains("nothing is planned"));
        let waits = &mut smaller.status.as_mut().expect("a status").conditions[0];
        waits.reason = "WaitingForWindow".to_owned();
        waits.message = "slots 2 are not wanted any more and are kept".to_owned();
        let text = render(&[], &[smaller], &clock);
        assert!(
            text.contains("fewer slots  gonka/tiny") && text.contains("slots 2 are not wanted"),
            "{text}"
        );
    }

    #[test]
    fn shows_who_waits_for_what_and_until_when() {
        let times = json!({"requestedTime": "2025-11-27T11:00:00Z", "sinceTime": "2025-11-27T11:50:00Z"});
        let answer = |extra: serde_json::Value| {
            let mut all = times.clone();
            all.as_object_mut()
                .expect("a map")
                .extend(extra.as_object().cloned().expect("a map"));
            all
        };
        let fan = json!({"state": "Requested", "reason": "a fan", "expectedMinutes": 45});
        let machines = [
            machine(
                "n7",
                &fan,
                &answer(
                    json!({"state": "Waiting", "message": "queued: one failure domain at a time, and n3 is out",
                    "expectedReleaseTime": "2025-11-27T14:31:00Z", "queuePosition": 1}),
                ),
            ),
            machine(
                "n3",
                &json!({}),
                &answer(json!({"state": "Released", "message": "drain, upgrade or reboot it"})),
            ),
        ];
        let deployments = [
            deployment(
                "tiny",
                "WaitingForWindow",
                "the window gate says ExamActive",
                &json!({"revision": "b0652910d8"}),
            ),
            deployment(
                "large",
                "CanaryUnproven",
                "1 of 12 slots have revision 60e7471fab; the others wait until an exam has judged it",
                &json!({"revision": "60e7471fab", "rollout": {"revision": "60e7471fab", "state": "Canary",
                    "updatedSlots": 1, "slots": 12, "expectedTime": "2025-11-27T16:05:00Z"}}),
            ),
            deployment(
                "small",
                "RolledBack",
                "revision 0123456789: rehearsal of small-x failed: an engine ended; every pod has revision 74f414f5f2",
                &json!({"revision": "74f414f5f2", "rollout": {"revision": "0123456789", "state": "RolledBack",
                    "previousRevision": "74f414f5f2", "failedRevision": "0123456789", "updatedSlots": 2, "slots": 2}}),
            ),
        ];
        let clock = Clock {
            now: Timestamp::from_second(1_764_245_000).expect("a time"),
            zone: TimeZone::UTC,
        };
        insta::assert_snapshot!(render(&machines, &deployments, &clock));
        assert!(render(&[], &[], &clock).starts_with("nothing is planned"));
    }
}
