//! What clusters share on one machine: which ids are taken, and kernel settings changed by the first and put back by
//! the last. One file under a lock; lost at a reboot, as the settings are.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    plan::ClusterId,
    process::{read_json, write_json},
};

const FOLDER: &str = "/run/gonka-fleet-e2e";

/// Settings that have to be at least this. Inotify's limits are per user, and every kubelet and containerd takes some.
const AT_LEAST: [(&str, u64); 2] = [
    ("fs/inotify/max_user_instances", 2048),
    ("fs/inotify/max_user_watches", 524_288),
];
/// Settings the kubelet changes by itself.
const CHANGED_BY_KUBELET: [&str; 5] = [
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    boot: String,
    /// Values before the first cluster came.
    settings: BTreeMap<String, String>,
    /// Run directories by cluster.
    clusters: BTreeMap<String, PathBuf>,
}

/// The registry of this machine, locked against all other harnesses while it lives.
#[derive(Debug)]
pub struct Registry {
    file: PathBuf,
    sysctl: PathBuf,
    state: State,
    /// Dropped last, so that whatever is done on the way out is done under it.
    _lock: File,
}

impl Registry {
    pub fn open() -> Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the boot id")?;
        Self::open_at(Path::new(FOLDER), Path::new("/proc/sys"), boot.trim())
    }

    fn open_at(folder: &Path, sysctl: &Path, boot: &str) -> Result<Self> {
        let lock = lock(folder)?;
        let file = folder.join("machine.json");
        let state: State = if file.exists() {
            read_json(&file)?
        } else {
            State::default()
        };
        // Whatever ran before a reboot is gone, and so are its settings.
        let state = if state.boot == boot {
            state
        } else {
            State {
                boot: boot.into(),
                ..State::default()
            }
        };
        Ok(Self {
            file,
            sysctl: sysctl.into(),
            state,
            _lock: lock,
        })
    }

    pub fn run_dir_of(&self, id: ClusterId) -> Option<&Path> {
        self.state.clusters.get(&id.to_string()).map(PathBuf::as_path)
    }

    /// Ids and run directories, in order.
    pub fn clusters(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.state
            .clusters
            .iter()
            .map(|(id, path)| (id.as_str(), path.as_path()))
    }

    /// Enters a cluster; the first one's entry notes the machine's settings.
    pub fn claim(&mut self, id: ClusterId, run_dir: &Path) -> Result<()> {
        if self.state.clusters.is_empty() {
            self.state.settings = self.read_settings();
        }
        self.state.clusters.insert(id.to_string(), run_dir.into());
        // Noted before anything is changed, so that a crash in between loses nothing.
        write_json(&self.file, &self.state)?;
        for (name, least) in AT_LEAST {
            let path = self.sysctl.join(name);
            let now: u64 = fs::read_to_string(&path)
                .ok()
                .and_then(|t| t.trim().parse().ok())
                .unwrap_or(u64::MAX);
            if now < least {
                fs::write(&path, least.to_string()).with_context(|| format!("cannot set {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Strikes a cluster out; with the last one the settings go back to what they were.
    pub fn release(&mut self, id: ClusterId) -> Result<()> {
        self.state.clusters.remove(&id.to_string());
        if self.state.clusters.is_empty() {
            for (name, value) in &self.state.settings {
                let path = self.sysctl.join(name);
                fs::write(&path, value).with_context(|| format!("cannot put {} back to {value}", path.display()))?;
            }
            self.state.settings.clear();
        }
        write_json(&self.file, &self.state)
    }

    fn read_settings(&self) -> BTreeMap<String, String> {
        let names = AT_LEAST.iter().map(|(name, _)| *name).chain(CHANGED_BY_KUBELET);
        let read = |name: &str| {
            fs::read_to_string(self.sysctl.join(name))
                .ok()
                .map(|v| v.trim().to_owned())
        };
        names
            .filter_map(|name| read(name).map(|value| (name.to_owned(), value)))
            .collect()
    }
}

/// Nothing is left on a machine without clusters, not even by a look.
impl Drop for Registry {
    fn drop(&mut self) {
        if let (true, Some(folder)) = (self.state.clusters.is_empty(), self.file.parent()) {
            // What stays is empty, and the next look removes it.
            fs::remove_dir_all(folder).ok();
        }
    }
}

/// Waits for the lock. The last cluster takes the folder away, so whoever waited may hold the lock of a file that is
/// gone, and has to begin again.
fn lock(folder: &Path) -> Result<File> {
    loop {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}; run as root", folder.display()))?;
        let path = folder.join("lock");
        let file = match File::create(&path) {
            // The folder went away in between.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.with_context(|| format!("cannot open {}", path.display()))?,
        };
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        let held = file.metadata().context("cannot look at the lock")?.ino();
        if fs::metadata(&path).is_ok_and(|there| there.ino() == held) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ClusterId {
        ClusterId::try_from(n).unwrap()
    }

    fn world(panic: &str, instances: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [("kernel/panic", panic), ("fs/inotify/max_user_instances", instances)] {
            let path = dir.path().join("sys").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        dir
    }

    fn open(dir: &tempfile::TempDir, boot: &str) -> Registry {
        Registry::open_at(&dir.path().join("reg"), &dir.path().join("sys"), boot).unwrap()
    }

    fn setting(dir: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(dir.path().join("sys").join(name))
            .unwrap()
            .trim()
            .to_owned()
    }

    #[test]
    fn settings_go_back_with_the_last_cluster_and_not_before() {
        let dir = world("0\n", "128\n");
        open(&dir, "b").claim(id(1), Path::new("/a")).unwrap();
        assert_eq!(setting(&dir, "fs/inotify/max_user_instances"), "2048");
        fs::write(dir.path().join("sys/kernel/panic"), "10").unwrap();
        open(&dir, "b").claim(id(2), Path::new("/b")).unwrap();
        open(&dir, "b").release(id(1)).unwrap();
        assert_eq!(setting(&dir, "kernel/panic"), "10");
        open(&dir, "b").release(id(2)).unwrap();
        assert_eq!(setting(&dir, "kernel/panic"), "0");
        assert!(!dir.path().join("reg").exists());
        assert_eq!(setting(&dir, "fs/inotify/max_user_instances"), "128");
    }

    #[test]
    fn a_setting_that_is_high_enough_is_left_alone() {
        let dir = world("0", "9999");
        open(&dir, "b").claim(id(1), Path::new("/a")).unwrap();
        assert_eq!(setting(&dir, "fs/inotify/max_user_instances"), "9999");
    }

    #[test]
    fn a_reboot_forgets_clusters_and_does_not_restore_their_settings() {
        let dir = world("0", "128");
        open(&dir, "first").claim(id(1), Path::new("/a")).unwrap();
        fs::write(dir.path().join("sys/kernel/panic"), "5").unwrap();
        let mut after = open(&dir, "second");
        assert_eq!(after.run_dir_of(id(1)), None);
        after.release(id(1)).unwrap();
        assert_eq!(setting(&dir, "kernel/panic"), "5");
    }
}
