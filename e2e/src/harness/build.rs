//! Builds the cluster's programs from pinned Go modules (and pause from C) into a store keyed by their sources.
//!
//! `TARGET/cluster-bin/PROGRAM-HASH/` holds one program's files, `TARGET/cluster-bin/current/` links to the newest of
//! each. The hash covers go.mod, go.sum, the sources, the build flags and the Go version, so what is there is right.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{paths::Binaries, process::Cmd};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster");
const KUBERNETES: &str = "1.36.3";
/// The largest program takes a quarter of an hour on two busy cores.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);
const GO_ENV: [(&str, &str); 3] = [("CGO_ENABLED", "0"), ("GOFLAGS", "-trimpath"), ("GOTOOLCHAIN", "local")];

/// How one folder under `cluster/` becomes programs.
#[derive(Debug, Clone, Copy)]
struct Program {
    folder: &'static str,
    /// File name and Go package; no package is C.
    outputs: &'static [(&'static str, &'static str)],
    /// Further names under which the first output is called.
    names: &'static [&'static str],
}

const PROGRAMS: [Program; 9] = [
    Program {
        folder: "kube",
        outputs: &[("kube", ".")],
        names: &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        ],
    },
    Program {
        folder: "etcd",
        outputs: &[("etcd", "go.etcd.io/etcd/server/v3")],
        names: &[],
    },
    Program {
        folder: "containerd",
        outputs: &[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            (
                "containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            ),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
        names: &[],
    },
    Program {
        folder: "cni",
        outputs: &[
            ("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
            (
                "loopback",
                "github.com/containernetworking/plugins/plugins/main/loopback",
            ),
            (
                "host-local",
                "github.com/containernetworking/plugins/plugins/ipam/host-local",
            ),
            ("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
        ],
        names: &[],
    },
    Program {
        folder: "dns",
        outputs: &[("coredns", ".")],
        names: &[],
    },
    Program {
        folder: "helm",
        outputs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
        names: &[],
    },
    Program {
        folder: "probe",
        outputs: &[("probe", ".")],
        names: &[],
    },
    Program {
        folder: "pause",
        outputs: &[("pause", "")],
        names: &[],
    },
    KWOK,
];

const KWOK: Program = Program {
    folder: "kwok",
    outputs: &[("kwok", "sigs.k8s.io/kwok/cmd/kwok")],
    names: &[],
};

/// What one program cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub program: &'static str,
    /// None when it was there already.
    pub took: Option<Duration>,
}

/// Builds what is missing; `report` hears of each program as it is done.
pub async fn build(bin: &Binaries, with_kwok: bool, mut report: impl FnMut(&Built)) -> Result<()> {
    fs::create_dir_all(bin.current()).with_context(|| format!("cannot make {}", bin.current().display()))?;
    let lock = File::create(bin.store().join("lock")).context("cannot open the lock of the program store")?;
    lock.lock().context("cannot lock the program store")?;
    let go = toolchain().await?;
    for program in PROGRAMS.into_iter().filter(|p| with_kwok || p.folder != KWOK.folder) {
        let sources = read_sources(&Path::new(SOURCES).join(program.folder))?;
        let compiler = if program.outputs[0].1.is_empty() { "cc" } else { &go };
        let home = bin
            .store()
            .join(format!("{}-{}", program.folder, key(&sources, compiler)));
        let started = Instant::now();
        let missing = !home.join("complete").exists();
        if missing {
            fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
            compile(program, &home)
                .await
                .with_context(|| format!("cannot build {}", program.folder))?;
            File::create(home.join("complete")).context("cannot mark a program as complete")?;
        }
        link(bin, program, &home)?;
        report(&Built {
            program: program.folder,
            took: missing.then(|| started.elapsed()),
        });
    }
    Ok(())
}

/// The Go version, which is part of every key.
async fn toolchain() -> Result<String> {
    let version = Cmd::new("go")
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .text()
        .await;
    let version =
        version.context("Go is needed to build the cluster's programs; run e2e/setup.sh to see what is missing")?;
    Ok(version.trim().to_owned())
}

/// Relative path and content of each source, in order.
fn read_sources(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        sources.push((
            name,
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?,
        ));
    }
    sources.sort();
    Ok(sources)
}

/// Changes whenever the result could.
fn key(sources: &[(String, Vec<u8>)], compiler: &str) -> String {
    let mut hash = Sha256::new();
    for part in [compiler, std::env::consts::ARCH, &link_flags()] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    for (name, content) in sources {
        hash.update(name.len().to_le_bytes());
        hash.update(name);
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    hex::encode(&hash.finalize()[..8])
}

/// Without its version linked in, Kubernetes reports v0.0.0 and its compatibility code misbehaves.
fn link_flags() -> String {
    let mut numbers = KUBERNETES.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let variable = "k8s.io/component-base/version.git";
    format!("-s -w -X {variable}Version=v{KUBERNETES} -X {variable}Major={major} -X {variable}Minor={minor}")
}

async fn compile(program: Program, home: &Path) -> Result<()> {
    let folder = Path::new(SOURCES).join(program.folder);
    for (output, package) in program.outputs {
        let output = home.join(output);
        let compiler = if package.is_empty() {
            let source = folder.join(format!("{}.c", program.folder));
            let flags = ["-O2", "-Wall", "-Wextra", "-static", "-s", "-o"];
            Cmd::new("cc")
                .args(flags)
                .args([output.as_os_str(), source.as_os_str()])
        } else {
            let go = Cmd::new("go")
                .args(["build", "-ldflags", &link_flags(), "-o"])
                .args([&output])
                .args([package]);
            GO_ENV
                .iter()
                .fold(go.cwd(&folder), |go, (name, value)| go.env(name, value))
        };
        compiler.timeout(BUILD_LIMIT).text().await?;
    }
    Ok(())
}

/// Points `current` at one build, and forgets older builds of the same program.
fn link(bin: &Binaries, program: Program, home: &Path) -> Result<()> {
    let folder = home.file_name().context("a program's home has a name")?;
    let first = program.outputs[0].0;
    let outputs = program.outputs.iter().map(|(o, _)| (*o, *o));
    for (name, file) in outputs.chain(program.names.iter().map(|n| (*n, first))) {
        let target = PathBuf::from("..").join(folder).join(file);
        let link = bin.program(name);
        if fs::read_link(&link).is_ok_and(|t| t == target) {
            continue;
        }
        let fresh = link.with_extension("new");
        fs::remove_file(&fresh).ok();
        symlink(&target, &fresh).with_context(|| format!("cannot link {}", fresh.display()))?;
        fs::rename(&fresh, &link).with_context(|| format!("cannot put {} in place", link.display()))?;
    }
    let prefix = format!("{}-", program.folder);
    for entry in fs::read_dir(bin.store())
        .context("cannot list the program store")?
        .flatten()
    {
        if entry.file_name() != folder && entry.file_name().to_string_lossy().starts_with(&prefix) {
            // Running programs keep their file until they end.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
    Ok(())
}

/// Fails with the command to run when a program is missing.
pub fn check(bin: &Binaries) -> Result<()> {
    for program in PROGRAMS.into_iter().filter(|p| p.folder != KWOK.folder) {
        for (output, _) in program.outputs {
            let path = bin.program(output);
            ensure!(
                path.exists(),
                "{} is missing; run `harness build` first",
                path.display()
            );
        }
    }
    Ok(())
}

/// kwok is built for those who ask.
pub async fn kwok(bin: &Binaries) -> Result<PathBuf> {
    build(bin, true, |_| {}).await?;
    let path = bin.program("kwok");
    if !path.exists() {
        bail!("{} is missing after its build", path.display());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, content: &str) -> (String, Vec<u8>) {
        (name.into(), content.as_bytes().to_vec())
    }

    #[test]
    fn the_key_follows_every_input_and_nothing_else() {
        let sources = vec![source("go.mod", "a"), source("main.go", "b")];
        let base = key(&sources, "go1.26.6");
        assert_eq!(base, key(&sources, "go1.26.6"));
        assert_ne!(base, key(&sources, "go1.26.7"));
        assert_ne!(base, key(&[source("go.mod", "a"), source("main.go", "c")], "go1.26.6"));
        assert_ne!(base, key(&[source("go.mod", "am"), source("ain.go", "b")], "go1.26.6"));
    }

    #[test]
    fn every_folder_of_sources_is_built_and_every_build_has_sources() {
        let mut folders: Vec<_> = fs::read_dir(SOURCES)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut programs: Vec<_> = PROGRAMS.iter().map(|p| p.folder.to_owned()).collect();
        folders.sort();
        programs.sort();
        assert_eq!(folders, programs);
    }

    #[test]
    fn the_linked_version_is_the_pinned_one() {
        let go_mod = fs::read_to_string(Path::new(SOURCES).join("kube/go.mod")).unwrap();
        assert!(go_mod.contains(&format!("k8s.io/kubernetes v{KUBERNETES}")));
    }
}
