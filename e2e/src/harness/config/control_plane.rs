//! Command lines of etcd, kube-apiserver, kube-controller-manager and kube-scheduler. Pure.

use std::path::Path;

use crate::harness::{
    machine::{Component, Condition},
    paths::{Binaries, RunDir},
    pki::pair,
    plan::{API_PORT, ClusterId, Machine},
};

const ETCD_CLIENT: &str = "127.0.0.1:2379";
const ETCD_PEER: &str = "127.0.0.1:2380";

/// What a caller may choose about the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timing {
    /// Seconds until pods leave a node that is not ready or unreachable.
    pub evict_seconds: u32,
    /// Seconds of silence after which a node counts as not ready.
    pub grace_seconds: u32,
}

/// The four programs, in the order in which they can start.
pub fn components(run: &RunDir, bin: &Binaries, id: ClusterId, timing: Timing) -> Vec<Component> {
    let tcp = |address: &str| Condition::Tcp(address.into());
    vec![
        Component {
            ready: Some(tcp(ETCD_CLIENT)),
            ..Component::new("etcd", bin.program("etcd"), etcd(run))
        },
        Component {
            after: vec![tcp(ETCD_CLIENT)],
            ready: Some(tcp(&id.api_server())),
            ..Component::new(
                "kube-apiserver",
                bin.program("kube-apiserver"),
                api_server(&run.pki(), id, timing),
            )
        },
        Component {
            after: vec![Condition::File(run.api_ready())],
            ..Component::new(
                "kube-controller-manager",
                bin.program("kube-controller-manager"),
                controller_manager(run, timing),
            )
        },
        Component {
            after: vec![Condition::File(run.api_ready())],
            ..Component::new("kube-scheduler", bin.program("kube-scheduler"), scheduler(run))
        },
    ]
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn path(name: &str, value: &Path) -> String {
    flag(name, value.display())
}

fn etcd(run: &RunDir) -> Vec<String> {
    vec![
        flag("name", "e2e"),
        path("data-dir", &run.etcd()),
        // The data is as short-lived as the cluster.
        "--unsafe-no-fsync".into(),
        flag("listen-client-urls", format!("http://{ETCD_CLIENT}")),
        flag("advertise-client-urls", format!("http://{ETCD_CLIENT}")),
        flag("listen-peer-urls", format!("http://{ETCD_PEER}")),
        flag("initial-advertise-peer-urls", format!("http://{ETCD_PEER}")),
        flag("initial-cluster", format!("e2e=http://{ETCD_PEER}")),
        flag("log-level", "warn"),
    ]
}

fn api_server(pki: &Path, id: ClusterId, timing: Timing) -> Vec<String> {
    let (server, server_key) = pair(pki, "kube-apiserver");
    let (kubelet, kubelet_key) = pair(pki, "kubelet-client");
    let (front, front_key) = pair(pki, "front-proxy");
    let (ca, _) = pair(pki, "ca");
    let address = id.address(Machine::ControlPlane);
    vec![
        flag("etcd-servers", format!("http://{ETCD_CLIENT}")),
        flag("bind-address", address),
        flag("advertise-address", address),
        flag("secure-port", API_PORT),
        flag("service-cluster-ip-range", id.services()),
        path("client-ca-file", &ca),
        path("tls-cert-file", &server),
        path("tls-private-key-file", &server_key),
        path("kubelet-client-certificate", &kubelet),
        path("kubelet-client-key", &kubelet_key),
        path("kubelet-certificate-authority", &ca),
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        path("service-account-signing-key-file", &pki.join("sa.key")),
        path("service-account-key-file", &pki.join("sa.pub")),
        path("requestheader-client-ca-file", &ca),
        flag("requestheader-allowed-names", "front-proxy"),
        flag("requestheader-username-headers", "X-Remote-User"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        path("proxy-client-cert-file", &front),
        path("proxy-client-key-file", &front_key),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        "--allow-privileged".into(),
        flag("profiling", false),
        flag("default-not-ready-toleration-seconds", timing.evict_seconds),
        flag("default-unreachable-toleration-seconds", timing.evict_seconds),
    ]
}

fn controller_manager(run: &RunDir, timing: Timing) -> Vec<String> {
    let (ca, ca_key) = pair(&run.pki(), "ca");
    let mut flags = client_flags(run, "kube-controller-manager");
    flags.extend([
        "--use-service-account-credentials".into(),
        path("root-ca-file", &ca),
        path("service-account-private-key-file", &run.pki().join("sa.key")),
        path("cluster-signing-cert-file", &ca),
        path("cluster-signing-key-file", &ca_key),
        flag("node-monitor-grace-period", format!("{}s", timing.grace_seconds)),
    ]);
    flags
}

fn scheduler(run: &RunDir) -> Vec<String> {
    client_flags(run, "kube-scheduler")
}

/// Both clients run alone, so they elect nobody; and at the default request rate a large DaemonSet takes minutes.
fn client_flags(run: &RunDir, name: &str) -> Vec<String> {
    let kubeconfig = run.kubeconfig(name);
    vec![
        path("kubeconfig", &kubeconfig),
        path("authentication-kubeconfig", &kubeconfig),
        path("authorization-kubeconfig", &kubeconfig),
        flag("bind-address", "127.0.0.1"),
        flag("leader-elect", false),
        flag("profiling", false),
        flag("kube-api-qps", 300),
        flag("kube-api-burst", 600),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_and_grace_reach_the_programs_that_act_on_them() {
        let id = ClusterId::try_from(8).unwrap();
        let run = RunDir::new(Path::new("/s"), id).unwrap();
        let timing = Timing {
            evict_seconds: 7,
            grace_seconds: 33,
        };
        let server = api_server(&run.pki(), id, timing);
        assert!(server.contains(&"--default-unreachable-toleration-seconds=7".into()));
        assert!(server.contains(&"--default-not-ready-toleration-seconds=7".into()));
        assert!(server.contains(&"--bind-address=10.108.0.2".into()));
        assert!(controller_manager(&run, timing).contains(&"--node-monitor-grace-period=33s".into()));
    }
}
