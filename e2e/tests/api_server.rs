//! The API contract on a real API server: what it takes, what it refuses, and what the admission policies protect.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::args::Environment;
use e2e::fleet::{repository, until};
use e2e::harness::{Cluster, ClusterId, Options};
use serde_json::{Value, json};

/// One node, no DNS: nothing here runs a pod that matters.
fn options(environment: &Environment) -> Result<Options> {
    Ok(Options {
        nodes: 1,
        dns: false,
        ..Options::new(ClusterId::try_from(environment.test_cluster)?)
    })
}

async fn create(cluster: &Cluster, object: &Value) -> Result<String> {
    cluster
        .kubectl_command()
        .args(["create", "-f", "-"])
        .stdin_bytes(object.to_string())
        .text()
        .await
}

/// The refusal's text; an error when it was not refused.
async fn refusal(attempt: impl Future<Output = Result<String>>) -> Result<String> {
    match attempt.await {
        Ok(taken) => anyhow::bail!("was taken: {taken}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn path(relative: &str) -> String {
    repository().join(relative).display().to_string()
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn charts_install_and_objects_are_judged_as_documented() -> Result<()> {
    let environment = Environment::read();
    Cluster::with_cluster(&environment, options(&environment)?, async |cluster| {
        charts_are_taken(cluster).await?;
        examples_are_taken(cluster).await?;
        bad_specs_are_refused(cluster).await?;
        sealed_records_do_not_change(cluster).await?;
        protected_objects_are_not_deleted(cluster).await?;
        slots_belong_to_the_operator(cluster).await
    })
    .await
}

async fn charts_are_taken(cluster: &Cluster) -> Result<()> {
    cluster
        .helm(&["install", "gonka-fleet-crds", &path("charts/gonka-fleet-crds")])
        .await?;
    let install = [
        "install",
        "gonka-fleet",
        &path("charts/gonka-fleet"),
        "--namespace=gonka-system",
        "--create-namespace",
    ];
    let dry: Vec<&str> = install.into_iter().chain(["--dry-run=server"]).collect();
    cluster.helm(&dry).await?;
    cluster.helm(&install).await?;
    // Upgrading the CRDs is taken too, with the policies in force.
    cluster
        .helm(&["upgrade", "gonka-fleet-crds", &path("charts/gonka-fleet-crds")])
        .await?;
    Ok(())
}

async fn examples_are_taken(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["apply", "-f", &path("examples/devnet.yaml")]).await?;
    let listed = cluster.kubectl(&["get", "gonka", "-A", "-o", "name"]).await?;
    for kind in ["sprintschedule", "gonkahost", "modeldeployment"] {
        ensure!(
            listed.contains(kind),
            "the category gonka does not list {kind}: {listed}"
        );
    }
    let explained = cluster
        .kubectl(&["explain", "sprintschedule.spec.margins.drainSeconds"])
        .await?;
    ensure!(explained.contains("default 120"), "{explained}");
    Ok(())
}

async fn bad_specs_are_refused(cluster: &Cluster) -> Result<()> {
    let cases = [
        (
            "sprint/devnet",
            None,
            json!({"spec": {"quorum": 9}}),
            "quorum cannot be larger",
        ),
        (
            "sprint/devnet",
            None,
            json!({"spec": {"chainID": "other"}}),
            "chainID is immutable",
        ),
        (
            "gh/ours",
            Some("gonka"),
            json!({"spec": {"scheduleName": "other"}}),
            "scheduleName is immutable",
        ),
        (
            "gh/ours",
            Some("gonka"),
            json!({"spec": {"managementPolicy": "Perhaps"}}),
            "Unsupported value",
        ),
        (
            "gmd/tiny",
            Some("gonka"),
            json!({"spec": {"slots": 513}}),
            "should be less than or equal to 512",
        ),
        (
            "gmd/tiny",
            Some("gonka"),
            json!({"spec": {"enrollment": "Reserve"}}),
            "a Reserve deployment holds no slots",
        ),
        (
            "gmd/tiny",
            Some("gonka"),
            json!({"spec": {"engine": {"type": "VLLM"}}}),
            "vllm must be set if and only if",
        ),
    ];
    for (object, namespace, patch, message) in cases {
        let mut arguments = vec![
            "patch".to_owned(),
            object.to_owned(),
            "--type=merge".into(),
            format!("--patch={patch}"),
        ];
        arguments.extend(namespace.map(|namespace| format!("--namespace={namespace}")));
        let said = refusal(cluster.kubectl(&arguments)).await?;
        ensure!(said.contains(message), "{object} {patch}: {said}");
    }
    Ok(())
}

async fn sealed_records_do_not_change(cluster: &Cluster) -> Result<()> {
    let run = json!({
        "apiVersion": "fleet.gonka.ai/v1alpha1", "kind": "SprintRun", "metadata": {"name": "ours-s-61", "namespace": "gonka"},
        "spec": {"hostRef": {"name": "ours", "uid": "u"}, "kind": "Sprint", "pocStartHeight": 61, "triggerHeight": 61, "seed": "C0DE", "epoch": 1},
    });
    create(cluster, &run).await?;
    let status = |status: Value| {
        let patch = format!("--patch={}", json!({ "status": status }));
        async move {
            cluster
                .kubectl(&[
                    "-n",
                    "gonka",
                    "patch",
                    "srun",
                    "ours-s-61",
                    "--subresource=status",
                    "--type=merge",
                    &patch,
                ])
                .await
        }
    };
    status(json!({"cause": "SlowGpu"})).await?;
    status(json!({"cause": "None", "sealedTime": "2026-11-22T12:00:00Z"})).await?;
    let said = refusal(status(json!({"cause": "SlowGpu"}))).await?;
    ensure!(said.contains("a sealed SprintRun does not change"), "{said}");
    let said = refusal(cluster.kubectl(&[
        "-n",
        "gonka",
        "patch",
        "srun",
        "ours-s-61",
        "--type=merge",
        r#"--patch={"spec":{"epoch":2}}"#,
    ]))
    .await?;
    ensure!(said.contains("immutable"), "{said}");
    Ok(())
}

async fn protected_objects_are_not_deleted(cluster: &Cluster) -> Result<()> {
    // A policy takes effect some seconds after it was made.
    until("the protection policy", Duration::from_secs(30), async || {
        let said = cluster
            .kubectl(&["delete", "namespace", "gonka", "--dry-run=server"])
            .await;
        Ok(match said {
            Err(error) if format!("{error:#}").contains("carries a live slot") => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    let said = refusal(cluster.kubectl(&["delete", "crd", "gpunodes.fleet.gonka.ai", "--wait=false"])).await?;
    ensure!(said.contains("carries a live slot"), "{said}");
    let said =
        refusal(cluster.kubectl(&["label", "crd", "gpunodes.fleet.gonka.ai", "fleet.gonka.ai/protected-"])).await?;
    ensure!(said.contains("only the Gonka operator"), "{said}");
    // Whoever may break the glass writes down why, and then may.
    cluster
        .kubectl(&[
            "annotate",
            "crd",
            "gpunodes.fleet.gonka.ai",
            "fleet.gonka.ai/break-glass=test of the way out",
        ])
        .await?;
    cluster
        .kubectl(&["delete", "crd", "gpunodes.fleet.gonka.ai", "--dry-run=server"])
        .await?;
    Ok(())
}

async fn slots_belong_to_the_operator(cluster: &Cluster) -> Result<()> {
    let service = |namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"ports": [{"port": 80}]}});
    let said = refusal(create(cluster, &service("gonka", "slot-tiny-0"))).await?;
    ensure!(said.contains("only the Gonka operator"), "{said}");
    // Other names, and other namespaces, are nobody's business here.
    create(cluster, &service("gonka", "web")).await?;
    create(cluster, &service("default", "slot-machine")).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [], "ports": [],
        "metadata": {"name": "x", "namespace": "gonka", "labels": {"kubernetes.io/service-name": "slot-tiny-0"}},
    });
    let said = refusal(create(cluster, &slice)).await?;
    ensure!(said.contains("writes the endpoints of slot Services"), "{said}");
    let endpoints =
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "slot-tiny-0", "namespace": "gonka"}});
    let said = refusal(create(cluster, &endpoints)).await?;
    ensure!(said.contains("would be mirrored into it"), "{said}");
    Ok(())
}
