//! The simulated library under the unmodified `nvml-wrapper`, and its parser beside the device plugin's.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use e2e::device_plugin::inventory::{State, parse};
use nvml_wrapper::{
    Nvml,
    bitmasks::{device::ThrottleReasons, event::EventTypes},
    enum_wrappers::device::{
        Clock, EccCounter, MemoryError, PcieUtilCounter, PerformanceState, TemperatureSensor, TemperatureThreshold,
    },
    enums::event::XidError,
    error::NvmlError,
    structs::device::FieldId,
    sys_exports::field_id::{NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING},
};
use tokio::process::Command;

/// A busy machine may take minutes to compile the library.
const PATIENCE: Duration = Duration::from_secs(900);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("simulated-nvml")
}

async fn finish(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("in time")
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

async fn build(out: &Path) -> PathBuf {
    finish(
        Command::new("make")
            .arg("-C")
            .arg(folder())
            .arg(format!("OUT={}", out.display())),
    )
    .await;
    out.join("libnvidia-ml.so.1")
}

/// Runs one of the ignored tests below in a process of its own, whose environment names the library and the file.
async fn in_own_process(test: &str, library: &Path, file: &Path) {
    let program = std::env::current_exe().unwrap();
    let output = finish(
        Command::new(program)
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env("LD_LIBRARY_PATH", library.parent().unwrap())
            .env("SIMULATED_NVML_FILE", file),
    )
    .await;
    assert!(output.contains("1 passed"), "{output}");
}

#[tokio::test]
async fn the_unmodified_wrapper_reads_every_value_and_fault() {
    let scratch = tempfile::tempdir().unwrap();
    let library = build(scratch.path()).await;
    for test in [
        "a_wrapper_reads_a_healthy_gpu",
        "a_wrapper_sees_faults",
        "a_wrapper_waits_for_events",
    ] {
        let file = scratch.path().join("gpus.yaml");
        let sample = if test == "a_wrapper_reads_a_healthy_gpu" {
            "8xH100.yaml"
        } else {
            "lost-gpu.yaml"
        };
        std::fs::copy(folder().join("samples").join(sample), &file).unwrap();
        in_own_process(test, &library, &file).await;
    }
}

#[test]
#[ignore = "run by the_unmodified_wrapper_reads_every_value_and_fault, in a process of its own"]
fn a_wrapper_reads_a_healthy_gpu() {
    let nvml = Nvml::init().unwrap();
    assert_eq!(nvml.device_count().unwrap(), 8);
    assert_eq!(nvml.sys_driver_version().unwrap(), "570.133.20");
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 12080);
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
    let same = nvml.device_by_uuid(gpu.uuid().unwrap()).unwrap();
    assert_eq!((same.index().unwrap(), gpu.minor_number().unwrap()), (0, 0));
    let memory = gpu.memory_info().unwrap();
    assert_eq!((memory.total, memory.used), (81_559 << 20, 73_400 << 20));
    assert_eq!(memory.total, memory.used + memory.free + memory.reserved);
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 61);
    assert_eq!(gpu.temperature_threshold(TemperatureThreshold::Slowdown).unwrap(), 89);
    assert_eq!(
        (gpu.power_usage().unwrap(), gpu.enforced_power_limit().unwrap()),
        (642_000, 700_000)
    );
    assert_eq!(
        (
            gpu.clock_info(Clock::SM).unwrap(),
            gpu.max_clock_info(Clock::Memory).unwrap()
        ),
        (1755, 2619)
    );
    assert_eq!(gpu.current_throttle_reasons().unwrap(), ThrottleReasons::SW_POWER_CAP);
    assert_eq!(gpu.performance_state().unwrap(), PerformanceState::Zero);
    assert_eq!(gpu.utilization_rates().unwrap().gpu, 97);
    let processes: Vec<u32> = gpu
        .running_compute_processes()
        .unwrap()
        .iter()
        .map(|process| process.pid)
        .collect();
    assert_eq!(processes, [4101, 4102]);
    let pci = gpu.pci_info().unwrap();
    assert_eq!(
        (pci.bus_id.as_str(), pci.pci_device_id),
        ("00000000:19:00.0", 0x2330_10DE)
    );
    assert_eq!(
        (
            gpu.current_pcie_link_gen().unwrap(),
            gpu.current_pcie_link_width().unwrap()
        ),
        (5, 16)
    );
    assert_eq!(gpu.pcie_throughput(PcieUtilCounter::Send).unwrap(), 0);
    assert!(gpu.is_ecc_enabled().unwrap().currently_enabled);
    assert_eq!(
        gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate)
            .unwrap(),
        0
    );
    assert_eq!(gpu.mig_mode().unwrap().current, 0);
    assert!(gpu.is_in_persistent_mode().unwrap());
    assert_eq!(gpu.vbios_version().unwrap(), "96.00.74.00.01");
    assert!((0..18).all(|link| gpu.link_wrapper_for(link).is_active().unwrap()));
    assert!(gpu.total_energy_consumption().is_ok() && !gpu.serial().unwrap().is_empty());
    assert_eq!(gpu.cuda_compute_capability().unwrap().major, 9);
    assert!(matches!(gpu.fan_speed(0), Err(NvmlError::NotSupported)));
    assert!(matches!(nvml.device_by_index(8), Err(NvmlError::InvalidArg)));
}

