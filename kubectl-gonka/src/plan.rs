//! `kubectl gonka plan` as text: what will happen to which machines and deployments, when, and why not now. Pure.

use crds::conditions::ConditionType;
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
    lines.extend(deployments.iter().filter_map(rollout));
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
        &["WHAT", "OF", "STATE", "RELEASED", "WHY NOT NOW, OR WHAT TO DO"],
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

fn rollout(deployment: &ModelDeployment) -> Option<Line> {
    let status = deployment.status.as_ref()?;
    let rolled_out = ConditionType::RolledOut.to_string();
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == rolled_out)?;
    (condition.status == "False").then(|| Line {
        rank: 2,
        what: format!("rollout of revision {}", status.revision.as_deref().unwrap_or("?")),
        subject: format!(
            "{}/{}",
            deployment.namespace().unwrap_or_default(),
            deployment.name_any()
        ),
        state: condition.reason.clone(),
        when: String::new(),
        why: condition.message.clone(),
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
        let deployment: ModelDeployment = serde_json::from_value(json!({
            "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "tiny", "namespace": "gonka"},
            "spec": {"hostRef": {"name": "ours"}, "model": {"id": "m"}, "engine": {"type": "Native", "native": {}},
                "slots": 2},
            "status": {"revision": "b0652910d8", "conditions": [{"type": "RolledOut", "status": "False",
                "reason": "WaitingForWindow", "message": "the window gate says ExamActive",
                "lastTransitionTime": "2025-11-27T11:00:00Z"}]},
        }))
        .expect("a deployment");
        let clock = Clock {
            now: Timestamp::from_second(1_764_245_000).expect("a time"),
            zone: TimeZone::UTC,
        };
        insta::assert_snapshot!(render(&machines, &[deployment], &clock));
        assert!(render(&[], &[], &clock).starts_with("nothing is planned"));
    }
}
