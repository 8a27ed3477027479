//! The unmodified agent over the simulated NVML library: what the file says is what it sees, reports and remembers.

#[path = "agent_support/process.rs"]
mod agent_support;

use agent_support::Machine;
use node_agent::agent::observe::Sample;
use node_agent::agent::observe::gpu::{ClocksEventReason, GpuState, Library};

const TWO: &str = "gpu 0-1: H200\n";

fn observe(machine: &Machine) -> Sample {
    let output = machine.output(&["observe", "--once", "--disk", "/"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_yaml::from_slice(&output.stdout).expect("observe prints a sample")
}

fn check(machine: &Machine, devices: Option<&str>, more: &[&str]) -> (i32, serde_json::Value) {
    let mut command = machine.command(&["check", "--json"]);
    command.args(more);
    if let Some(devices) = devices {
        command.env("NVIDIA_VISIBLE_DEVICES", devices);
    }
    let output = command.output().expect("node-agent can be run");
    let verdict = serde_json::from_slice(&output.stdout).expect("check prints JSON");
    (output.status.code().expect("it ends by itself"), verdict)
}

#[test]
fn observe_prints_what_the_library_and_the_machine_say() {
    let machine = Machine::new(
        "driver: 570.133.20\ngpu 0-7: H200\ngpu 2:\n  temperature: 61\n  power-watts: 642\n  throttle: sw-power-cap, hw-slowdown\n",
    );
    let sample = observe(&machine);
    let reading = sample.gpus.expect("the GPUs were read");
    assert!(
        matches!(&reading.library, Library::Present { driver_version, .. } if driver_version == "570.133.20"),
        "{:?}",
        reading.library
    );
    assert_eq!(reading.gpus.len(), 8);
    assert!(reading.call_errors.is_empty(), "{:?}", reading.call_errors);
    let gpu = &reading.gpus[2];
    assert_eq!(gpu.state, GpuState::Ok);
    assert_eq!(gpu.product.as_deref(), Some("NVIDIA H200"));
    assert_eq!(gpu.memory_mebibytes, Some(143_771));
    assert_eq!(gpu.fast.temperature_celsius, Some(61));
    assert_eq!(gpu.fast.memory_temperature_celsius, Some(38));
    assert_eq!(gpu.fast.power_milliwatts, Some(642_000));
    assert_eq!(
        gpu.fast.clocks_event_reasons.as_deref(),
        Some([ClocksEventReason::SwPowerCap, ClocksEventReason::HwSlowdown].as_slice())
    );
    let slow = gpu.slow.as_ref().expect("a first reading is a full one");
    assert_eq!(slow.ecc.as_ref().and_then(|ecc| ecc.volatile_uncorrected), Some(0));
    assert_eq!(
        slow.nvlinks.map(|links| (links.present, links.connected)),
        Some((18, 18))
    );
    let host = sample.host.expect("the machine was looked at");
    assert!(host.boot_id.is_some() && host.cpus.is_some_and(|cpus| cpus > 0));
    assert!(host.disks[0].size_bytes > 0);
}

#[test]
fn failing_calls_are_data_and_cost_no_other_value() {
    let machine = Machine::new(
        "gpu 0-3: H200\ngpu 0:\n  error: nvmlDeviceGetTemperature=UNKNOWN, nvmlDeviceGetPowerUsage=NOT_SUPPORTED\ngpu 1:\n  error: RESET_REQUIRED\ngpu 2:\n  error: UNKNOWN\ngpu 3:\n  state: lost\n",
    );
    let reading = observe(&machine).gpus.expect("the GPUs were read");
    let gpu = &reading.gpus[0];
    assert_eq!(gpu.state, GpuState::Ok);
    assert_eq!(gpu.fast.temperature_celsius, None);
    assert_eq!(gpu.fast.power_milliwatts, None);
    assert!(gpu.fast.sm_clock_mhz.is_some());
    assert_eq!(gpu.errors.len(), 1, "not supported is no error: {:?}", gpu.errors);
    assert_eq!(gpu.errors[0].call, "nvmlDeviceGetTemperature");
    assert_eq!(gpu.errors[0].error, "UNKNOWN");
    let states: Vec<GpuState> = reading.gpus.iter().map(|gpu| gpu.state).collect();
    assert_eq!(
        states,
        [
            GpuState::Ok,
            GpuState::ResetRequired,
            GpuState::Unreadable,
            GpuState::Lost
        ]
    );
}

#[test]
fn a_missing_library_is_reported_and_not_fatal() {
    let machine = Machine::new(TWO);
    std::fs::remove_file(machine.gpus()).expect("the file was there");
    let reading = observe(&machine).gpus.expect("also nothing is a reading");
    assert!(
        matches!(reading.library, Library::Absent { .. }),
        "{:?}",
        reading.library
    );

    let agent = machine.start(&[]);
    agent.wait_for("gonka_agent_nvml_up", "0");
    agent.wait_for("gonka_agent_condition{type=\"Ready\"}", "-1");
    assert_eq!(agent.ready().0, 200);
    machine.set(TWO);
    agent.wait_for("gonka_agent_nvml_up", "1");
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "1");
    agent.stop();
}

#[test]
fn faults_become_findings_and_go_away_with_them() {
    let machine = Machine::new(TWO);
    let agent = machine.start(&[]);
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "1");
    agent.wait_for("gonka_agent_gpus{health=\"Healthy\"}", "2");

    machine.set("gpu 0-1: H200\ngpu 1:\n  ecc-volatile-dram-uncorrected: 2\n  remap-pending: true\n");
    agent.wait_for("gonka_agent_gpu_finding{gpu=\"1\",", "2");
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "0");
    let page = agent.page();
    assert!(page.contains("rule=\"EccUncorrectable\"} 2"), "{page}");
    assert!(page.contains("rule=\"RowRemapPending\"} 1"), "{page}");
    assert!(page.contains("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{gpu=\"1\","), "{page}");

    machine.set(TWO);
    agent.wait_gone("gonka_agent_gpu_finding{");
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "1");
    agent.stop();
}

