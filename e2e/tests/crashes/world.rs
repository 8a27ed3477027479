//! What every story shares: API server, scheduler and controllers of a cluster, machines without kubelets, chain and DAPI, the
//! proxy in front of both, and a [`Kubelet`].

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::args::Environment;
use e2e::fault_proxy::{Door, Gate, Upstream};
use e2e::fleet::control::Control;
use e2e::fleet::{install, repository};
use e2e::harness::process::Cmd;
use e2e::harness::{Cluster, ClusterId, Machine, Options};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kubelet::{self, Kubelet};
use crate::program::Program;

/// Id of the cluster.
const CLUSTER: u8 = 6;
/// Machines that only a [`Kubelet`] looks after.
pub const MACHINES: [&str; 3] = ["k1", "k2", "k3"];
const OPERATOR: &str = "system:serviceaccount:gonka-system:gonka-operator";
const GROUPS: [&str; 3] = [
    "system:serviceaccounts",
    "system:serviceaccounts:gonka-system",
    "system:authenticated",
];

/// Everything.
pub struct World<'a> {
    pub cluster: &'a Cluster,
    /// As the operator's user, with every right: policies protect slots from everybody else.
    pub client: Client,
    pub control: Control,
    pub gate: Arc<Gate>,
    pub program: Program,
    /// Where the operator reaches the DAPI's admin port.
    pub dapi: String,
    /// Machine of chain and DAPI.
    pub network: String,
    target: PathBuf,
    started: Instant,
    /// The proxy in front of the API server.
    pub api: Door,
    _dapi: Door,
    _tasks: JoinSet<()>,
}

