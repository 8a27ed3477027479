//! What a person needs to see when a test on a cluster failed: logs of the operator and of slots, objects, the network.

use super::control::Control;
use crate::harness::Cluster;
use crate::harness::process::tail;

/// Bytes shown of each view.
const SHOWN: usize = 16_000;

/// Title and kubectl's arguments.
const VIEWS: [(&str, &[&str]); 8] = [
    ("pods", &["get", "pods", "-A", "-o", "wide"]),
    (
        "statuses",
        &[
            "get",
            "sprintschedules,gonkahosts,modeldeployments,sprintruns",
            "-A",
            "-o",
            "yaml",
        ],
    ),
    ("GpuNodes", &["get", "gpunodes", "-o", "wide"]),
    (
        "events",
        &["-n", "gonka", "get", "events", "--sort-by=.metadata.creationTimestamp"],
    ),
    (
        "slots",
        &[
            "-n",
            "gonka",
            "logs",
            "-l",
            "fleet.gonka.ai/role=slot-pod",
            "--all-containers",
            "--prefix",
            "--tail=15",
        ],
    ),
    (
        "agents",
        &[
            "-n",
            "gonka-system",
            "logs",
            "-l",
            "fleet.gonka.ai/role=agent",
            "--prefix",
            "--tail=10",
        ],
    ),
    (
        "operator before its last restart",
        &[
            "-n",
            "gonka-system",
            "logs",
            "-l",
            "fleet.gonka.ai/role=operator",
            "--prefix",
            "--tail=40",
            "--previous",
        ],
    ),
    (
        "operator",
        &[
            "-n",
            "gonka-system",
            "logs",
            "-l",
            "fleet.gonka.ai/role=operator",
            "--prefix",
            "--tail=80",
        ],
    ),
];

/// Prints all of it to stderr, the operator's last words last. Whatever cannot be had says so and hides nothing else.
pub async fn show(cluster: &Cluster, control: Option<&Control>) {
    for (title, arguments) in VIEWS {
        let text = cluster
            .kubectl(arguments)
            .await
            .unwrap_or_else(|error| format!("{error:#}"));
        eprintln!("\n--- {title}\n{}", tail(&text, SHOWN));
    }
    if let Some(control) = control {
        let text = control
            .state()
            .await
            .map_or_else(|error| format!("{error:#}"), |state| format!("{state:#}"));
        eprintln!("\n--- network\n{}", tail(&text, SHOWN));
    }
}
