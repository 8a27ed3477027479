//! Who may not take a slot pod away, one after another, and what becomes of strangers meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::labels;
use e2e::fleet::{objects, until};
use e2e::harness::cluster::Target;
use e2e::harness::{How, Machine};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::world::World;

/// The words of every policy of ours.
const DENIED: &str = "ValidatingAdmissionPolicy 'gonka-fleet-";

/// Eviction, deletion of the pod, of what owns it, of what it lives by; also by force, in bulk, and as an administrator.
pub async fn deletions_are_denied(world: &World<'_>) -> Result<()> {
    let (pod, machine) = world.holders().await?.remove(&0).context("slot 0")?;
    world.eviction_is_refused(&pod).await?;
    let gonka = ["-n", "gonka", "delete"];
    let of_gonka = |rest: &[&'static str]| -> Vec<&'static str> { gonka.iter().chain(rest).copied().collect() };
    let denied: [Vec<&str>; 9] = [
        vec!["-n", "gonka", "delete", "pod", &pod],
        vec!["-n", "gonka", "delete", "pod", &pod, "--force", "--grace-period=0"],
        of_gonka(&["pods", "--all"]),
        of_gonka(&["service", "slot-tiny-0"]),
        of_gonka(&["modeldeployment", "tiny", "--wait=false"]),
        of_gonka(&["gonkahost", "ours", "--wait=false"]),
        vec!["delete", "node", &machine],
        vec!["delete", "namespace", "gonka", "--wait=false"],
        vec!["delete", "crd", "modeldeployments.fleet.gonka.ai", "--wait=false"],
    ];
    for args in &denied {
        world.refused(args, DENIED).await?;
    }
    let unmark = ["-n", "gonka", "label", "pod", &pod, "fleet.gonka.ai/protected-"];
    world.refused(&unmark, "only the Gonka operator takes").await?;
    world.say("eviction and nine ways to delete are denied");
    Ok(())
}

/// A namespace of somebody else: made, scaled, a pod deleted, taken away, and none of it hangs.
pub async fn strangers_are_not_disturbed(world: &World<'_>) -> Result<()> {
    let list = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bystander"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "bystander"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "bystander"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "web", "image": "gonka.local/node-agent:dev", "imagePullPolicy": "Never",
                "command": ["slot", "hold", "--run-dir", "/tmp", "--", "--help"],
            }]},
        }}}),
    ];
    objects::apply(world.cluster, &list).await?;
    for args in [
        vec!["-n", "bystander", "scale", "deployment", "web", "--replicas=1"],
        vec!["-n", "bystander", "delete", "pods", "--all", "--wait=false"],
        vec!["-n", "bystander", "delete", "service", "web"],
        vec!["delete", "namespace", "bystander", "--timeout=60s"],
    ] {
        world.cluster.kubectl(&args).await.with_context(|| args.join(" "))?;
    }
    world.say("a stranger's namespace came and went");
    Ok(())
}

/// A NoExecute taint, a pod of a high class, and one of a system class that may preempt: the slot stays, and the last is told of.
pub async fn taints_and_preemption_move_nothing(world: &World<'_>) -> Result<()> {
    let (pod, machine) = world.holders().await?.remove(&0).context("slot 0")?;
    let taint = "test.gonka.ai/broken=true:NoExecute";
    world.cluster.kubectl(&["taint", "node", &machine, taint]).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    world
        .cluster
        .kubectl(&["taint", "node", &machine, &format!("{taint}-")])
        .await?;
    let cpus = format!("{}m", room_without_slots(world, &machine).await?);
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "almost"}, "value": 999_999_999});
    let greedy = |name: &str, namespace: &str, class: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {"priorityClassName": class, "nodeSelector": {"kubernetes.io/hostname": machine},
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "greedy", "image": "gonka.local/node-agent:dev", "imagePullPolicy": "Never",
                    "command": ["slot", "--help"], "resources": {"requests": {"cpu": cpus}}}]}})
    };
    objects::apply(
        world.cluster,
        &[
            class,
            greedy("greedy", "default", "almost"),
            greedy("greedy", "kube-system", "system-cluster-critical"),
        ],
    )
    .await?;
    world.event("gonka", "DisruptionDenied", &pod).await?;
    for namespace in ["default", "kube-system"] {
        world
            .cluster
            .kubectl(&[
                "-n",
                namespace,
                "delete",
                "pod",
                "greedy",
                "--force",
                "--grace-period=0",
            ])
            .await?;
    }
    world.say("a taint and two preemptors moved nothing, and the second was told of");
    Ok(())
}

/// Thousandths of a CPU that a pod can have on the machine if, and only if, its slot pods go.
async fn room_without_slots(world: &World<'_>, machine: &str) -> Result<i64> {
    let millis = |quantity: &str| -> Result<i64> {
        let (number, unit) = quantity
            .strip_suffix('m')
            .map_or((quantity, 1_000), |number| (number, 1));
        let number: i64 = number.parse().with_context(|| format!("{quantity} of a CPU"))?;
        Ok(number * unit)
    };
    let node: Node = Api::all(world.client.clone()).get(machine).await?;
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let mut room = millis(&allocatable.and_then(|all| all.get("cpu")).context("no CPUs")?.0)?;
    let here = ListParams::default().fields(&format!("spec.nodeName={machine}"));
    for pod in Api::<Pod>::all(world.client.clone()).list(&here).await? {
        if pod
            .labels()
            .get(labels::ROLE)
            .is_some_and(|role| role == labels::ROLE_SLOT_POD)
        {
            continue;
        }
        for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
            let requests = container
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref());
            if let Some(cpu) = requests.and_then(|requests| requests.get("cpu")) {
                room -= millis(&cpu.0)?;
            }
        }
    }
    Ok(room - 50)
}

/// The Node object of a healthy machine is deleted by somebody who broke the glass: its slot pod runs on, the pod collector may
/// not declare it dead, and a restarted kubelet registers again with it.
pub async fn a_node_object_that_is_gone_takes_no_pod_with_it(world: &World<'_>) -> Result<()> {
    let (pod, machine) = world.holders().await?.remove(&1).context("slot 1")?;
    let number: u8 = machine.trim_start_matches('n').parse().context("a machine's number")?;
    let glass = "fleet.gonka.ai/break-glass=the machine is sold";
    world.cluster.kubectl(&["annotate", "node", &machine, glass]).await?;
    world
        .cluster
        .kubectl(&["delete", "node", &machine, "--wait=false"])
        .await?;
    // The collector waits 40 s before it believes that a Node is gone, and looks every 20.
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "gonka");
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(70) {
        let phase = pods.get(&pod).await?.status.and_then(|status| status.phase);
        ensure!(phase.as_deref() == Some("Running"), "the slot pod is {phase:?}");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let kubelet = Target::Component("kubelet".into());
    world
        .cluster
        .stop_component(&kubelet, Some(Machine::Node(number)), How::Kill)
        .await?;
    world
        .cluster
        .resume_component(&kubelet, Some(Machine::Node(number)))
        .await?;
    until("the machine to register again", Duration::from_secs(60), async || {
        let node = Api::<Node>::all(world.client.clone()).get_opt(&machine).await?;
        Ok(node.map(drop).ok_or_else(|| "it is not there".to_owned()))
    })
    .await?;
    world
        .cluster
        .kubectl(&["label", "node", &machine, "nvidia.com/gpu.present=true", "--overwrite"])
        .await?;
    world.say("a machine without its Node object kept its slot");
    Ok(())
}
