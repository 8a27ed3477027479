//! Proves that the cluster's network does what the tests take for granted, before any test: pod to service to pod
//! across nodes, names, the paths between machines and pods, and the switch of a slot-style Service (no selector, one
//! hand-written EndpointSlice) as every machine sees it.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Cluster, Machine,
    process::{Cmd, until},
};

const READY_LIMIT: Duration = Duration::from_secs(90);
const PORT: u16 = 8080;

/// What was seen, or why it failed.
pub type Outcome = Result<String, String>;

/// One thing that was tried, and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub what: String,
    pub outcome: Outcome,
    pub took: Duration,
}

/// A place from which connections are tried.
#[derive(Debug, Clone)]
enum From {
    Pod {
        name: String,
        node: String,
        address: String,
    },
    Machine(Machine),
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod { node, .. } => write!(f, "pod on {node}"),
            Self::Machine(machine) => write!(f, "machine {machine}"),
        }
    }
}

/// Runs every check, also after a failed one.
pub async fn examine(cluster: &Cluster) -> Result<Vec<Check>> {
    cluster
        .with_temp_namespace("doctor", async |client, namespace| {
            Doctor::new(cluster, client, namespace).run().await
        })
        .await
}

/// The checks as a table for people, worst news last.
pub fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let (mark, said) = match &check.outcome {
            Ok(said) => ("ok  ", said),
            Err(why) => ("FAIL", why),
        };
        // Writing to a String cannot fail.
        writeln!(
            text,
            "{mark} {:<58} {:>6} ms  {said}",
            check.what,
            check.took.as_millis()
        )
        .ok();
    }
    let failed = checks.iter().filter(|c| c.outcome.is_err()).count();
    writeln!(text, "{} checks, {failed} failed", checks.len()).ok();
    text
}

struct Doctor<'a> {
    cluster: &'a Cluster,
    client: Client,
    namespace: String,
    checks: Vec<Check>,
}

