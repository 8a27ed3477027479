//! Box 3, its parameters: the thresholds of the rules as one plain value. Reads nothing.

use serde::{Deserialize, Serialize};

/// Thresholds of the rules. The defaults are what runs; tests and people may set others.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// A GPU reading older than this says nothing about now.
    pub stale_seconds: u32,
    /// How long clocks must be held back before it is a finding: a slowdown of a few seconds is normal work of the firmware.
    pub slowdown_seconds: u32,
    /// How long after an application's XID error the finding stays.
    pub application_xid_seconds: u32,
    /// How long after a hardware XID error the GPU must be quiet, the driver asking for no recovery, before it counts as healed.
    pub hardware_xid_seconds: u32,
    /// Free space and free inodes below this share of a disk: DiskOk is False.
    pub disk_free_basis_points: u32,
    /// Largest distance to the API server's clock. Its `Date` header has whole seconds: less cannot be told apart.
    pub clock_offset_millis: u32,
    /// GPUs the machine has, when a person says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_gpus: Option<u32>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stale_seconds: 30,
            slowdown_seconds: 30,
            application_xid_seconds: 600,
            hardware_xid_seconds: 3600,
            disk_free_basis_points: 500,
            clock_offset_millis: 2000,
            expected_gpus: None,
        }
    }
}
