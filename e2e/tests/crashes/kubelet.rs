//! In place of kubelets: runs a real `slot hold` for every slot pod that the scheduler put on one of the machines here, each
//! in a process namespace of its own and on an address of its own, and tells the API server what a kubelet would tell.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::harness::process::Cmd;
use e2e::harness::{ClusterId, Machine};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Child;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
const OPERATOR_PORT: u16 = 9410;
/// Last parts of the addresses of pods.
pub const ADDRESSES: std::ops::Range<u8> = 100..200;

/// Everything it works with.
#[derive(Clone)]
pub struct Kubelet {
    pub client: Client,
    pub cluster: ClusterId,
    pub slot: PathBuf,
    pub home: PathBuf,
    pub log: PathBuf,
}

/// A pod that runs.
struct Running {
    child: Child,
    address: String,
    ready: bool,
    folder: PathBuf,
    command: Cmd,
}

impl Kubelet {
    /// Runs until it is dropped; what it started ends with it.
    pub async fn run(self) {
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        let mut number = 0;
        loop {
            if let Err(error) = self.look(&mut running, &mut number).await {
                tracing::debug!("kubelet: {error:#}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, running: &mut BTreeMap<String, Running>, number: &mut u32) -> Result<()> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let all = pods.list(&ListParams::default()).await.context("pods")?.items;
        let ours = |pod: &&Pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            node.is_some_and(|node| crate::world::MACHINES.contains(&node))
        };
        let all: Vec<&Pod> = all.iter().filter(ours).collect();
        let gone: Vec<String> = running
            .keys()
            .filter(|uid| all.iter().all(|pod| pod.uid().as_ref() != Some(uid)))
            .cloned()
            .collect();
        for uid in gone {
            end(running.remove(&uid)).await;
        }
        for pod in all {
            let uid = pod.uid().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() {
                end(running.remove(&uid)).await;
                self.finish(pod, &uid).await?;
            } else if pod.labels().get(crds::labels::ROLE).map(String::as_str) == Some(crds::labels::ROLE_SLOT_POD) {
                if !running.contains_key(&uid) {
                    *number += 1;
                    running.insert(uid.clone(), self.start(pod, &uid, *number).await?);
                }
                if let Some(running) = running.get_mut(&uid) {
                    self.keep(pod, running).await?;
                }
            }
        }
        Ok(())
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    /// The last word on a pod that is being deleted.
    async fn finish(&self, pod: &Pod, uid: &str) -> Result<()> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default().grace_period(0)
        };
        match self.pods(pod).delete(&pod.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error).context("a pod's end was not told"),
        }
    }

    async fn start(&self, pod: &Pod, uid: &str, number: u32) -> Result<Running> {
        let count = u32::from(ADDRESSES.end - ADDRESSES.start);
        let last = u32::from(ADDRESSES.start) + number % count;
        let network = self.cluster.address(Machine::Network).octets();
        let address = format!("{}.{}.{}.{last}", network[0], network[1], network[2]);
        let folder = self.home.join(format!("p{number}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let keys: Api<ConfigMap> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        // The volume is optional, as on a node.
        if let Some(keys) = keys.get_opt("slot-trust").await.context("keys")? {
            for (name, content) in keys.data.unwrap_or_default() {
                fs::write(folder.join(name), content).context("keys were not written")?;
            }
        }
        let command = self.command(pod, uid, &address, &folder)?;
        let child = command.clone().spawn_logged(&self.log)?;
        Ok(Running {
            child,
            address,
            ready: false,
            folder,
            command,
        })
    }

    /// The command of the pod's container, with this machine's files and addresses.
    fn command(&self, pod: &Pod, uid: &str, address: &str, folder: &std::path::Path) -> Result<Cmd> {
        let value = serde_json::to_value(pod).context("a pod is JSON")?;
        let container = &value["spec"]["containers"][0];
        let given = container["command"]
            .as_array()
            .context("a container without a command")?;
        let after = given
            .iter()
            .position(|word| word == "--")
            .context("a command without --")?;
        let mut words: Vec<String> = given[after + 1..]
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let signal = format!("https://{}:9400", self.cluster.address(Machine::Network));
        let file = |name: &str| folder.join(name).display().to_string();
        let files = [
            ("--trust-jwks", file("jwks.json")),
            ("--signal-ca", file("signal-ca.pem")),
            ("--signal-token", self.home.join("signal-token").display().to_string()),
            ("--signal", signal),
        ];
        for (flag, file) in files {
            if let Some(index) = words.iter().position(|word| word == flag) {
                words[index + 1] = file;
            }
        }
        words.extend([
            // The name the pod's own address of FleetSignal has.
            "--signal-server-name".to_owned(),
            "gonka-fleet-signal.gonka-system.svc".to_owned(),
            "--bind".to_owned(),
            address.to_owned(),
            "--journal-dir".to_owned(),
            String::new(),
        ]);
        let run_dir = folder.join("run").display().to_string();
        fs::create_dir_all(&run_dir).context("no run folder")?;
        let mut command = Cmd::new(&self.slot)
            .args(["hold", "--run-dir", &run_dir, "--"])
            .args(words)
            .clear_env()
            .env("POD_UID", uid)
            .env("POD_NAME", pod.name_any())
            .env("POD_NAMESPACE", pod.namespace().unwrap_or_default())
            // Beside the rest of the suite on two cores, engines give way.
            .inside(["nice", "-n", "5"]);
        for variable in container["env"].as_array().into_iter().flatten() {
            if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) {
                command = command.env(name, value);
            }
        }
        let netns = format!("--net=/run/netns/{}", self.cluster.netns(Machine::Network));
        Ok(command
            .inside(["unshare", "--pid", "--fork", "--kill-child"])
            .inside(["nsenter", &netns]))
    }

    /// Starts what ended, and says once that it is up.
    async fn keep(&self, pod: &Pod, running: &mut Running) -> Result<()> {
        if running
            .child
            .try_wait()
            .context("a slot cannot be looked at")?
            .is_some()
        {
            running.child = running.command.clone().spawn_logged(&self.log)?;
            running.ready = false;
        }
        if running.ready {
            return Ok(());
        }
        let door = TcpStream::connect((running.address.as_str(), OPERATOR_PORT));
        if !matches!(tokio::time::timeout(LOOK, door).await, Ok(Ok(_))) {
            return Ok(());
        }
        let now = k8s_openapi::jiff::Timestamp::now();
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let status = json!({"status": {
            "phase": "Running",
            "podIP": running.address,
            "podIPs": [{"ip": running.address}],
            "startTime": now,
            "conditions": [condition("Ready"), condition("ContainersReady"), condition("Initialized")],
        }});
        self.pods(pod)
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&status))
            .await
            .context("a pod's status was not told")?;
        running.ready = true;
        Ok(())
    }
}

async fn end(running: Option<Running>) {
    if let Some(mut running) = running {
        // The namespace's first process takes all others with it.
        let _ended = running.child.kill().await;
        fs::remove_dir_all(&running.folder).ok();
    }
}
