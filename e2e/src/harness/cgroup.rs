//! Control groups of nodes, on both kernels' layouts: several v1 hierarchies (also "hybrid"), or the one of v2.
//!
//! A node's group is `/gfC/nX` in each hierarchy. It is entered before the cgroup namespace is made, so a node sees it
//! as the root and the kubelet needs no `cgroupRoot`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::process::until;

const V2_CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// How this machine groups processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    V1(Vec<Hierarchy>),
    V2,
}

/// One v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Folder under /sys/fs/cgroup.
    pub folder: String,
    /// What mount(2) must be told to get the same hierarchy again.
    pub options: String,
}

const ROOT: &str = "/sys/fs/cgroup";

impl Layout {
    pub fn of_this_machine() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        Self::parse(&mounts)
    }

    /// Any v1 hierarchy decides for v1: the `unified` one beside it has no controllers then.
    fn parse(mountinfo: &str) -> Result<Self> {
        let (mut v1, mut v2) = (Vec::new(), false);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(point), [kind, _, options, ..]) = (left.split(' ').nth(4), right.as_slice()) else {
                continue;
            };
            let Some(folder) = Path::new(point).strip_prefix(ROOT).ok().and_then(Path::to_str) else {
                continue;
            };
            match *kind {
                "cgroup2" if folder.is_empty() => v2 = true,
                "cgroup" => v1.push(Hierarchy {
                    folder: folder.into(),
                    options: controllers(options),
                }),
                _ => {}
            }
        }
        ensure!(
            v2 || !v1.is_empty(),
            "no control groups under {ROOT}; mount them, or run on a kernel that has them"
        );
        Ok(if v1.is_empty() { Self::V2 } else { Self::V1(v1) })
    }

    fn roots(&self) -> Vec<PathBuf> {
        match self {
            Self::V1(hierarchies) => hierarchies.iter().map(|h| Path::new(ROOT).join(&h.folder)).collect(),
            Self::V2 => vec![ROOT.into()],
        }
    }

    /// Makes the group of a cluster and of one node in it, ready for processes.
    pub fn make(&self, cluster: &str, node: &str) -> Result<()> {
        for root in self.roots() {
            let group = root.join(cluster).join(node);
            fs::create_dir_all(&group).with_context(|| format!("cannot make control group {}", group.display()))?;
            // A cpuset starts empty, and nothing can enter an empty one; parents come first.
            for file in ["cpuset.cpus", "cpuset.mems"]
                .into_iter()
                .filter(|_| matches!(self, Self::V1(_)))
            {
                let Ok(all) = fs::read(root.join(file)) else { continue };
                for folder in [root.join(cluster), group.clone()] {
                    let path = folder.join(file);
                    fs::write(&path, &all).with_context(|| format!("cannot write {}", path.display()))?;
                }
            }
        }
        if *self == Self::V2 {
            delegate(Path::new(ROOT))?;
            delegate(&Path::new(ROOT).join(cluster))?;
        }
        Ok(())
    }

    /// Moves the calling process into a node's group.
    pub fn enter(&self, cluster: &str, node: &str) -> Result<()> {
        for root in self.roots() {
            move_self(&root.join(cluster).join(node))?;
        }
        Ok(())
    }

    /// Removes a node's groups below its own, or with `node` empty all of a cluster's. Waits for processes to be gone.
    pub async fn remove(&self, cluster: &str, node: Option<&str>, limit: Duration) -> Result<()> {
        let groups: Vec<PathBuf> = self
            .roots()
            .iter()
            .map(|r| node.map_or_else(|| r.join(cluster), |n| r.join(cluster).join(n)))
            .collect();
        until(limit, async || {
            for group in &groups {
                remove_tree(group);
            }
            !groups.iter().any(|g| g.exists())
        })
        .await;
        let left: Vec<_> = groups
            .iter()
            .filter(|g| g.exists())
            .map(|g| g.display().to_string())
            .collect();
        ensure!(left.is_empty(), "control groups still in use: {}", left.join(", "));
        Ok(())
    }
}

/// The controllers among a hierarchy's mount options, or its name.
fn controllers(options: &str) -> String {
    let named = options.split(',').find(|o| o.starts_with("name="));
    let plain = options
        .split(',')
        .filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "clone_children" | "noprefix"));
    let plain: Vec<&str> = plain.filter(|o| !o.contains('=')).collect();
    named.map_or_else(|| plain.join(","), |name| format!("none,{name}"))
}

/// Lets children of `group` have all controllers there are.
pub fn delegate(group: &Path) -> Result<()> {
    let there = fs::read_to_string(group.join("cgroup.controllers"))
        .with_context(|| format!("cannot read controllers of {}", group.display()))?;
    let wanted = V2_CONTROLLERS
        .iter()
        .filter(|c| there.split_whitespace().any(|t| t == **c));
    let wanted = wanted.map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ");
    let path = group.join("cgroup.subtree_control");
    fs::write(&path, &wanted).with_context(|| format!("cannot write {wanted} to {}", path.display()))
}

pub fn move_self(group: &Path) -> Result<()> {
    let path = group.join("cgroup.procs");
    fs::write(&path, std::process::id().to_string()).with_context(|| format!("cannot enter {}", group.display()))
}

/// Children first; what is still in use stays.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    fs::remove_dir(group).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_machine_is_v1_with_its_named_hierarchy() {
        let text = "\
30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
31 29 0:27 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let h = |folder: &str, options: &str| Hierarchy {
            folder: folder.into(),
            options: options.into(),
        };
        let expected = Layout::V1(vec![h("cpu,cpuacct", "cpu,cpuacct"), h("systemd", "none,name=systemd")]);
        assert_eq!(Layout::parse(text).unwrap(), expected);
    }

    #[test]
    fn unified_machine_is_v2() {
        let text = "32 29 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Layout::parse(text).unwrap(), Layout::V2);
    }

    #[test]
    fn machine_without_control_groups_is_named() {
        assert!(Layout::parse("1 0 8:1 / / rw - ext4 /dev/vda rw\n").is_err());
    }
}
