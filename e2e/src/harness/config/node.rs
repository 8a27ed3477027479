//! Configuration of containerd, kubelet, kube-proxy and the pod network of one machine. Pure.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    machine::{Component, Condition},
    paths::{Binaries, RunDir},
    pki::pair,
    plan::{ClusterId, Machine},
};

const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// The image of every pod's first process; imported on each node before its kubelet starts.
pub const PAUSE_IMAGE: &str = "gonka.local/pause:dev";

/// One file of a machine's `conf` folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    pub name: &'static str,
    pub text: String,
}

/// The folder of a machine's configuration files.
fn folder(run: &RunDir, machine: Machine) -> std::path::PathBuf {
    run.machine(machine).join("conf")
}

/// kube-proxy for any machine. One that is no node borrows the identity of the first node: kube-proxy waits half a
/// minute for a Node object of its name, and uses it for nothing but `Local` traffic policies.
pub fn kube_proxy(run: &RunDir, bin: &Binaries, machine: Machine) -> Component {
    Component {
        after: vec![Condition::File(run.api_ready())],
        ready: Some(Condition::Tcp("127.0.0.1:10256".into())),
        ..Component::new(
            "kube-proxy",
            bin.program("kube-proxy"),
            vec![format!(
                "--config={}",
                folder(run, machine).join("kube-proxy.json").display()
            )],
        )
    }
}

pub fn kube_proxy_file(run: &RunDir, id: ClusterId, machine: Machine) -> ConfigFile {
    let name = if let Machine::Node(_) = machine {
        machine
    } else {
        Machine::Node(1)
    };
    let value = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": name,
        "clientConnection": {"kubeconfig": run.kubeconfig("kube-proxy")},
        "detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"},
        // Zero leaves those settings alone: a network namespace cannot write them.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "bindAddress": id.address(machine),
        // Some virtual machines' root may not lower the score, and the default does.
        "oomScoreAdj": 0,
        "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
    });
    ConfigFile {
        name: "kube-proxy.json",
        text: pretty(&value),
    }
}

/// containerd, kubelet and kube-proxy.
pub fn components(run: &RunDir, bin: &Binaries, id: ClusterId, machine: Machine) -> Vec<Component> {
    let conf = folder(run, machine);
    vec![
        Component {
            ready: Some(Condition::Unix(CONTAINERD_SOCKET.into())),
            ..Component::new(
                "containerd",
                bin.program("containerd"),
                vec!["--config".into(), conf.join("containerd.toml").display().to_string()],
            )
        },
        kube_proxy(run, bin, machine),
        Component {
            after: vec![
                Condition::Unix(CONTAINERD_SOCKET.into()),
                Condition::File(run.api_ready()),
            ],
            ready: Some(Condition::Tcp("127.0.0.1:10248".into())),
            ..Component::new(
                "kubelet",
                bin.program("kubelet"),
                vec![
                    format!("--config={}", conf.join("kubelet.json").display()),
                    format!("--kubeconfig={}", run.kubeconfig(&machine.to_string()).display()),
                    format!("--hostname-override={machine}"),
                    format!("--node-ip={}", id.address(machine)),
                    "--root-dir=/var/lib/kubelet".into(),
                ],
            )
        },
    ]
}

/// Everything in a node's `conf` folder.
pub fn files(run: &RunDir, bin: &Binaries, id: ClusterId, node: u8) -> Vec<ConfigFile> {
    let machine = Machine::Node(node);
    let conf = folder(run, machine);
    vec![
        kube_proxy_file(run, id, machine),
        ConfigFile {
            name: "kubelet.json",
            text: pretty(&kubelet(&run.pki(), &conf, id, machine)),
        },
        ConfigFile {
            name: "containerd.toml",
            text: containerd(&bin.current(), &conf),
        },
        ConfigFile {
            name: "cni/10-pods.conflist",
            text: pretty(&pod_network(id, node)),
        },
        // Pods must not inherit the host's resolver, whatever the host uses.
        ConfigFile {
            name: "resolv.conf",
            text: String::new(),
        },
    ]
}

fn kubelet(pki: &Path, conf: &Path, id: ClusterId, machine: Machine) -> Value {
    let (crt, key) = pair(pki, &machine.to_string());
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": id.address(machine),
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.join("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": crt, "tlsPrivateKeyFile": key,
        "cgroupDriver": "cgroupfs", "failCgroupV1": false, "failSwapOn": false, "oomScoreAdj": 0,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "clusterDNS": [id.dns_service()], "clusterDomain": "cluster.local",
        "resolvConf": conf.join("resolv.conf"),
        // A full disk would otherwise collect the imported images, which no registry can bring back.
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "4s",
    })
}

fn containerd(bin: &Path, conf: &Path) -> String {
    let (bin, cni) = (bin.display(), conf.join("cni"));
    let cni = cni.display();
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  # runc may not lower oom_score_adj where root lacks CAP_SYS_RESOURCE; without this every sandbox fails there.
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{bin}"]
  conf_dir = "{cni}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
    )
}

fn pod_network(id: ClusterId, node: u8) -> Value {
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": id.pods(node)}]],
            // Lost at a reboot, like everything in /run: addresses are then given out anew.
            "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni-ipam"}},
        {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
    ]})
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (RunDir, ClusterId) {
        let id = ClusterId::try_from(8).unwrap();
        (RunDir::new(Path::new("/s"), id).unwrap(), id)
    }

    #[test]
    fn a_machine_that_is_no_node_proxies_under_the_first_nodes_name_and_its_own_address() {
        let (run, id) = world();
        let value = |m| serde_json::from_str::<Value>(&kube_proxy_file(&run, id, m).text).unwrap();
        let net = value(Machine::Network);
        assert_eq!(
            (&net["hostnameOverride"], &net["bindAddress"]),
            (&json!("n1"), &json!("10.108.0.3"))
        );
        let n2 = value(Machine::Node(2));
        assert_eq!(
            (&n2["hostnameOverride"], &n2["bindAddress"]),
            (&json!("n2"), &json!("10.108.0.12"))
        );
    }

    #[test]
    fn a_node_hands_out_addresses_of_its_own_network_only() {
        let (_, id) = world();
        let conf = pod_network(id, 2);
        assert_eq!(conf["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.108.12.0/24");
    }

    #[test]
    fn pods_ask_the_clusters_own_resolver() {
        let (run, id) = world();
        let value = kubelet(&run.pki(), Path::new("/s/conf"), id, Machine::Node(1));
        assert_eq!(value["clusterDNS"], json!(["10.118.0.10"]));
    }
}
