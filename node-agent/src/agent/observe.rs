//! Box 2: what is read. A [`Sample`] is the whole of it as one plain value, errors as data; nothing here judges.
//!
//! Each source runs by itself and hands over its newest reading; a source that hangs only leaves its reading to age.

pub mod gpu;
pub mod host;
pub mod nvml;
pub mod pod_resources;
pub mod replay;
pub mod source;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use gpu::GpuReading;
pub use host::HostReading;
pub use pod_resources::PodReading;

/// Everything the agent knows at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// When it was put together.
    pub now: Time,
    /// When the agent started: until the first reading, how long there has been none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Newest reading of the GPUs. Absent until there is one.
    #[serde(default, with = "shared", skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Arc<GpuReading>>,
    /// XID errors since the sample before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xids: Vec<XidEvent>,
    /// Newest reading of the machine.
    #[serde(default, with = "shared", skip_serializing_if = "Option::is_none")]
    pub host: Option<Arc<HostReading>>,
    /// Newest answer of the kubelet.
    #[serde(default, with = "shared", skip_serializing_if = "Option::is_none")]
    pub pods: Option<Arc<PodReading>>,
    /// Newest comparison with another clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockReading>,
}

/// One XID error.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct XidEvent {
    /// When it was delivered.
    pub at: Time,
    /// GPU it came from; absent when the GPU could no longer say its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its number.
    pub xid: u32,
}

/// How far this machine's clock is from another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockReading {
    /// When it was compared.
    pub taken_at: Time,
    /// Our clock minus theirs.
    pub offset_millis: i64,
    /// Half the width of what the comparison cannot tell apart.
    pub error_millis: i64,
}

impl Sample {
    /// A sample with nothing in it yet.
    pub fn empty(now: Time) -> Self {
        Self {
            now,
            started_at: None,
            gpus: None,
            xids: Vec::new(),
            host: None,
            pods: None,
            clock: None,
        }
    }

    /// Age of the newest GPU reading; without one, how long it has been waited for.
    pub fn gpu_age_seconds(&self) -> f64 {
        let reading = self.gpus.as_ref().map(|reading| &reading.taken_at);
        reading
            .or(self.started_at.as_ref())
            .map_or(0.0, |since| seconds_between(since, &self.now))
    }
}

/// A reading is shared in memory and a plain value in text.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Option<Arc<T>>, out: S) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(out)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        text: D,
    ) -> Result<Option<Arc<T>>, D::Error> {
        Ok(Option::<T>::deserialize(text)?.map(Arc::new))
    }
}

/// The clock, read. The only place of the agent that does.
#[expect(
    clippy::disallowed_methods,
    reason = "observe stamps now; everything behind it takes the time as a value"
)]
pub fn now() -> Time {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time(Timestamp::from_millisecond(since_epoch.as_millis() as i64).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Seconds from one time to a later one; 0 when the clock went backwards.
pub fn seconds_between(from: &Time, to: &Time) -> f64 {
    let millis = to.0.as_millisecond() - from.0.as_millisecond();
    millis.max(0) as f64 / 1000.0
}
