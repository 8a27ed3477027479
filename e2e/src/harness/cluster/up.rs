//! From nothing to nodes that are Ready. Everything that can run side by side does; waiting is for conditions only.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{core::v1::Node, rbac::v1::ClusterRoleBinding};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use tokio::time::Instant;

use super::{Options, api_answers, client, dns, down, images};
use crate::{
    args::Environment,
    harness::{
        build,
        cgroup::Layout,
        config::{control_plane, node},
        machine::{Component, Spec},
        network,
        paths::{Binaries, RunDir},
        pki,
        plan::{ClusterId, Machine},
        process::{ProcessRecord, until, write_json, write_whole},
        registry::Registry,
    },
};

const API_LIMIT: Duration = Duration::from_secs(120);
const NODE_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);

/// What one start works with.
struct Start<'a> {
    options: Options,
    run: &'a RunDir,
    bin: Binaries,
    harness: PathBuf,
    cgroups: Layout,
}

pub async fn up(environment: &Environment, options: Options, step: &(impl Fn(&str) + Sync)) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a cluster needs root: namespaces, bridges and control groups are made"
    );
    let id = options.id;
    let start = Start {
        options,
        run: &RunDir::new(&environment.state(), id)?,
        bin: Binaries::of(environment),
        harness: harness_program()?,
        cgroups: Layout::of_this_machine()?,
    };
    build::check(&start.bin)?;
    claim(environment, start.run, id, step).await?;
    let done = start.everything(environment, step).await;
    // Whoever comes next may clear what is here now, complete or not.
    fs::remove_file(start.run.starter()).ok();
    if done.is_err() {
        step("failed; everything is left as it is, to look around; the next `harness up` or `down` clears it");
    }
    done.with_context(|| {
        format!(
            "cluster {id} did not come up; logs are in {}",
            start.run.logs().display()
        )
    })
}

/// Takes the id. A cluster that lives or is being started is not touched; what a crash left is taken away first.
async fn claim(environment: &Environment, run: &RunDir, id: ClusterId, step: &impl Fn(&str)) -> Result<()> {
    loop {
        let old = super::Cluster::run_dir(environment, id)?;
        // Locked from the look to the entry, so that of two starts at once one sees the other.
        let mut registry = Registry::open()?;
        ensure!(
            !down::lives(&old),
            "cluster {id} is already up, or being started, in {}; run `harness down --cluster {id}` first, or choose another id",
            old.root().display()
        );
        let clean =
            registry.run_dir_of(id).is_none() && !old.root().exists() && network::existing(id).await?.is_empty();
        if clean {
            network::check_free(id).await?;
            fs::create_dir_all(run.root()).with_context(|| format!("cannot make {}", run.root().display()))?;
            ProcessRecord::of_this_process()?.save(&run.starter())?;
            return registry.claim(id, run.root());
        }
        drop(registry);
        step("clearing what a crashed run left behind");
        down::down(id, &old).await?;
    }
}

/// The `harness` binary, which is what process 1 of each machine runs: this program, or its neighbour when this is a test.
pub fn harness_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell the path of this program")?;
    let folder = own.parent().context("this program lies in no folder")?;
    let places = [folder.join("harness"), folder.join("../harness")];
    let found = places.iter().find(|p| p.is_file()).and_then(|p| p.canonicalize().ok());
    found.with_context(|| {
        format!(
            "no harness binary beside {}; run `cargo build -p e2e --bin harness`",
            own.display()
        )
    })
}

