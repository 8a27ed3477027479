//! `node-agent check` over the simulated driver and NVML: a sound GPU passes, each fault is named, and nothing is left behind.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests; child processes are what is tested"
)]

#[path = "agent_support/process.rs"]
#[expect(dead_code, reason = "the running daemon is other tests'")]
mod agent_support;

use agent_support::{Machine, library};
use rstest::rstest;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Folder with the simulated CUDA libraries, built once a process.
fn cuda() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulated-cuda-{}", std::process::id()));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/cuda/host/build-host.sh");
        let built = std::process::Command::new(script)
            .arg("--driver")
            .arg(&folder)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        folder
    })
}

const UUIDS: [&str; 2] = [
    "GPU-00010203-0405-0607-0809-0a0b0c0d0e00",
    "GPU-00010203-0405-0607-0809-0a0b0c0d0e01",
];
/// Small enough that the emulator is through it in seconds.
const MEMORY: (&str, &str) = ("SIMULATED_CUDA_MEMORY", "268435456");

/// A machine whose driver and NVML are of one mind about its GPUs, at work as GPUs are; what is different about the first.
fn machine(gpus: usize, first: &str) -> Machine {
    let mut text = format!("gpu 0-{}: H200\n", gpus - 1);
    for (index, uuid) in UUIDS.iter().enumerate().take(gpus) {
        let mut lines = if index == 0 { first.to_owned() } else { String::new() };
        for (key, value) in [
            ("sm-clock-mhz", "1980"),
            ("power-watts", "650"),
            ("throttle", "sw-power-cap"),
        ] {
            if !lines.contains(key) {
                lines.push_str(&format!("  {key}: {value}\n"));
            }
        }
        text.push_str(&format!("gpu {index}:\n  uuid: {uuid}\n{lines}"));
    }
    Machine::new(&text)
}

/// Runs `check`; exit code and report.
fn check(machine: &Machine, settings: &[(&str, &str)], more: &[&str]) -> (i32, Value) {
    let mut command = machine.command(&["check", "--json", "--sustain", "1s"]);
    if !more.contains(&"--deadline") {
        command.args(["--deadline", "120s"]);
    }
    let locks = machine.folder.path().join("locks");
    let libraries = format!("{}:{}", library().display(), cuda().display());
    command
        .arg("--lock-dir")
        .arg(locks)
        .args(more)
        .env("LD_LIBRARY_PATH", libraries)
        .envs([MEMORY])
        .envs(settings.iter().copied());
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

fn row<'a>(report: &'a Value, check: &str) -> &'a Value {
    let rows = report["burn"]["rows"].as_array().unwrap();
    rows.iter()
        .find(|row| row["check"] == check)
        .unwrap_or_else(|| panic!("no {check} in {report:#}"))
}

#[test]
fn a_sound_gpu_passes_with_every_measurement_and_leaves_no_memory() {
    let machine = machine(1, "");
    let ledger = machine.folder.path().join("ledger");
    let (code, report) = check(&machine, &[("SIMULATED_CUDA_LEDGER", ledger.to_str().unwrap())], &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["burn"]["state"], "Run");
    for check in [
        "multiprocessors",
        "multiprocessorsUsed",
        "golden",
        "memory",
        "weights",
        "products",
        "repeats",
        "memorySize",
        "boostClock",
        "powerLimit",
        "nvlinks",
    ] {
        assert_eq!(row(&report, check)["outcome"], "Passed", "{check}: {report:#}");
    }
    for check in ["noncesPerSecond", "teraflops", "sustainedClock", "power", "temperature"] {
        assert_eq!(row(&report, check)["outcome"], "Reported", "{check}: {report:#}");
    }
    assert_eq!(row(&report, "sustainedClock")["measured"], 1980.0);
    let left = std::fs::read_to_string(&ledger).unwrap();
    let clean = |line: &str| line.starts_with("device 0 allocations 0 bytes, pinned 0");
    assert!(left.lines().count() > 5 && left.lines().all(clean), "{left}");
    let most = left
        .lines()
        .filter_map(|line| line.split("most ").nth(1)?.split(' ').next()?.parse::<u64>().ok())
        .max();
    assert!(most > Some(268_435_456 / 10 * 8), "{left}");
}