#[test]
fn xid_errors_arrive_as_events_and_outlive_a_restart() {
    let machine = Machine::new(TWO);
    let agent = machine.start(&[]);
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "1");
    machine.set("gpu 0-1: H200\ngpu 0:\n  xid: 31\ngpu 1:\n  xid: 48\n");
    agent.wait_for("gonka_agent_xid_errors_total{gpu=\"1\",", "1");
    agent.wait_for("gonka_agent_gpu_finding{gpu=\"1\",", "2");
    agent.wait_for("gonka_agent_gpu_finding{gpu=\"0\",", "1");
    agent.wait_until("the last XID error", |page| {
        page.lines()
            .any(|line| line.starts_with("DCGM_FI_DEV_XID_ERRORS{gpu=\"1\"") && line.ends_with(" 48"))
    });
    let saved = machine.state().join("state.json");
    agent.wait_until("the state file", |_| {
        std::fs::read_to_string(&saved).is_ok_and(|text| text.contains("\"48\""))
    });
    agent.stop();

    let agent = machine.start(&[]);
    agent.wait_for("gonka_agent_gpu_finding{gpu=\"1\",", "2");
    agent.stop();
}

#[test]
fn a_lost_gpu_stays_lost_over_a_restart_until_it_answers() {
    let machine = Machine::new(TWO);
    let agent = machine.start(&[]);
    agent.wait_for("gonka_agent_gpus{health=\"Healthy\"}", "2");
    machine.set("gpu 0-1: H200\ngpu 1:\n  state: lost\n  xid: 79\n");
    agent.wait_for("gonka_agent_gpus{health=\"Unhealthy\"}", "1");
    assert!(agent.page().contains("rule=\"FallenOffBus\"} 2"));
    let saved = machine.state().join("state.json");
    agent.wait_until("the state file", |_| {
        std::fs::read_to_string(&saved).is_ok_and(|text| text.contains("lostSince"))
    });
    agent.stop();

    machine.set("gpu 0-1: H200\ngpu 1:\n  state: absent\n");
    let agent = machine.start(&[]);
    agent.wait_for("gonka_agent_nvml_up", "1");
    agent.wait_for("gonka_agent_gpus{health=\"Unhealthy\"}", "1");

    machine.set(TWO);
    agent.wait_until("the GPU answers again", |page| !page.contains("FallenOffBus"));
    agent.stop();
}

