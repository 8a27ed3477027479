//! The objects of `examples/devnet.yaml` as values, so that a test changes what it is about and nothing else.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::repository;
use crate::harness::{Cluster, Machine};

/// The address of the network in the example.
const EXAMPLE_ADDRESS: &str = "10.101.0.3";

/// SprintSchedule, GonkaHost and ModelDeployment of the example, with the addresses of this cluster.
pub fn example(cluster: &Cluster) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(repository().join("examples/devnet.yaml"))
        .context("examples/devnet.yaml cannot be read")?;
    ensure!(
        text.contains(EXAMPLE_ADDRESS),
        "examples/devnet.yaml does not name the network's address {EXAMPLE_ADDRESS} any more"
    );
    let address = cluster.options()?.id.address(Machine::Network).to_string();
    let text = text.replace(EXAMPLE_ADDRESS, &address);
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).context("examples/devnet.yaml is not YAML"))
        .collect()
}

/// The object of a kind among several.
pub fn of_kind<'a>(objects: &'a mut [Value], kind: &str) -> Result<&'a mut Value> {
    objects
        .iter_mut()
        .find(|object| object["kind"] == kind)
        .with_context(|| format!("the example has no {kind}"))
}

/// Applies objects through kubectl.
pub async fn apply(cluster: &Cluster, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    cluster
        .kubectl_command()
        .args(["apply", "-f", "-"])
        .stdin_bytes(list.to_string())
        .text()
        .await
        .map(drop)
        .context("objects were refused")
}

/// Merges a patch into an object of namespace `gonka`.
pub async fn patch(cluster: &Cluster, object: &str, patch: &Value) -> Result<()> {
    let patch = format!("--patch={patch}");
    cluster
        .kubectl(&["-n", "gonka", "patch", object, "--type=merge", &patch])
        .await
        .map(drop)
        .with_context(|| format!("{object} was not patched"))
}