#[rstest]
#[case::weights(
    "SIMULATED_CUDA_FLIP",
    "50,26165825,6",
    "weights",
    "1 words differ, the first in layer 3 at byte 0xf4240, address 0x"
)]
#[case::stuck("SIMULATED_CUDA_STUCK", "65538,3", "memory", "byte 0x10000, bits 0x00080000")]
#[case::masked(
    "SIMULATED_CUDA_SMS",
    "130",
    "multiprocessors",
    "130.0000 multiprocessors; exactly 132 must be"
)]
#[case::wrong(
    "SIMULATED_CUDA_WRONG",
    "0",
    "golden",
    "from the published ones; at most 0.02 may be"
)]
#[case::call("SIMULATED_CUDA_FAIL", "cuGraphLaunch", "process", "cuGraphLaunch failed")]
fn a_fault_of_the_gpu_is_named(#[case] setting: &str, #[case] value: &str, #[case] wrong: &str, #[case] said: &str) {
    let machine = machine(1, "");
    let (code, report) = check(&machine, &[(setting, value)], &[]);
    assert_eq!((code, report["verdict"].as_str()), (1, Some("Failed")), "{report:#}");
    let row = row(&report, wrong);
    assert_eq!(row["outcome"], "Failed", "{report:#}");
    assert!(row["message"].as_str().unwrap().contains(said), "{row:#}");
    assert_eq!(row["gpu"], UUIDS[0]);
    assert!(!row["remedy"].as_str().unwrap().is_empty());
}

#[test]
fn a_gpu_that_computes_wrong_now_and_then_is_found_under_load() {
    let machine = machine(1, "");
    // After the first pass over all weights.
    let (code, report) = check(&machine, &[("SIMULATED_CUDA_WEAK", "60")], &[]);
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(row(&report, "golden")["outcome"], "Passed");
    assert_eq!(row(&report, "weights")["outcome"], "Passed");
    assert_eq!(row(&report, "products")["outcome"], "Failed", "{report:#}");
}

#[rstest]
#[case::slowdown("  throttle: hw-slowdown, hw-power-brake\n", "throttle", "check power feeds")]
#[case::link("  nvlink-down: 3, 7\n", "nvlinks", "NVLink 3, 7 down, of 18")]
#[case::power("  power-limit-watts: 500\n", "powerLimit", "500.0000 W; at least 700 must be")]
fn a_fault_that_nvml_shows_under_load_is_named(#[case] file: &str, #[case] wrong: &str, #[case] said: &str) {
    let (code, report) = check(&machine(1, file), &[], &[]);
    assert_eq!(code, 1, "{report:#}");
    let rows = report["burn"]["rows"].as_array().unwrap();
    let named = rows.iter().any(|row| {
        row["check"] == wrong
            && row["outcome"] == "Failed"
            && row["message"].as_str().is_some_and(|it| it.contains(said))
    });
    assert!(named, "{report:#}");
}

#[test]
fn a_clock_below_the_fleets_own_threshold_fails() {
    let machine = machine(1, "  sm-clock-mhz: 1200\n");
    let limits = machine.folder.path().join("limits.yaml");
    let text = "version: 1\nproducts:\n- product: H200\n  names: []\n  sustainedMegahertz: {value: 1500, source: learned of this fleet}\n";
    std::fs::write(&limits, text).unwrap();
    let (code, report) = check(&machine, &[], &["--limits", limits.to_str().unwrap()]);
    assert_eq!(code, 1, "{report:#}");
    let row = row(&report, "sustainedClock");
    assert_eq!(
        (row["outcome"].as_str(), row["threshold"].as_f64()),
        (Some("Failed"), Some(1500.0))
    );
    assert_eq!(row["source"], "learned of this fleet");
}

/// Processes whose command line has this text.
fn processes(text: &str) -> usize {
    let named = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| named(entry).then_some(()))
        .count()
}