#[test]
fn a_driver_that_hangs_stops_the_readings_and_not_the_agent() {
    let machine = Machine::new(TWO);
    let agent = machine.start(&["--stale-after", "1s"]);
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "1");
    assert_eq!(agent.ready().0, 200);

    machine.set("gpu 0-1: H200\ngpu 0:\n  hang: nvmlDeviceGetUtilizationRates=60000\n");
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "-1");
    agent.wait_for("gonka_agent_condition{type=\"Stalled\"}", "1");
    let (status, why) = agent.ready();
    assert_eq!(status, 503, "{why}");
    assert_eq!(agent_support::get(agent.probes, "/healthz").0, 200);
    agent.wait_until("the age grows", |page| {
        let age = page
            .lines()
            .find_map(|line| line.strip_prefix("gonka_agent_sample_age_seconds "));
        age.and_then(|age| age.parse::<f64>().ok()).is_some_and(|age| age > 2.0)
    });

    machine.set(TWO);
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "1");
    assert_eq!(agent.ready().0, 200);

    machine.set("gpu 0-1: H200\ngpu 0:\n  hang: nvmlDeviceGetUtilizationRates=60000\n");
    agent.wait_for("gonka_agent_condition{type=\"GpusHealthy\"}", "-1");
    agent.stop();
}

#[test]
fn check_tells_fit_from_unfit_from_unknown() {
    let machine = Machine::new("gpu 0-3: H200\n");
    let (code, verdict) = check(&machine, None, &[]);
    assert_eq!((code, verdict["verdict"].as_str()), (0, Some("Passed")), "{verdict}");
    assert_eq!(verdict["gpus"].as_array().map(Vec::len), Some(4));
    let uuid = |index: usize| verdict["gpus"][index]["uuid"].as_str().unwrap_or_default().to_owned();
    let (first, second) = (uuid(0), uuid(1));

    machine.set("gpu 0-3: H200\ngpu 1:\n  remap-failure: true\n");
    let (code, verdict) = check(&machine, None, &[]);
    assert_eq!((code, verdict["verdict"].as_str()), (1, Some("Failed")), "{verdict}");
    assert_eq!(verdict["gpus"][1]["findings"][0]["rule"], "RowRemapFailure");

    let (code, verdict) = check(&machine, Some(&first), &[]);
    assert_eq!(
        (code, verdict["gpus"].as_array().map(Vec::len)),
        (0, Some(1)),
        "{verdict}"
    );
    let (code, _) = check(&machine, Some(&format!("{first},{second}")), &[]);
    assert_eq!(code, 1);
    let (code, verdict) = check(&machine, Some(&first), &["--expected-gpus", "2"]);
    assert_eq!(code, 1, "{verdict}");
    let (code, verdict) = check(&machine, Some("none"), &[]);
    assert_eq!((code, verdict["verdict"].as_str()), (2, Some("Unknown")), "{verdict}");

    machine.set("hang: nvmlDeviceGetCount=60000\ngpu 0-3: H200\n");
    let (code, verdict) = check(&machine, None, &["--timeout", "1s"]);
    assert_eq!((code, verdict["verdict"].as_str()), (2, Some("Unknown")), "{verdict}");
    std::fs::remove_file(machine.gpus()).expect("the file was there");
    let (code, verdict) = check(&machine, None, &[]);
    assert_eq!((code, verdict["verdict"].as_str()), (2, Some("Unknown")), "{verdict}");
}

#[test]
fn what_observe_prints_can_be_replayed() {
    let machine = Machine::new("gpu 0-1: H100\ngpu 1:\n  remap-failure: true\n");
    let output = machine.output(&["observe", "--once", "--disk", "/"]);
    let file = machine.folder.path().join("samples.yaml");
    std::fs::write(&file, &output.stdout).expect("the sample can be kept");
    std::fs::remove_file(machine.gpus()).expect("the file was there");
    let agent = machine.start(&["--replay", file.to_str().expect("a path of ours")]);
    agent.wait_for("gonka_agent_gpus{health=\"Unhealthy\"}", "1");
    agent.wait_for("gonka_agent_gpus{health=\"Healthy\"}", "1");
    agent.stop();
}