impl<'a> Doctor<'a> {
    fn new(cluster: &'a Cluster, client: Client, namespace: String) -> Self {
        Self {
            cluster,
            client,
            namespace,
            checks: Vec::new(),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn run(mut self) -> Result<Vec<Check>> {
        let pods = self.pods().await?;
        let everywhere: Vec<From> = pods
            .iter()
            .cloned()
            .chain([Machine::ControlPlane, Machine::Network].map(From::Machine))
            .collect();
        let service = self.service("probe", json!({"app": "probe"})).await?;
        let names: Vec<&str> = pods.iter().map(name_of).collect();
        for from in &everywhere {
            for to in &names {
                let url = format!("http://{service}:{PORT}/");
                self.check_until(format!("{from} -> ClusterIP -> {to}"), from, &url, to)
                    .await;
            }
        }
        if self.cluster.options()?.dns {
            for from in &pods {
                let url = format!("http://probe.{}.svc.cluster.local:{PORT}/", self.namespace);
                self.check_until(format!("{from} -> name -> {}", names[0]), from, &url, names[0])
                    .await;
            }
        }
        self.direct_paths(&pods).await?;
        self.slot_switch(&pods, &everywhere).await?;
        Ok(self.checks)
    }

    /// One probe on every node, running.
    async fn pods(&mut self) -> Result<Vec<From>> {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "probe"},
            "spec": {"selector": {"matchLabels": {"app": "probe"}}, "template": {
                "metadata": {"labels": {"app": "probe"}},
                "spec": {"terminationGracePeriodSeconds": 1, "tolerations": [{"operator": "Exists"}], "containers": [{
                    "name": "probe", "image": "gonka.local/probe:dev", "imagePullPolicy": "Never",
                    "args": ["serve", format!(":{PORT}")],
                    "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
                }]},
            }},
        }))
        .context("the probe's DaemonSet does not parse")?;
        let started = Instant::now();
        self.api::<DaemonSet>()
            .create(&PostParams::default(), &set)
            .await
            .context("cannot create the probe's DaemonSet")?;
        let (api, nodes) = (self.api::<DaemonSet>(), i32::from(self.cluster.options()?.nodes));
        let ready = until(READY_LIMIT, async || {
            api.get("probe")
                .await
                .is_ok_and(|d| d.status.is_some_and(|s| s.number_ready == nodes))
        });
        ensure!(
            ready.await,
            "the probe does not run on all {nodes} nodes after {READY_LIMIT:?}; see `kubectl describe pods -A`"
        );
        let said = Ok(format!("{nodes} pods"));
        self.checks.push(Check {
            what: "a pod runs on every node".into(),
            outcome: said,
            took: started.elapsed(),
        });
        let mut pods: Vec<From> = self
            .api::<Pod>()
            .list(&ListParams::default().labels("app=probe"))
            .await?
            .into_iter()
            .filter_map(place)
            .collect();
        pods.sort_by_key(ToString::to_string);
        Ok(pods)
    }

    /// A Service and its address.
    async fn service(&self, name: &str, selector: serde_json::Value) -> Result<String> {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"selector": selector, "ports": [{"name": "http", "port": PORT}]}}))
        .context("a Service does not parse")?;
        let made = self
            .api::<Service>()
            .create(&PostParams::default(), &service)
            .await
            .context("cannot create a Service")?;
        made.spec
            .and_then(|s| s.cluster_ip)
            .context("the API server gave a Service no address")
    }

    /// A command line that runs the probe in a place.
    fn probe(&self, from: &From, args: &[&str]) -> Result<Cmd> {
        match from {
            From::Machine(machine) => {
                let probe = Cmd::new(self.cluster.programs().join("probe")).args(args);
                self.cluster.inside(*machine, probe)
            }
            From::Pod { name, .. } => {
                let kubectl =
                    self.cluster
                        .kubectl_command()
                        .args(["exec", "-n", &self.namespace, name, "--", "/probe"]);
                Ok(kubectl.args(args))
            }
        }
    }

    /// Asks until the wanted answer comes; what was seen, and how long after `started`.
    async fn watch(&self, from: &From, url: &str, wanted: &str, started: Instant) -> (Outcome, Duration) {
        let outcome = match self.probe(from, &["until", url, wanted]) {
            Ok(probe) => probe.text().await,
            Err(error) => Err(error),
        };
        let outcome = outcome.map(|said| {
            let mut numbers = said.split_whitespace();
            let (ms, failures) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
            format!("after {ms} ms, {failures} failed requests")
        });
        let outcome = outcome.map_err(|error| format!("{error:#}").replace('\n', " "));
        (outcome, started.elapsed())
    }

    async fn check_until(&mut self, what: String, from: &From, url: &str, wanted: &str) {
        let (outcome, took) = self.watch(from, url, wanted, Instant::now()).await;
        self.checks.push(Check { what, outcome, took });
    }

    /// Pod addresses from the host and the machines, and a machine's address from a pod.
    async fn direct_paths(&mut self, pods: &[From]) -> Result<()> {
        let id = self.cluster.options()?.id;
        for pod in pods {
            let From::Pod { name, address, node } = pod else {
                continue;
            };
            let url = format!("http://{address}:{PORT}/");
            for machine in [Machine::Network, Machine::ControlPlane] {
                self.check_until(
                    format!("machine {machine} -> address of pod on {node}"),
                    &From::Machine(machine),
                    &url,
                    name,
                )
                .await;
            }
            let started = Instant::now();
            let answer = Cmd::new(self.cluster.programs().join("probe"))
                .args(["until", &url, name])
                .text()
                .await;
            let outcome = answer.map(|_| "answers".into()).map_err(|e| format!("{e:#}"));
            let what = format!("host -> address of pod on {node}");
            self.checks.push(Check {
                what,
                outcome,
                took: started.elapsed(),
            });
        }
        let listen = format!("{}:{PORT}", id.address(Machine::Network));
        let server = Cmd::new(self.cluster.programs().join("probe"))
            .args(["serve", &listen])
            .env("POD", "the-network");
        let mut server = self.cluster.spawn_in(Machine::Network, "doctor-probe", server)?;
        for pod in pods {
            self.check_until(
                format!("{pod} -> machine net"),
                pod,
                &format!("http://{listen}/"),
                "the-network",
            )
            .await;
        }
        server
            .kill()
            .await
            .context("cannot end the probe in the network's namespace")
    }

    /// The endpoint of a Service without selector moves from the first to the last node's pod.
    async fn slot_switch(&mut self, pods: &[From], everywhere: &[From]) -> Result<()> {
        let (Some(first), Some(last)) = (pods.first(), pods.last()) else {
            return Ok(());
        };
        let service = self.service("slot-doctor", serde_json::Value::Null).await?;
        let url = format!("http://{service}:{PORT}/");
        for (target, verb) in [(first, "is given"), (last, "moves")] {
            let From::Pod { address, .. } = target else { continue };
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "slot-doctor", "labels": {"kubernetes.io/service-name": "slot-doctor"}},
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
                "ports": [{"name": "http", "port": PORT}],
            });
            // Everyone asks all the time while the slice is written, so that each sees the moment for itself.
            let started = Instant::now();
            let watch = everywhere
                .iter()
                .map(|from| self.watch(from, &url, name_of(target), started));
            let apply = PatchParams::apply("doctor").force();
            let (api, slice) = (self.api::<EndpointSlice>(), Patch::Apply(&slice));
            let write = async {
                let written = api.patch("slot-doctor", &apply, &slice).await;
                written
                    .map(|_| started.elapsed())
                    .context("cannot write the EndpointSlice")
            };
            let (seen, written) = tokio::join!(futures::future::join_all(watch), write);
            let what = format!("slot Service {verb} to {target}");
            self.checks.push(Check {
                what: what.clone(),
                outcome: Ok("written".into()),
                took: written?,
            });
            for (from, (outcome, took)) in everywhere.iter().zip(seen) {
                self.checks.push(Check {
                    what: format!("{what}: seen from {from}"),
                    outcome,
                    took,
                });
            }
        }
        Ok(())
    }
}

fn place(pod: Pod) -> Option<From> {
    let name = pod.name_any();
    Some(From::Pod {
        name,
        node: pod.spec?.node_name?,
        address: pod.status?.pod_ip?,
    })
}

fn name_of(place: &From) -> &str {
    match place {
        From::Pod { name, .. } => name,
        From::Machine(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_failures_and_shows_why() {
        let check = |outcome| Check {
            what: "a -> b".into(),
            outcome,
            took: Duration::from_millis(5),
        };
        let text = table(&[check(Ok("fine".into())), check(Err("refused".into()))]);
        assert!(
            text.contains("FAIL") && text.contains("refused") && text.ends_with("2 checks, 1 failed\n"),
            "{text}"
        );
    }
}