#[test]
fn a_driver_that_hangs_costs_no_more_than_the_deadline_and_nothing_is_left() {
    let machine = machine(1, "");
    cuda();
    library();
    let begun = Instant::now();
    let hang = [("SIMULATED_CUDA_HANG", "cuGraphLaunch")];
    let (code, report) = check(&machine, &hang, &["--deadline", "8s"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(code, 1, "{report:#}");
    let message = row(&report, "deadline")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("did not come back from multiprocessors"), "{message}");
    assert_eq!(processes(machine.folder.path().to_str().unwrap()), 0);
    // Lock and memory are free again.
    let (code, report) = check(&machine, &[], &[]);
    assert_eq!(code, 0, "{report:#}");
}

#[test]
fn a_gpu_that_somebody_works_on_is_left_alone() {
    let machine = machine(1, "  processes: 4711=512, 4712=1\n");
    let (code, report) = check(&machine, &[("SIMULATED_CUDA_FAIL", "cuDevicePrimaryCtxRetain")], &[]);
    assert_eq!(
        (code, report["burn"]["state"].as_str()),
        (2, Some("Refused")),
        "{report:#}"
    );
    assert!(
        report["message"].as_str().unwrap().contains("process 4711, 4712"),
        "{report:#}"
    );
}

#[test]
fn a_gpu_whose_clients_are_not_known_is_left_alone() {
    let machine = machine(1, "  error: nvmlDeviceGetComputeRunningProcesses=UNKNOWN\n");
    let (code, report) = check(&machine, &[], &[]);
    assert_eq!(
        (code, report["burn"]["state"].as_str()),
        (2, Some("Refused")),
        "{report:#}"
    );
    assert!(
        report["message"].as_str().unwrap().contains("does not say who uses"),
        "{report:#}"
    );
}

#[test]
fn a_gpu_that_an_engine_of_ours_holds_is_left_alone() {
    let machine = machine(1, "");
    let locks = machine.folder.path().join("locks");
    std::fs::create_dir_all(&locks).unwrap();
    let file = std::fs::File::create(locks.join(format!("{}.lock", UUIDS[0]))).unwrap();
    let held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let (code, report) = check(&machine, &[], &[]);
    assert_eq!(
        (code, report["burn"]["state"].as_str()),
        (2, Some("Refused")),
        "{report:#}"
    );
    assert!(
        report["message"].as_str().unwrap().contains("another engine"),
        "{report:#}"
    );
    drop(held);
}

#[rstest]
#[case::served(&[("SIMULATED_CUDA_MPS", "1")], "stop the MPS control daemon")]
#[case::cut(&[("SIMULATED_CUDA_NAME", "NVIDIA H200 MIG 1g.18gb")], "switch MIG off")]
#[case::old(&[("SIMULATED_CUDA_VERSION", "12080")], "at least 13.0 is needed")]
fn what_cannot_be_burned_in_is_unknown(#[case] settings: &[(&str, &str)], #[case] said: &str) {
    let (code, report) = check(&machine(1, ""), settings, &[]);
    assert_eq!(code, 2, "{report:#}");
    assert!(report["message"].as_str().unwrap().contains(said), "{report:#}");
}

#[test]
fn copies_between_two_gpus_are_tried_both_ways() {
    let machine = machine(2, "");
    let two = [("SIMULATED_CUDA_DEVICES", "2")];
    let (code, report) = check(&machine, &two, &[]);
    assert_eq!(code, 0, "{report:#}");
    let rows = report["burn"]["rows"].as_array().unwrap();
    let copies: Vec<&str> = rows
        .iter()
        .filter(|row| row["check"] == "peerCopy")
        .map(|row| row["gpu"].as_str().unwrap())
        .collect();
    assert_eq!(
        copies,
        [
            format!("{} to {}", UUIDS[0], UUIDS[1]),
            format!("{} to {}", UUIDS[1], UUIDS[0])
        ]
    );
    assert_eq!(row(&report, "peerBandwidth")["outcome"], "Reported");

    let torn = [("SIMULATED_CUDA_DEVICES", "2"), ("SIMULATED_CUDA_TORN", "1")];
    let (code, report) = check(&machine, &torn, &[]);
    assert_eq!(code, 1, "{report:#}");
    let message = row(&report, "peerCopy")["message"].as_str().unwrap();
    assert!(
        message.contains("1 words differ") && message.contains("0x00000004"),
        "{message}"
    );
}

#[test]
fn a_look_has_to_do_where_nothing_can_compute_unless_more_is_asked_for() {
    let machine = machine(1, "");
    let bare = format!("{}", library().display());
    let (code, report) = check(&machine, &[("LD_LIBRARY_PATH", &bare)], &[]);
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    assert_eq!(
        (code, report["burn"]["state"].as_str()),
        (0, Some("NotRun")),
        "{report:#}"
    );
    assert!(
        report["message"].as_str().unwrap().contains("no NVIDIA driver"),
        "{report:#}"
    );
    let (code, _) = check(&machine, &[("LD_LIBRARY_PATH", &bare)], &["--require-burn"]);
    assert_eq!(code, 2);
    let (code, report) = check(&machine, &[("SIMULATED_CUDA_WRONG", "0")], &["--look-only"]);
    assert_eq!(
        (code, report["burn"]["reason"].as_str()),
        (0, Some("--look-only")),
        "{report:#}"
    );
}

#[test]
fn the_example_asks_for_what_check_takes_and_for_as_many_gpus_as_it_expects() {
    let text = include_str!("../../examples/burn-in.yaml");
    let pod: k8s_openapi::api::core::v1::Pod = serde_yaml::from_str(text).unwrap();
    let container = pod.spec.unwrap().containers.remove(0);
    let args = container.args.unwrap();
    let output = machine(1, "")
        .command(&args.iter().map(String::as_str).chain(["--help"]).collect::<Vec<_>>())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let gpus = &container.resources.unwrap().limits.unwrap()["nvidia.com/gpu"].0;
    let expected = args.iter().position(|arg| arg == "--expected-gpus").unwrap() + 1;
    assert_eq!(args[expected], *gpus);
}