impl Start<'_> {
    async fn everything(&self, environment: &Environment, step: &(impl Fn(&str) + Sync)) -> Result<()> {
        let (id, nodes) = (self.options.id, self.options.nodes);
        for folder in [
            self.run.pki(),
            self.run.logs(),
            self.run.root().join("kubeconfig"),
            self.run.etcd(),
        ] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let archives = async { images::build_own(environment, &self.bin) };
        let (archives, ..) = tokio::try_join!(archives, pki::make(self.run, id, nodes), network::make(id, nodes))?;
        step("keys, network and images made");
        let specs = Machine::all(nodes).map(|m| self.spec(m)).collect::<Result<Vec<_>>>()?;
        for spec in &specs {
            spec.save()?;
            spec.start(&self.harness).await?;
        }
        let import = async {
            let nodes = specs.iter().filter(|s| matches!(s.machine, Machine::Node(_)));
            futures::future::try_join_all(nodes.map(|s| images::import(s, &archives)))
                .await
                .map(drop)
        };
        let api = async {
            let client = self.api_ready(&specs[0]).await?;
            step("API server ready");
            if self.options.dns {
                dns::create(&client, id, nodes).await?;
            }
            self.nodes_ready(&client, step).await?;
            Ok(client)
        };
        let ((), client) = tokio::try_join!(import, api)?;
        for spec in &specs {
            spec.wait_ready("kube-proxy", NODE_LIMIT).await?;
        }
        step("service routing ready on every machine");
        if self.options.dns {
            dns::wait_ready(&client).await?;
            step("cluster DNS ready");
        }
        write_json(&self.run.cluster_file(), &self.options)
    }

    fn spec(&self, machine: Machine) -> Result<Spec> {
        let (id, run, bin) = (self.options.id, self.run, &self.bin);
        let files = match machine {
            Machine::Node(n) => node::files(run, bin, id, n),
            Machine::ControlPlane | Machine::Network => vec![node::kube_proxy_file(run, id, machine)],
        };
        for file in files {
            let path = run.machine(machine).join("conf").join(file.name);
            fs::create_dir_all(path.parent().unwrap_or_else(|| run.root()))
                .context("cannot make a configuration folder")?;
            write_whole(&path, file.text.as_bytes())?;
        }
        Ok(Spec {
            cluster: id,
            machine,
            directory: run.machine(machine),
            logs: run.logs(),
            programs: bin.current(),
            cgroups: matches!(machine, Machine::Node(_)).then(|| self.cgroups.clone()),
            components: self.components(machine),
        })
    }

    fn components(&self, machine: Machine) -> Vec<Component> {
        let (id, run, bin) = (self.options.id, self.run, &self.bin);
        match machine {
            Machine::Node(_) => node::components(run, bin, id, machine),
            Machine::Network => vec![node::kube_proxy(run, bin, machine)],
            Machine::ControlPlane => {
                let mut all = control_plane::components(run, bin, id, self.options.timing);
                all.push(node::kube_proxy(run, bin, machine));
                all
            }
        }
    }

    /// Waits for the API server and gives kube-proxy its rights, then lets everything start that waits for both.
    async fn api_ready(&self, control_plane: &Spec) -> Result<Client> {
        control_plane.wait_ready("kube-apiserver", API_LIMIT).await?;
        let client = client(&self.run.kubeconfig("admin")).await?;
        let ready = until(API_LIMIT, async || api_answers(&client).await);
        ensure!(
            ready.await,
            "the API server listens but is not ready after {API_LIMIT:?}; see cp-kube-apiserver.log"
        );
        let binding: ClusterRoleBinding = serde_yaml::from_str(PROXY_RIGHTS).context("the binding does not parse")?;
        Api::all(client.clone())
            .create(&PostParams::default(), &binding)
            .await
            .context("cannot give kube-proxy its rights")?;
        write_whole(&self.run.api_ready(), b"")?;
        Ok(client)
    }

    async fn nodes_ready(&self, client: &Client, step: &impl Fn(&str)) -> Result<()> {
        let (api, end) = (Api::<Node>::all(client.clone()), Instant::now() + NODE_LIMIT);
        let mut known = Vec::new();
        while known.len() < usize::from(self.options.nodes) {
            let list = api.list(&ListParams::default()).await.context("cannot list nodes")?;
            for node in list.items.iter().filter(|n| is_ready(n)) {
                let name = node.metadata.name.clone().unwrap_or_default();
                if !known.contains(&name) {
                    step(&format!("node {name} Ready"));
                    known.push(name);
                }
            }
            if Instant::now() > end {
                bail!(
                    "only {known:?} of {} nodes are Ready after {NODE_LIMIT:?}; see nX-kubelet.log",
                    self.options.nodes
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

const PROXY_RIGHTS: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: gonka-fleet-e2e-node-proxier}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:node-proxier'}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: 'system:kube-proxy'}]
";

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
