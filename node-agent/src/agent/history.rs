//! Box 3, memory: what outlives a sample and a restart of the agent. [`History::remember`] folds a sample into it, purely.
//!
//! A restart must not heal: a GPU that was seen and is gone stays lost, an XID error stays reported, until the GPU answers
//! again, the machine boots, or a person says it has fewer GPUs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::{Deserialize, Serialize};

use super::evaluate::freshness::{Freshness, freshness};
use super::observe::gpu::{ClocksEventReason, GpuReading, GpuSample, GpuState, MAX_GPUS};
use super::observe::{Sample, XidEvent};
use super::policy::Policy;

/// Version of the file.
pub const VERSION: u32 = 1;
/// Different XID errors kept per GPU.
const MAX_XIDS: usize = 32;

/// What outlives a sample.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Version of this shape.
    pub version: u32,
    /// Boot all of it is about.
    #[serde(rename = "bootID", default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// GPUs that were seen, by UUID.
    #[serde(default)]
    pub gpus: BTreeMap<String, KnownGpu>,
    /// Conditions as last reported, for their transition times.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            version: VERSION,
            boot_id: None,
            gpus: BTreeMap::new(),
            conditions: Vec::new(),
        }
    }
}

/// A GPU that was seen.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KnownGpu {
    /// NVML index when it was last readable.
    pub index: u32,
    /// Product.
    pub product: Option<String>,
    /// Memory.
    pub memory_mebibytes: Option<u64>,
    /// PCI address.
    #[serde(rename = "pciBusID")]
    pub pci_bus_id: Option<String>,
    /// Since when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Time>,
    /// Not seen since the machine booted: the first answer of NVML decides whether it still belongs to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub awaited: bool,
    /// XID errors since boot, by number.
    pub xids: BTreeMap<u32, XidRecord>,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_xid: Option<u32>,
    /// Since when each finding is there, by rule.
    pub findings: BTreeMap<String, Time>,
    /// Since when clocks are held back, by reason. Not kept over a restart: a few seconds decide here.
    #[serde(skip)]
    pub slowed_since: BTreeMap<ClocksEventReason, Time>,
}

/// One kind of XID error on one GPU.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct XidRecord {
    /// Last time.
    pub last: Time,
    /// How often.
    pub count: u64,
}

impl History {
    /// Folds a sample in.
    #[must_use]
    pub fn remember(&self, sample: &Sample, policy: &Policy) -> Self {
        let mut next = self.clone();
        next.note_boot(sample);
        if let Freshness::Fresh(reading) = freshness(sample, policy) {
            next.note_reading(reading, &sample.now);
        }
        for event in &sample.xids {
            next.note_xid(event);
        }
        next.forget_by_count(policy);
        next
    }

    /// The GPUs of a reading with the names they are known by: one that was never readable gets one from its index.
    pub fn named<'a>(&self, reading: &'a GpuReading) -> Vec<(String, &'a GpuSample)> {
        let readable: BTreeSet<&str> = reading.gpus.iter().filter_map(|gpu| gpu.uuid.as_deref()).collect();
        let known_at = |index: u32| {
            let mut known = self.gpus.iter();
            known.find(|(uuid, gpu)| gpu.index == index && !readable.contains(uuid.as_str()))
        };
        reading
            .gpus
            .iter()
            .map(|gpu| {
                let name = match (&gpu.uuid, known_at(gpu.index)) {
                    (Some(uuid), _) | (None, Some((uuid, _))) => uuid.clone(),
                    (None, None) => unread_name(gpu.index),
                };
                (name, gpu)
            })
            .collect()
    }

    fn note_boot(&mut self, sample: &Sample) {
        let Some(boot_id) = sample.host.as_ref().and_then(|host| host.boot_id.as_ref()) else {
            return;
        };
        if self.boot_id.as_ref() == Some(boot_id) {
            return;
        }
        if self.boot_id.is_some() {
            for gpu in self.gpus.values_mut() {
                gpu.awaited = true;
                gpu.lost_since = None;
                gpu.xids.clear();
                gpu.last_xid = None;
                gpu.slowed_since.clear();
            }
        }
        self.boot_id = Some(boot_id.clone());
    }

    fn note_reading(&mut self, reading: &GpuReading, now: &Time) {
        let named = self.named(reading);
        for (uuid, sample) in &named {
            if sample.uuid.is_some() {
                self.gpus.remove(&unread_name(sample.index));
            }
            if self.gpus.len() < MAX_GPUS || self.gpus.contains_key(uuid) {
                self.gpus.entry(uuid.clone()).or_default().note_sample(sample, now);
            }
        }
        let listed: BTreeSet<&String> = named.iter().map(|(uuid, _)| uuid).collect();
        self.gpus.retain(|uuid, gpu| listed.contains(uuid) || !gpu.awaited);
        for (uuid, gpu) in &mut self.gpus {
            gpu.awaited = false;
            if !listed.contains(uuid) {
                gpu.slowed_since.clear();
                gpu.lost_since.get_or_insert_with(|| now.clone());
            }
        }
    }

    /// An error whose GPU could not say its name belongs to the ones that are gone.
    fn note_xid(&mut self, event: &XidEvent) {
        for (uuid, gpu) in &mut self.gpus {
            let its = match &event.uuid {
                Some(named) => named == uuid,
                None => gpu.lost_since.is_some(),
            };
            if its {
                gpu.note_xid(event);
            }
        }
    }

    /// A person said how many GPUs there are: those that are gone beyond that number are forgotten.
    fn forget_by_count(&mut self, policy: &Policy) {
        let Some(expected) = policy.expected_gpus else { return };
        let present = self.gpus.values().filter(|gpu| gpu.lost_since.is_none()).count();
        if present >= expected as usize {
            self.gpus.retain(|_, gpu| gpu.lost_since.is_none());
        }
    }
}

impl KnownGpu {
    fn note_sample(&mut self, sample: &GpuSample, now: &Time) {
        self.index = sample.index;
        self.product = sample.product.clone().or_else(|| self.product.take());
        self.memory_mebibytes = sample.memory_mebibytes.or(self.memory_mebibytes);
        self.pci_bus_id = sample.pci_bus_id.clone().or_else(|| self.pci_bus_id.take());
        match sample.state {
            GpuState::Ok => self.lost_since = None,
            GpuState::Lost => {
                self.lost_since.get_or_insert_with(|| now.clone());
            }
            GpuState::ResetRequired | GpuState::Unreadable => {}
        }
        let held_back = sample.fast.clocks_event_reasons.as_deref().unwrap_or_default();
        self.slowed_since.retain(|reason, _| held_back.contains(reason));
        for reason in held_back {
            self.slowed_since.entry(*reason).or_insert_with(|| now.clone());
        }
    }

    fn note_xid(&mut self, event: &XidEvent) {
        self.last_xid = Some(event.xid);
        if self.xids.len() >= MAX_XIDS && !self.xids.contains_key(&event.xid) {
            return;
        }
        let record = self.xids.entry(event.xid).or_insert_with(|| XidRecord {
            last: event.at.clone(),
            count: 0,
        });
        record.last = event.at.clone();
        record.count += 1;
    }
}

fn unread_name(index: u32) -> String {
    format!("unread-{index}")
}
