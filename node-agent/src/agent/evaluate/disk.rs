//! Condition DiskOk: room and inodes on the disks that were named.

use crds::conditions::{ConditionStatus, Reason};

use super::Judgement;
use crate::agent::observe::host::DiskReading;
use crate::agent::observe::{HostReading, Sample};
use crate::agent::policy::Policy;

/// Every disk must be readable, writable and have room.
pub fn check(sample: &Sample, policy: &Policy) -> Judgement {
    let disks = sample.host.as_deref().map(|host: &HostReading| host.disks.as_slice());
    let Some(disks) = disks.filter(|disks| !disks.is_empty()) else {
        return Judgement::new(ConditionStatus::Unknown, Reason::Pending, "no disk was looked at yet");
    };
    let complaints: Vec<String> = disks.iter().filter_map(|disk| complaint(disk, policy)).collect();
    if !complaints.is_empty() {
        return Judgement::new(ConditionStatus::False, Reason::DiskLow, complaints.join("; "));
    }
    if let Some(unread) = disks.iter().find(|disk| disk.error.is_some()) {
        return Judgement::new(
            ConditionStatus::Unknown,
            Reason::Unreachable,
            format!(
                "{} could not be looked at: {}",
                unread.path,
                unread.error.as_deref().unwrap_or_default()
            ),
        );
    }
    Judgement::good("disks have room")
}

fn complaint(disk: &DiskReading, policy: &Policy) -> Option<String> {
    let low = |free: u64, all: u64| {
        all > 0 && u128::from(free) * 10_000 < u128::from(all) * u128::from(policy.disk_free_basis_points)
    };
    let percent = f64::from(policy.disk_free_basis_points) / 100.0;
    if disk.error.is_some() {
        None
    } else if disk.read_only {
        Some(format!("{} is mounted read-only", disk.path))
    } else if low(disk.free_bytes, disk.size_bytes) {
        Some(format!("{} has less than {percent} % free; clean it up", disk.path))
    } else if low(disk.free_inodes, disk.inodes) {
        Some(format!(
            "{} has less than {percent} % of its inodes free; clean it up",
            disk.path
        ))
    } else {
        None
    }
}