#[test]
#[ignore = "run by the_unmodified_wrapper_reads_every_value_and_fault, in a process of its own"]
fn a_wrapper_sees_faults() {
    let nvml = Nvml::init().unwrap();
    assert!(matches!(nvml.device_by_index(3), Err(NvmlError::GpuLost)));
    let gpu = nvml.device_by_index(5).unwrap();
    let fields = [
        NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_REMAPPED_FAILURE,
        NVML_FI_DEV_MEMORY_TEMP,
        9999,
    ];
    let values = gpu.field_values_for(&fields.map(FieldId)).unwrap();
    let shown: Vec<_> = values
        .iter()
        .map(|value| value.as_ref().ok().and_then(|value| value.value.as_ref().ok()))
        .collect();
    assert_eq!(
        format!("{shown:?}"),
        "[Some(U32(1)), Some(U32(0)), Some(U32(38)), None]"
    );
    assert_eq!(
        gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
            .unwrap(),
        1
    );
    let hot = nvml.device_by_index(6).unwrap();
    let reasons = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    assert_eq!(hot.current_throttle_reasons().unwrap(), reasons);
}

#[test]
#[ignore = "run by the_unmodified_wrapper_reads_every_value_and_fault, in a process of its own"]
#[expect(
    clippy::disallowed_methods,
    reason = "this process was started with the file's path in its environment"
)]
fn a_wrapper_waits_for_events() {
    let file = PathBuf::from(std::env::var_os("SIMULATED_NVML_FILE").unwrap());
    let nvml = Nvml::init().unwrap();
    let set = nvml.create_event_set().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    let set = gpu
        .register_events(EventTypes::CRITICAL_XID_ERROR, set)
        .map_err(|refused| refused.error)
        .unwrap();
    assert!(matches!(set.wait(10), Err(NvmlError::Timeout)));
    let next = file.with_extension("next");
    std::fs::write(&next, "version: 1\ngpu 0-7: H200\ngpu 0:\n  xid: 48\n").unwrap();
    std::fs::rename(&next, &file).unwrap();
    let event = set.wait(10_000).unwrap();
    assert!(matches!(event.event_data, Some(XidError::Value(48))), "{event:?}");
}

/// Both parsers must agree on everything: samples, malformed files, and each of these with a byte changed or cut off.
#[tokio::test]
async fn library_and_plugin_read_every_file_alike() {
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("parse_print");
    let sources = [
        "tests/parse_print.c",
        "src/inventory.c",
        "src/values.c",
        "src/products.c",
    ]
    .map(|name| folder().join(name));
    finish(
        Command::new("cc")
            .args(["-std=c11", "-D_GNU_SOURCE", "-O1", "-o"])
            .arg(&program)
            .args(sources),
    )
    .await;
    let texts = variants();
    let paths: Vec<PathBuf> = (0..texts.len())
        .map(|index| scratch.path().join(format!("{index}.yaml")))
        .collect();
    for (path, text) in paths.iter().zip(&texts) {
        std::fs::write(path, text).unwrap();
    }
    let list = scratch.path().join("list");
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    std::fs::write(&list, names.join("\n")).unwrap();
    let shell = format!("exec {} < {}", program.display(), list.display());
    let output = finish(Command::new("sh").args(["-c", &shell])).await;
    let (mut accepted, mut refused) = (0, 0);
    for (text, theirs) in texts.iter().zip(output.lines()) {
        let ours = describe(text);
        assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(text));
        *(if ours.starts_with("ok") {
            &mut accepted
        } else {
            &mut refused
        }) += 1;
    }
    assert_eq!(accepted + refused, texts.len());
    assert!(
        accepted > 100 && refused > 1000,
        "{accepted} accepted, {refused} refused"
    );
}

fn describe(text: &[u8]) -> String {
    match parse(text, "n1") {
        Err(refusal) => refusal.to_string(),
        Ok(inventory) => inventory
            .gpus
            .iter()
            .fold(format!("ok {}", inventory.node), |line, gpu| {
                let state = match gpu.state {
                    State::Absent => 2,
                    State::Lost if gpu_says_lost(text) => 1,
                    State::Lost | State::Ok => 0,
                };
                format!(
                    "{line} {} {} {} {} {state}",
                    gpu.index, gpu.uuid, gpu.serial, gpu.pci_bus_id
                )
            }),
    }
}

/// The plugin also counts a GPU as lost when every call says so; the library keeps the two apart.
fn gpu_says_lost(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("state")
}

fn variants() -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    for name in ["samples", "tests/malformed"] {
        let mut files: Vec<_> = std::fs::read_dir(folder().join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let text = std::fs::read(file).unwrap();
            let short = text.len() <= 1500;
            for at in (0..text.len()).filter(|_| short) {
                if at % 5 == 0 {
                    texts.push(text[..at].to_vec());
                }
                if at % 3 == 0 {
                    let mut changed = text.clone();
                    changed[at] = b"\0\t :#\"'-,=9\n\\x"[at / 3 % 14];
                    texts.push(changed);
                }
            }
            texts.push(text);
        }
    }
    texts
}
