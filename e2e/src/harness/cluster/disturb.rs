//! Failures as verbs: power cuts, pulled cables, and components that stop while everything around them goes on.

use std::{fmt, fs, str::FromStr, time::Duration};

use anyhow::{Context, Error, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Cluster, up::is_ready};
use crate::harness::{
    machine::{Desired, How, Spec},
    network::{self, Cable},
    plan::Machine,
    process::until,
};

const NODE_LIMIT: Duration = Duration::from_secs(120);

/// What can be stopped and resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A program that a machine keeps.
    Component(String),
    /// The processes of cluster DNS, wherever they run. Can only be frozen: killed, their kubelet restarts them.
    CoreDns,
    /// kube-proxy and the translation it left in the kernel: service addresses lead nowhere.
    ServiceRouting,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "coredns" => Self::CoreDns,
            "service-routing" => Self::ServiceRouting,
            "apiserver" => Self::Component("kube-apiserver".into()),
            "controller-manager" => Self::Component("kube-controller-manager".into()),
            "scheduler" => Self::Component("kube-scheduler".into()),
            "kube-apiserver"
            | "kube-controller-manager"
            | "kube-scheduler"
            | "kube-proxy"
            | "kubelet"
            | "containerd"
            | "etcd" => Self::Component(text.into()),
            _ => bail!(
                "{text:?} is none of apiserver, controller-manager, scheduler, etcd, kube-proxy, kubelet, containerd, coredns, service-routing"
            ),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component(name) => name,
            Self::CoreDns => "coredns",
            Self::ServiceRouting => "service-routing",
        })
    }
}

impl Cluster {
    fn spec(&self, machine: Machine) -> Result<Spec> {
        Spec::load(self.own()?.1, machine)
    }

    /// Power cut: every process of the node ends at once; its disk stays.
    pub async fn cut_node(&self, node: u8) -> Result<()> {
        self.spec(Machine::Node(node))?.cut().await
    }

    /// Power back: the node boots. Returns when its process 1 runs; see [`Cluster::wait_node`].
    pub async fn start_node(&self, node: u8) -> Result<()> {
        let spec = self.spec(Machine::Node(node))?;
        spec.start(&super::up::harness_program()?).await
    }

    /// Pulls a node's network cable: everything on it runs on, nothing comes or goes.
    pub async fn isolate_node(&self, node: u8) -> Result<()> {
        network::set_cable(self.options()?.id, Machine::Node(node), Cable::Out).await
    }

    /// Plugs the cable in again.
    pub async fn rejoin_node(&self, node: u8) -> Result<()> {
        network::set_cable(self.options()?.id, Machine::Node(node), Cable::In).await
    }

    /// Waits until the API server holds a node for ready, or for not ready.
    pub async fn wait_node(&self, node: u8, ready: bool) -> Result<()> {
        let api: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(self.client().await?);
        let name = Machine::Node(node).to_string();
        let reached = until(NODE_LIMIT, async || {
            api.get(&name).await.is_ok_and(|n| is_ready(&n) == ready)
        });
        ensure!(
            reached.await,
            "node {name} did not become {} within {NODE_LIMIT:?}",
            if ready { "Ready" } else { "NotReady" }
        );
        Ok(())
    }

    /// Stops something on one machine, or with none named wherever it runs.
    pub async fn stop_component(&self, target: &Target, machine: Option<Machine>, how: How) -> Result<()> {
        let desired = if how == How::Kill {
            Desired::Killed
        } else {
            Desired::Frozen
        };
        match target {
            Target::Component(name) => self.set_everywhere(name, machine, desired).await,
            Target::ServiceRouting => {
                self.set_everywhere("kube-proxy", machine, Desired::Killed).await?;
                for machine in self.machines_with("kube-proxy", machine)? {
                    network::flush_service_rules(self.options()?.id, machine).await?;
                }
                Ok(())
            }
            Target::CoreDns => {
                ensure!(
                    how == How::Freeze,
                    "killed, cluster DNS is started again by its kubelet; freeze it instead"
                );
                self.signal_dns(machine, Signal::SIGSTOP)
            }
        }
    }

    /// Undoes [`Cluster::stop_component`] and waits until it answers again.
    pub async fn resume_component(&self, target: &Target, machine: Option<Machine>) -> Result<()> {
        let name = match target {
            Target::Component(name) => name,
            Target::ServiceRouting => "kube-proxy",
            Target::CoreDns => return self.signal_dns(machine, Signal::SIGCONT),
        };
        self.set_everywhere(name, machine, Desired::Running).await?;
        for machine in self.machines_with(name, machine)? {
            self.spec(machine)?.wait_ready(name, NODE_LIMIT).await?;
        }
        if matches!(name, "kube-apiserver" | "etcd") {
            let client = self.client().await?;
            let answers = until(NODE_LIMIT, async || super::api_answers(&client).await);
            ensure!(
                answers.await,
                "{name} runs, but the API server is not ready after {NODE_LIMIT:?}"
            );
        }
        Ok(())
    }

    async fn set_everywhere(&self, name: &str, machine: Option<Machine>, desired: Desired) -> Result<()> {
        let specs = self
            .machines_with(name, machine)?
            .into_iter()
            .map(|m| self.spec(m))
            .collect::<Result<Vec<_>>>()?;
        futures::future::try_join_all(specs.iter().map(|s| s.set(name, desired)))
            .await
            .map(drop)
    }

    /// The machine named, or every running one that keeps the component.
    fn machines_with(&self, name: &str, machine: Option<Machine>) -> Result<Vec<Machine>> {
        if let Some(machine) = machine {
            self.spec(machine)?.component(name)?;
            return Ok(vec![machine]);
        }
        let mut found = Vec::new();
        for machine in Machine::all(self.options()?.nodes) {
            let spec = self.spec(machine)?;
            if spec.process().is_some() && spec.component(name).is_ok() {
                found.push(machine);
            }
        }
        ensure!(!found.is_empty(), "no running machine keeps {name}");
        Ok(found)
    }

    /// Signals every CoreDNS process in the control groups of this cluster's nodes.
    fn signal_dns(&self, machine: Option<Machine>, signal: Signal) -> Result<()> {
        let prefix = self.options()?.id.prefix();
        let group = machine.map_or_else(|| format!("/{prefix}/"), |m| format!("/{prefix}/{m}/"));
        let pids = processes_of(&group, "/coredns").context("cannot look for the processes of cluster DNS")?;
        ensure!(
            !pids.is_empty(),
            "no process of cluster DNS runs on {}",
            machine.map_or_else(|| "any node".into(), |m| m.to_string())
        );
        for pid in pids {
            kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal cluster DNS (pid {pid})"))?;
        }
        Ok(())
    }
}

/// Processes in a control group whose command line begins with `program`.
fn processes_of(group: &str, program: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let first = read("cmdline").split('\0').next().unwrap_or_default().to_owned();
        if first == program && read("cgroup").lines().any(|l| l.contains(group)) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_known_by_their_short_and_their_full_names() {
        assert_eq!(
            "apiserver".parse::<Target>().unwrap(),
            "kube-apiserver".parse::<Target>().unwrap()
        );
        assert_eq!("service-routing".parse::<Target>().unwrap(), Target::ServiceRouting);
        assert!("pause".parse::<Target>().is_err());
    }
}
