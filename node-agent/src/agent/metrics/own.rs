//! Box 4: what the agent says about itself and its findings, `gonka_agent_…`. Labels are bounded: GPUs, rules, NVML calls.

use crds::conditions::ConditionStatus;
use crds::gpu_node::GpuHealth;

use super::{Page, View, escaped};
use crate::agent::observe::gpu::Library;

const HEALTHS: [GpuHealth; 4] = [
    GpuHealth::Healthy,
    GpuHealth::Degraded,
    GpuHealth::Unhealthy,
    GpuHealth::Unknown,
];

pub(super) fn render(view: &View<'_>, page: &mut Page) {
    sampling(view, page);
    gpus(view, page);
    conditions(view, page);
    machine(view, page);
    publishing(view, page);
}

fn sampling(view: &View<'_>, page: &mut Page) {
    let name = "gonka_agent_sample_age_seconds";
    page.family(name, "gauge", "Age of the newest reading of the GPUs.");
    page.line(name, "", view.sample.gpu_age_seconds());
    let Some(reading) = view.sample.gpus.as_deref() else {
        return;
    };
    let name = "gonka_agent_sample_duration_seconds";
    page.family(name, "gauge", "How long the newest reading of the GPUs took.");
    page.line(name, "", reading.duration_micros as f64 / 1e6);
    let name = "gonka_agent_nvml_up";
    page.family(name, "gauge", "1 when NVML is loaded and answers.");
    page.line(name, "", u8::from(matches!(reading.library, Library::Present { .. })));
    let name = "gonka_agent_nvml_call_errors_total";
    page.family(name, "counter", "NVML calls that failed, by function and error.");
    for counted in &reading.call_errors {
        let labels = format!(
            "call=\"{}\",error=\"{}\"",
            escaped(&counted.call),
            escaped(&counted.error)
        );
        page.line(name, &labels, counted.count);
    }
}

fn gpus(view: &View<'_>, page: &mut Page) {
    let gpus = &view.evaluation.gpus;
    let name = "gonka_agent_gpus";
    page.family(name, "gauge", "Known GPUs by health.");
    for health in HEALTHS {
        let count = gpus.iter().filter(|gpu| gpu.health == health).count();
        page.line(name, &format!("health=\"{health}\""), count);
    }
    let name = "gonka_agent_gpu_finding";
    page.family(name, "gauge", "What a rule found: 1 to look at, 2 blocking.");
    for gpu in gpus {
        for found in &gpu.findings {
            let labels = format!("{},rule=\"{}\"", gpu_labels(gpu.index, &gpu.uuid), escaped(&found.rule));
            page.line(name, &labels, if found.blocking { 2 } else { 1 });
        }
    }
    let name = "gonka_agent_xid_errors_total";
    page.family(name, "counter", "XID errors since boot, by number.");
    for (uuid, known) in &view.history.gpus {
        for (xid, record) in &known.xids {
            page.line(
                name,
                &format!("{},xid=\"{xid}\"", gpu_labels(known.index, uuid)),
                record.count,
            );
        }
    }
    let Some(pods) = view.sample.pods.as_deref() else {
        return;
    };
    let name = "gonka_agent_pod_resources_up";
    page.family(name, "gauge", "1 when the kubelet says which pod holds which GPU.");
    page.line(name, "", u8::from(pods.error.is_none()));
    if pods.error.is_some() {
        return;
    }
    let name = "gonka_agent_gpu_allocated";
    page.family(name, "gauge", "1 when a pod holds the GPU.");
    for gpu in gpus {
        let held = pods.allocations.iter().any(|allocation| allocation.device == gpu.uuid);
        page.line(name, &gpu_labels(gpu.index, &gpu.uuid), u8::from(held));
    }
}

fn conditions(view: &View<'_>, page: &mut Page) {
    let name = "gonka_agent_condition";
    page.family(
        name,
        "gauge",
        "Conditions of this GpuNode: 1 True, 0 False, -1 Unknown.",
    );
    for (condition, judgement) in &view.evaluation.judgements {
        let value = match judgement.status {
            ConditionStatus::True => 1,
            ConditionStatus::False => 0,
            ConditionStatus::Unknown => -1,
        };
        page.line(name, &format!("type=\"{condition}\""), value);
    }
}

fn machine(view: &View<'_>, page: &mut Page) {
    if let Some(clock) = &view.sample.clock {
        let name = "gonka_agent_clock_offset_seconds";
        page.family(
            name,
            "gauge",
            "This clock minus the API server's, known to half a second.",
        );
        page.line(name, "", clock.offset_millis as f64 / 1000.0);
    }
    let Some(host) = view.sample.host.as_deref() else {
        return;
    };
    let read = || host.disks.iter().filter(|disk| disk.error.is_none());
    let name = "gonka_agent_disk_free_bytes";
    page.family(name, "gauge", "Free bytes of the file system a path is on.");
    for disk in read() {
        page.line(name, &format!("path=\"{}\"", escaped(&disk.path)), disk.free_bytes);
    }
    let name = "gonka_agent_disk_size_bytes";
    page.family(name, "gauge", "Size of the file system a path is on.");
    for disk in read() {
        page.line(name, &format!("path=\"{}\"", escaped(&disk.path)), disk.size_bytes);
    }
}

fn publishing(view: &View<'_>, page: &mut Page) {
    let name = "gonka_agent_publish_total";
    page.family(name, "counter", "Requests to the API server, by outcome.");
    for (outcome, count) in [
        ("written", view.outcomes.written),
        ("read", view.outcomes.read),
        ("absent", view.outcomes.absent),
        ("failed", view.outcomes.failed),
    ] {
        page.line(name, &format!("outcome=\"{outcome}\""), count);
    }
    let name = "gonka_agent_state_saved";
    page.family(name, "gauge", "1 when the agent's memory is on disk.");
    page.line(name, "", u8::from(view.state_saved));
    let name = "gonka_agent_build_info";
    page.family(name, "gauge", "Version of the agent.");
    page.line(name, concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
}

fn gpu_labels(index: u32, uuid: &str) -> String {
    format!("gpu=\"{index}\",uuid=\"{}\"", escaped(uuid))
}
