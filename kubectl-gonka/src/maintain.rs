//! `kubectl gonka maintain`: a wish is written into a GpuNode's spec, and its answer shown. The Window Gate decides, not this.

use std::time::Duration;

use anyhow::{Context as _, Result};
use crds::GpuNode;
use crds::gpu_node::Maintenance;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::clock::Clock;
use crate::plan;

/// How long the operator is given to answer; what it decides later is in the plan.
const PATIENCE: Duration = Duration::from_secs(15);

/// Writes the wish of a person.
pub(crate) async fn wish(client: &Client, machine: &str, wish: &Maintenance) -> Result<()> {
    let machines: Api<GpuNode> = Api::all(client.clone());
    // What a wish does not say is taken away, an earlier reason too.
    let patch = json!({"spec": {"maintenance": {
        "state": wish.state, "reason": wish.reason, "notAfterTime": wish.not_after_time,
        "expectedMinutes": wish.expected_minutes, "preferred": wish.preferred,
    }}});
    machines
        .patch(machine, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
        .with_context(|| {
            format!("the wish was not written into GpuNode {machine}; `kubectl get gpunodes` has their names")
        })
}

/// The machine once the operator has answered, or as it is when it does not.
pub(crate) async fn answered(client: &Client, machine: &str, wished: bool) -> Result<GpuNode> {
    let machines: Api<GpuNode> = Api::all(client.clone());
    let begin = tokio::time::Instant::now();
    loop {
        let node = machines
            .get(machine)
            .await
            .with_context(|| format!("GpuNode {machine} cannot be read"))?;
        let answer = node.status.as_ref().and_then(|status| status.maintenance.as_ref());
        if answer.is_some() == wished || begin.elapsed() > PATIENCE {
            return Ok(node);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The machine's line of the plan.
pub(crate) fn render(machine: &GpuNode, clock: &Clock) -> String {
    let answer = machine.status.as_ref().and_then(|status| status.maintenance.as_ref());
    let name = machine.name_any();
    let wished = machine.spec.maintenance.state == crds::gpu_node::MaintenanceState::Requested;
    match (answer, wished) {
        (None, false) => format!("{name} is protected as usual\n"),
        (None, true) => format!("{name}: the operator has not answered yet; see `kubectl gonka plan`\n"),
        (Some(_), _) => plan::render(std::slice::from_ref(machine), &[], clock),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use k8s_openapi::jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn says_whether_anybody_has_answered() {
        let clock = Clock {
            now: Timestamp::UNIX_EPOCH,
            zone: TimeZone::UTC,
        };
        let machine = |state: &str, answer: &serde_json::Value| -> GpuNode {
            serde_json::from_value(json!({
                "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "GpuNode", "metadata": {"name": "n7"},
                "spec": {"maintenance": {"state": state}}, "status": {"maintenance": answer},
            }))
            .expect("a machine")
        };
        let null = serde_json::Value::Null;
        assert_eq!(render(&machine("None", &null), &clock), "n7 is protected as usual\n");
        assert!(render(&machine("Requested", &null), &clock).contains("has not answered"));
        let answer = json!({"state": "Waiting", "message": "an exam runs", "requestedTime": "1970-01-01T00:00:00Z",
            "sinceTime": "1970-01-01T00:00:00Z", "queuePosition": 1});
        assert!(render(&machine("Requested", &answer), &clock).contains("Waiting (1)"));
    }
}
