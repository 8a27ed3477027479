//! Images on nodes: the cluster's own two, and import without a registry.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::Cluster;
use crate::{
    args::Environment,
    harness::{
        image::{self, Files, Image},
        machine::Spec,
        paths::{self, Binaries},
        plan::Machine,
        process::{Cmd, write_whole},
    },
};

const READY_LIMIT: Duration = Duration::from_secs(60);
const IMPORT_LIMIT: Duration = Duration::from_secs(300);

impl Cluster {
    /// Imports archives on every node, all nodes at once.
    pub async fn load_images(&self, archives: &[PathBuf]) -> Result<()> {
        let (options, run) = self.own()?;
        let specs = (1..=options.nodes)
            .map(|n| Spec::load(run, Machine::Node(n)))
            .collect::<Result<Vec<_>>>()?;
        futures::future::try_join_all(specs.iter().map(|spec| import(spec, archives)))
            .await
            .map(drop)
    }

    /// The archive of an image that was built under a short name.
    pub fn archive(&self, name: &str) -> PathBuf {
        self.images.join(format!("{name}.tar"))
    }
}

/// pause first: no pod starts without it.
pub fn build_own(environment: &Environment, bin: &Binaries) -> Result<Vec<PathBuf>> {
    ["pause", "coredns", "probe"]
        .into_iter()
        .map(|name| build_static(environment, bin, name))
        .collect()
}

/// An image of one static program of the store.
fn build_static(environment: &Environment, bin: &Binaries, name: &str) -> Result<PathBuf> {
    let path = format!("/{name}");
    let mut files = Files::new();
    image::add(&mut files, &bin.program(name), &path, 0o755)?;
    let image = Image {
        name: image::full_name(name),
        entrypoint: vec![path],
        env: Vec::new(),
        user: "65532:65532".into(),
        base: image::base_files(),
        files,
    };
    let (bytes, _) = image.archive()?;
    let folder = paths::images(environment);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let archive = folder.join(format!("{name}.tar"));
    if fs::read(&archive).is_ok_and(|old| old == bytes) {
        return Ok(archive);
    }
    write_whole(&archive, &bytes)?;
    Ok(archive)
}

/// Imports archives on one node, once its containerd listens.
pub async fn import(spec: &Spec, archives: &[PathBuf]) -> Result<()> {
    spec.wait_ready("containerd", READY_LIMIT).await?;
    for archive in archives {
        import_one(spec, archive)
            .await
            .with_context(|| format!("cannot import {} on {}", archive.display(), spec.machine))?;
    }
    Ok(())
}

async fn import_one(spec: &Spec, archive: &Path) -> Result<()> {
    let pid = spec.init_pid()?.to_string();
    // Through standard input, since a node hides some of the host's folders.
    let ctr = Cmd::new(spec.programs.join("ctr")).args(["--namespace", "k8s.io", "images", "import", "-"]);
    let ctr = ctr
        .inside(["nsenter", "--target", &pid, "--all"])
        .stdin_file(archive)
        .timeout(IMPORT_LIMIT);
    ctr.text().await.map(drop)
}