/// Brings everything up, hands it to `body`, and takes it down however that ends.
pub async fn with_world<F>(environment: &Environment, body: F) -> Result<()>
where
    F: AsyncFnOnce(&mut World<'_>) -> Result<()>,
{
    let mut options = Options::new(ClusterId::try_from(CLUSTER)?);
    options.nodes = 1;
    options.dns = false;
    // Nobody renews the leases of machines without kubelets.
    options.timing.grace_seconds = 3600;
    let target = environment.target();
    let started = Instant::now();
    Cluster::with_cluster(environment, options, async |cluster| {
        let mut world = Box::pin(World::make(cluster, target, started)).await?;
        let told = body(&mut world).await;
        if let Err(error) = &told {
            world.say(&format!("FAILED: {error:#}"));
            world.show().await;
        }
        told
    })
    .await
}

impl<'a> World<'a> {
    async fn make(cluster: &'a Cluster, target: PathBuf, started: Instant) -> Result<Self> {
        let home = target.join("e2e-crashes");
        if home.exists() {
            fs::remove_dir_all(&home).context("the last run's folder cannot be removed")?;
        }
        fs::create_dir_all(&home).context("no folder for this run")?;
        let id = cluster.options()?.id;
        let network = id.address(Machine::Network).to_string();
        let program = Program {
            binary: target.join("debug/operator"),
            kubeconfig: home.join("kubeconfig"),
            slot_token: home.join("slot-token"),
            agent_template: home.join("agent.yaml"),
            home: home.clone(),
            address: network.clone(),
        };
        for binary in ["operator", "slot", "network-simulator"] {
            let path = target.join("debug").join(binary);
            ensure!(path.is_file(), "{} is not there; run `make crashes`", path.display());
        }
        let client = impersonating(cluster).await?;
        objects(cluster, &client).await?;
        addresses(cluster).await?;
        secrets(&client, &program).await?;
        let control = chain(cluster, &target, "crashes").await?;

        let gate = Arc::new(Gate::default());
        let here = SocketAddr::new(IpAddr::V4(id.gateway()), 0);
        let kubernetes = Upstream::Kubernetes {
            client: cluster.client().await?,
            user: OPERATOR.to_owned(),
            groups: GROUPS.map(str::to_owned).to_vec(),
        };
        let api = Door::open(here, kubernetes, Arc::clone(&gate)).await?;
        let dapi = Upstream::Http {
            client: reqwest::Client::builder().build().context("no HTTP client")?,
            base: format!("http://{network}:9200"),
        };
        let dapi = Door::open(here, dapi, Arc::clone(&gate)).await?;
        fs::write(&program.kubeconfig, kubeconfig(api.address)).context("no kubeconfig for the operator")?;

        let mut tasks = JoinSet::new();
        let kubelet = Kubelet {
            client: client.clone(),
            cluster: id,
            slot: target.join("debug/slot"),
            home,
            log: cluster.log_dir()?.join("slots.log"),
        };
        tasks.spawn(kubelet.run());
        let world = Self {
            cluster,
            client,
            control,
            gate,
            program,
            dapi: format!("http://{}", dapi.address),
            network,
            target,
            started,
            api,
            _dapi: dapi,
            _tasks: tasks,
        };
        world.say("API server, chain, DAPI and proxy are up");
        Ok(world)
    }

    /// Another chain and DAPI, from their beginning.
    pub async fn change_chain(&mut self, scenario: &str) -> Result<()> {
        self.cluster.end(install::SIMULATOR).await?;
        self.control = chain(self.cluster, &self.target, scenario).await?;
        Ok(())
    }

    /// Tells a person how far the story is.
    pub fn say(&self, text: &str) {
        eprintln!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
    }

    /// What there is, for whoever looks at a failure.
    async fn show(&self) {
        for kinds in ["pods,endpointslices,services,pdb", "gmd,gh,sprint,sprintruns,gpunodes"] {
            let shown = self.cluster.kubectl(&["-n", "gonka", "get", kinds, "-o", "wide"]).await;
            eprintln!("{}", shown.unwrap_or_else(|error| format!("{error:#}")));
        }
        for written in self.gate.writes().iter().rev().take(20) {
            eprintln!("  {} -> {}", written.call.shown(), written.status);
        }
        if let Ok(logs) = self.cluster.log_dir() {
            for name in ["operator-crashes.log", "slots.log"] {
                let text = fs::read_to_string(logs.join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(30).collect();
                eprintln!("--- {name}");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// The operator's user with an administrator's groups.
async fn impersonating(cluster: &Cluster) -> Result<Client> {
    // Refused when one is installed already, and that one is the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let file = Kubeconfig::read_from(cluster.kubeconfig()).context("no kubeconfig")?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .context("the kubeconfig names no cluster")?;
    config.auth_info.impersonate = Some(OPERATOR.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    Client::try_from(config).context("no client")
}

/// Charts, and machines. The chart's operator finds no machine that takes it.
async fn objects(cluster: &Cluster, client: &Client) -> Result<()> {
    cluster.kubectl(&["cordon", "n1"]).await?;
    let path = |relative: &str| repository().join(relative).display().to_string();
    cluster
        .helm(&["install", "gonka-fleet-crds", &path("charts/gonka-fleet-crds")])
        .await?;
    let pods = format!(
        "--set=admissionPolicies.podCIDRs={{{}}}",
        cluster.options()?.id.network()
    );
    cluster
        .helm(&[
            "install",
            "gonka-fleet",
            &path("charts/gonka-fleet"),
            "--namespace=gonka-system",
            "--create-namespace",
            "--set=operator.replicas=1",
            "--set=operator.nodeSelector.nowhere=here",
            &pods,
        ])
        .await?;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    for name in MACHINES {
        let room = json!({"cpu": "64", "memory": "256Gi", "pods": "200", "nvidia.com/gpu": "64"});
        let now = k8s_openapi::jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "nvidia.com/gpu.present": "true"}},
            "status": {"capacity": room, "allocatable": room, "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            }]},
        });
        let node = serde_json::from_value(node).context("a Node")?;
        nodes
            .create(&PostParams::default(), &node)
            .await
            .context("no machine")?;
    }
    Ok(())
}

/// Addresses of pods, on the loopback device of the network's machine.
async fn addresses(cluster: &Cluster) -> Result<()> {
    let id = cluster.options()?.id;
    let network = id.address(Machine::Network).octets();
    let lines: Vec<String> = kubelet::ADDRESSES
        .map(|last| format!("addr add {}.{}.{}.{last}/32 dev lo", network[0], network[1], network[2]))
        .collect();
    let batch = Cmd::new("ip")
        .args(["-batch", "-"])
        .stdin_bytes(lines.join("\n") + "\n");
    cluster.inside(Machine::Network, batch)?.text().await.map(drop)
}

/// What is mounted into the operator and into slots.
async fn secrets(client: &Client, program: &Program) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "gonka-system");
    for (audience, file) in [
        ("fleet-slot", program.slot_token.clone()),
        ("fleetsignal", program.home.join("signal-token")),
    ] {
        let request: TokenRequest =
            serde_json::from_value(json!({"spec": {"audiences": [audience], "expirationSeconds": 36_000}}))
                .context("a TokenRequest")?;
        let token = accounts
            .create_token_request("gonka-operator", &PostParams::default(), &request)
            .await
            .context("no token")?;
        fs::write(&file, token.status.context("a TokenRequest without a token")?.token).context("no token file")?;
    }
    let templates: Api<ConfigMap> = Api::namespaced(client.clone(), "gonka-system");
    let template = templates
        .get("gonka-agent-template")
        .await
        .context("no agent template")?;
    let text = template.data.and_then(|mut data| data.remove("daemonset.yaml"));
    fs::write(&program.agent_template, text.context("an empty agent template")?).context("no template file")
}

async fn chain(cluster: &Cluster, target: &std::path::Path, scenario: &str) -> Result<Control> {
    let file = repository().join(format!("e2e/network-simulator/scenarios/{scenario}.yaml"));
    let ledger = target.join("e2e-crashes").join(format!("ledger-{scenario}"));
    let network = install::network(cluster, &target.join("debug/network-simulator"), &file, &ledger).await?;
    network.control.wait_height(2, Duration::from_secs(20)).await?;
    Ok(network.control)
}

fn kubeconfig(address: SocketAddr) -> String {
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "operator", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        "current-context": "proxy",
    });
    config.to_string()
}
