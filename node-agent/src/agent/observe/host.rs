//! Box 2, the machine around the GPUs: `/proc`, `/sys` and the disks. Text is parsed by the pure functions of [`parse`].

pub mod parse;

use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nix::sys::statvfs::{FsFlags, statvfs};
use serde::{Deserialize, Serialize};

/// Longest file that is read from `/proc` or `/sys`.
const MAX_BYTES: u64 = 256 * 1024;

/// One look at the machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReading {
    /// When.
    pub taken_at: Time,
    /// Kernel release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Changes with every boot.
    #[serde(rename = "bootID", default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Logical processors online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mebibytes: Option<u64>,
    /// Version of the loaded NVIDIA kernel module. Absent when it does not show itself here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvidia_module_version: Option<String>,
    /// The disks that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskReading>,
}

/// One disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReading {
    /// Path on it.
    pub path: String,
    /// Size of the file system.
    #[serde(default)]
    pub size_bytes: u64,
    /// Free for ordinary users.
    #[serde(default)]
    pub free_bytes: u64,
    /// Inodes in all; 0 when the file system does not count them.
    #[serde(default)]
    pub inodes: u64,
    /// Inodes free.
    #[serde(default)]
    pub free_inodes: u64,
    /// Mounted read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where the machine shows itself.
#[derive(Clone, Debug)]
pub struct HostPaths {
    /// Usually `/proc`.
    pub proc: PathBuf,
    /// Usually `/sys`.
    pub sys: PathBuf,
    /// Paths on the disks to watch.
    pub disks: Vec<PathBuf>,
}

impl HostPaths {
    /// Reads all of it. A disk that hangs makes it hang: the caller runs it on a thread of its own.
    pub fn read(&self) -> HostReading {
        let proc = |name: &str| read_text(&self.proc.join(name));
        HostReading {
            taken_at: super::now(),
            kernel: proc("sys/kernel/osrelease").and_then(|text| parse::word(&text)),
            boot_id: proc("sys/kernel/random/boot_id").and_then(|text| parse::word(&text)),
            cpus: read_text(&self.sys.join("devices/system/cpu/online")).and_then(|text| parse::cpu_list(&text)),
            memory_mebibytes: proc("meminfo").and_then(|text| parse::memory_total(&text)),
            nvidia_module_version: proc("driver/nvidia/version").and_then(|text| parse::module_version(&text)),
            disks: self.disks.iter().map(|path| read_disk(path)).collect(),
        }
    }
}

fn read_text(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read_disk(path: &Path) -> DiskReading {
    let mut disk = DiskReading {
        path: path.display().to_string(),
        size_bytes: 0,
        free_bytes: 0,
        inodes: 0,
        free_inodes: 0,
        read_only: false,
        error: None,
    };
    match statvfs(path) {
        Ok(answer) => {
            let block = answer.fragment_size();
            disk.size_bytes = answer.blocks().saturating_mul(block);
            disk.free_bytes = answer.blocks_available().saturating_mul(block);
            disk.inodes = answer.files();
            disk.free_inodes = answer.files_available();
            disk.read_only = answer.flags().contains(FsFlags::ST_RDONLY);
        }
        Err(error) => disk.error = Some(error.desc().to_owned()),
    }
    disk
}
