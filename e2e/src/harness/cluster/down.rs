//! Takes a cluster away: processes by their records, then namespaces, links, control groups, settings, files. Whatever
//! is missing already is no error, so it also clears what a crashed run left; what cannot be removed is named.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{
    cgroup::Layout,
    machine::Spec,
    network,
    paths::RunDir,
    plan::ClusterId,
    process::{ProcessRecord, read_json, until},
    registry::Registry,
};

const POLITE: Duration = Duration::from_secs(5);
const FORCED: Duration = Duration::from_secs(15);

/// Whether the cluster came up and any of its processes is alive, or somebody is starting it just now.
pub fn lives(run: &RunDir) -> bool {
    let complete = run.cluster_file().exists();
    let starting = ProcessRecord::load(&run.starter()).is_ok_and(|starter| starter.is_alive());
    starting || (complete && specs(run).iter().any(|spec| spec.process().is_some()))
}

fn specs(run: &RunDir) -> Vec<Spec> {
    let folders = fs::read_dir(run.root().join("machines"))
        .into_iter()
        .flatten()
        .flatten();
    folders
        .filter_map(|f| read_json(&f.path().join("spec.json")).ok())
        .collect()
}

fn records(run: &RunDir) -> Vec<(String, ProcessRecord)> {
    let files = fs::read_dir(run.processes()).into_iter().flatten().flatten();
    let named = files.map(|f| (f.path().file_stem().map(|s| s.to_string_lossy().into_owned()), f.path()));
    named
        .filter_map(|(name, path)| Some((name?, ProcessRecord::load(&path).ok()?)))
        .collect()
}

pub async fn down(id: ClusterId, run: &RunDir) -> Result<()> {
    for (_, record) in records(run) {
        end_process(&record).await?;
    }
    for spec in specs(run) {
        spec.cut().await?;
    }
    end_strays(id).await?;
    network::remove(id).await?;
    Layout::of_this_machine()?.remove(&id.prefix(), None, FORCED).await?;
    remove_files(run.root())?;
    // A parent that holds no other cluster goes too.
    run.root().parent().map(fs::remove_dir);
    let mut registry = Registry::open()?;
    registry.release(id)?;
    drop(registry);
    let links = network::existing(id).await?;
    ensure!(
        links.is_empty(),
        "network namespaces {links:?} of cluster {id} came back; is another harness starting it?"
    );
    Ok(())
}

/// SIGTERM, and SIGKILL for what does not listen; a wrapper's children before the wrapper.
pub async fn end_process(record: &ProcessRecord) -> Result<()> {
    for (signal, limit) in [(Signal::SIGTERM, POLITE), (Signal::SIGKILL, FORCED)] {
        for pid in record.children() {
            kill(Pid::from_raw(pid), signal).ok();
        }
        record.signal(signal);
        if record.gone_within(limit).await {
            return Ok(());
        }
    }
    anyhow::bail!(
        "process {} ({}) does not end, not even by SIGKILL",
        record.pid,
        record.command
    )
}

/// Processes without a record that live in the cluster's own network namespaces: started by hand with nsenter, or by a
/// run that crashed between the start and the record. The namespaces are ours, so what is in them is.
async fn end_strays(id: ClusterId) -> Result<()> {
    for netns in network::existing(id).await? {
        for pid in network::processes_in(&netns).await? {
            tracing::warn!(pid, netns, "ending a process that nobody recorded");
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        let empty = until(FORCED, async || {
            network::processes_in(&netns).await.is_ok_and(|p| p.is_empty())
        });
        ensure!(
            empty.await,
            "processes stay in network namespace {netns}; see `ip netns pids {netns}`"
        );
    }
    Ok(())
}

/// Never through a mount: a node's file systems live in namespaces that are gone by now.
fn remove_files(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let inside: Vec<&str> = mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .filter(|m| Path::new(m).starts_with(root))
        .collect();
    ensure!(
        inside.is_empty(),
        "mounts {inside:?} lie in the run directory; unmount them, then run `harness down` again"
    );
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    Ok(())
}
