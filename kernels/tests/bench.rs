//! `gpu-bench` and its soak whole, on the simulated driver and tiny models: what they do, and that no time of a CPU gets anywhere as a figure.

#![expect(
    clippy::disallowed_methods,
    reason = "short-lived programs without async around them; UPDATE_GENERATED turns a check into the generator"
)]

use rstest::rstest;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// Folder with the simulated libraries, built once a process.
fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-cuda-{}", std::process::id()));
        let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/host/build-host.sh"))
            .arg("--driver")
            .arg(&folder)
            .output()
            .expect("build-host.sh runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        folder
    })
}

fn bench(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gpu-bench"))
        .args(arguments)
        .env("LD_LIBRARY_PATH", libraries())
        .envs(settings.iter().copied())
        .output()
        .expect("gpu-bench runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs the whole bench with a script in the place of both of torch's; its report.
fn report(torch: &str) -> Value {
    report_under(torch, &[])
}

fn report_under(torch: &str, settings: &[(&str, &str)]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let (script, json) = (folder.path().join("torch.py"), folder.path().join("report.json"));
    fs::write(&script, torch).expect("a script");
    let [script, json] = [&script, &json].map(|path| path.to_str().expect("a path"));
    let arguments = ["--simulated", "--replica", script, "--experts", script, "--json", json];
    let run = bench(&arguments, settings);
    assert!(run.status.success(), "{}", text(&run));
    serde_json::from_slice(&fs::read(json).expect("a report")).expect("JSON")
}

/// Answers as `kernels/bench/replica.py` and `kernels/bench/experts.py` do: each batch takes as long as it says, or a millisecond a row.
const ANSWERS: &str = r#"
import json, sys
mode, shape = sys.argv[sys.argv.index("--mode") + 1], json.loads(sys.argv[sys.argv.index("--shape") + 1])
ready = {"ready": True, "torch": "0", "device": "cpu"}
if "counts" in shape:
    ready["means"] = f"{len(shape['counts'])} experts"
print(json.dumps(ready), flush=True)
takes = float(sum(shape["counts"])) if "counts" in shape else 7.0 if mode == "eager" else 5.0
for line in sys.stdin:
    batches = json.loads(line)["batches"]
    print(json.dumps({"milliseconds": [takes] * batches}), flush=True)
"#;

/// Runs two turns and then breaks.
const BREAKS: &str = r#"
import json, sys
print(json.dumps({"ready": True, "torch": "0", "device": "cpu"}), flush=True)
for turn, line in enumerate(sys.stdin):
    if turn == 2:
        print(json.dumps({"reason": "out of memory"}), flush=True)
        sys.exit(3)
    print(json.dumps({"milliseconds": [7.0] * json.loads(line)["batches"]}), flush=True)
"#;

#[test]
fn everybody_runs_in_one_run_and_every_series_is_long_enough() {
    let report = report(ANSWERS);
    assert_eq!(report["simulated"], true);
    assert_eq!(report["torch"], "0");
    for model in ["qwen3-8b", "qwen3-0.6b"] {
        for (name, least) in [
            ("ours", 30),
            ("products", 30),
            ("prefill", 30),
            ("gaps", 30),
            ("eager", 30),
            ("compiled", 30),
            ("lost", 10),
            ("stop", 10),
        ] {
            let series = &report["series"][format!("{model}/{name}")];
            let turns = series["turns"].as_array().unwrap_or_else(|| panic!("{name}: {series}"));
            let samples: Vec<f64> = turns
                .iter()
                .flat_map(|turn| turn.as_array().expect("samples"))
                .map(|sample| sample.as_f64().expect("a number"))
                .collect();
            assert!(samples.len() >= least, "{name}: {} samples", samples.len());
            assert!(
                samples.iter().all(|sample| *sample > 0.0 || name == "gaps"),
                "{name}: {series}"
            );
        }
        let times = &report["series"][format!("{model}/eager")]["turns"][0];
        assert_eq!(times[0], 7.0);
    }
    let rows = report["rows"].as_array().expect("rows");
    assert!(
        rows.len() == 13 && rows.iter().all(|row| row["figure"]["value"].is_number()),
        "{rows:?}"
    );
    // A part takes less than the whole, a stopped round loses more than it takes to notice.
    let products = rows[0]["figure"]["value"].as_f64().expect("a share");
    assert!(products > 0.0 && products < 1.0, "{products}");
}

#[test]
fn experts_take_turns_with_torch_over_as_many_rows_as_the_router_gave_them() {
    let report = report(ANSWERS);
    for model in ["experts", "experts-qwen3-235b"] {
        for name in ["layer", "grouped", "torch-bf16", "torch-fp8"] {
            let series = &report["series"][format!("{model}/{name}")];
            let turns = series["turns"].as_array().unwrap_or_else(|| panic!("{name}: {series}"));
            let samples: Vec<&Value> = turns
                .iter()
                .flat_map(|turn| turn.as_array().expect("samples"))
                .collect();
            assert!(samples.len() >= 30, "{model}/{name}: {series}");
            assert!(
                samples.iter().all(|sample| sample.as_f64() > Some(0.0)),
                "{model}/{name}: {series}"
            );
        }
        // Two sequences of four tokens, two experts each: every pair is in a row.
        for name in ["torch-bf16", "torch-fp8"] {
            assert_eq!(report["series"][format!("{model}/{name}")]["turns"][0][0], 16.0);
            assert_eq!(report["means"][format!("{model}/{name}")], "4 experts");
        }
        let series = |name: &str| &report["series"][format!("{model}/{name}")];
        let counted = |name: &str, what: &str| series(name)[what].as_f64().expect("a number");
        // Two products of 16 rows by 128 columns that meet 256 and 128.
        assert_eq!(series("grouped")["operations"], 2.0 * 16.0 * 128.0 * 384.0);
        assert_eq!(
            series("torch-fp8")["operations"],
            series("grouped")["operations"],
            "the same work"
        );
        assert!(counted("layer", "operations") > counted("grouped", "operations"));
        assert!(counted("layer", "bytes") > counted("grouped", "bytes") && counted("grouped", "bytes") > 0.0);
    }
}

#[test]
fn a_gpu_without_numbers_of_eight_bits_costs_the_rows_of_experts_and_no_others() {
    let report = report_under(ANSWERS, &[("SIMULATED_CUDA_CAPABILITY", "86")]);
    for row in report["rows"].as_array().expect("rows") {
        let reason = row["reason"].as_str().unwrap_or_default();
        assert_eq!(
            reason.contains("needs a GPU of compute capability 8.9"),
            row["row"] == "A3",
            "{row}"
        );
        assert_eq!(row["figure"].is_null(), row["row"] == "A3", "{row}");
    }
}

#[rstest]
#[case::no_torch(
    "import json\nprint(json.dumps({'reason': 'python3 has no torch'}))",
    "python3 has no torch"
)]
#[case::breaks(BREAKS, "out of memory")]
#[case::goes("", "the replica does not answer")]
#[case::chatters("print('hello', flush=True)\ninput()", "the replica said \"hello\"")]
fn a_replica_that_does_not_run_costs_its_rows_and_no_others(#[case] replica: &str, #[case] reason: &str) {
    let report = report(replica);
    let row = |what: &str| {
        let rows = report["rows"].as_array().expect("rows");
        rows.iter()
            .find(|row| row["what"].as_str().is_some_and(|text| text.contains(what)))
            .expect("the row")
            .clone()
    };
    let eager = row("eager replica of the reference");
    assert!(eager["figure"].is_null() && eager["met"].is_null(), "{eager}");
    assert!(
        eager["reason"].as_str().is_some_and(|text| text.contains(reason)),
        "{eager}"
    );
    assert!(row("own products")["figure"]["value"].is_number());
    for torch in ["torch's grouped products in bf16", "torch's grouped products in FP8"] {
        let row = row(torch);
        assert!(
            row["figure"].is_null() && row["reason"].as_str().is_some_and(|text| text.contains(reason)),
            "{row}"
        );
    }
    assert!(row("a layer of FP8 experts")["figure"]["value"].is_number());
}

#[test]
fn clocks_and_what_holds_them_down_are_told_before_and_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let built = Command::new("make")
        .args(["-C", concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/simulated-nvml")])
        .arg(format!("OUT={}", folder.path().display()))
        .output()
        .expect("make runs");
    assert!(built.status.success(), "{}", text(&built));
    let (gpus, json) = (folder.path().join("gpus.yaml"), folder.path().join("report.json"));
    fs::write(
        &gpus,
        "version: 1\ngpu 0:\n  product: H200\n  uuid: GPU-00010203-0405-0607-0809-0a0b0c0d0e00\n  sm-clock-mhz: 1755\n  throttle: sw-power-cap\n",
    )
    .expect("a file");
    let path = format!("{}:{}", libraries().display(), folder.path().display());
    let run = bench(
        &[
            "--simulated",
            "--replica",
            "/nowhere",
            "--experts",
            "/nowhere",
            "--json",
            json.to_str().expect("a path"),
        ],
        &[
            ("LD_LIBRARY_PATH", &path),
            ("SIMULATED_NVML_FILE", gpus.to_str().expect("a path")),
        ],
    );
    assert!(run.status.success(), "{}", text(&run));
    let report: Value = serde_json::from_slice(&fs::read(json).expect("a report")).expect("JSON");
    for moment in ["before", "after"] {
        let clocks = &report[moment];
        assert_eq!(clocks["sm"], 1755, "{clocks}");
        assert!(clocks["memory"].as_u64() > Some(0), "{clocks}");
        assert_eq!(clocks["throttled"], serde_json::json!(["sw-power-cap"]));
    }
}

#[test]
fn what_the_simulated_driver_took_is_no_figure_anywhere() {
    let refused = bench(&[], &[]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert_eq!(text(&refused).lines().count(), 1, "{}", text(&refused));
    assert!(
        text(&refused).contains("this is the simulated driver"),
        "{}",
        text(&refused)
    );
    // Under another product's name too.
    let disguised = bench(&[], &[("SIMULATED_CUDA_NAME", "NVIDIA H200")]);
    assert!(
        text(&disguised).contains("this is the simulated driver"),
        "{}",
        text(&disguised)
    );

    let documents = tempfile::tempdir().expect("a folder");
    fs::copy(
        documents_of_the_repository().join("benchmarks.md"),
        documents.path().join("benchmarks.md"),
    )
    .expect("a copy");
    let path = documents.path().to_str().expect("a path");
    let wrote = bench(
        &["--simulated", "--write", path],
        &[("SIMULATED_CUDA_NAME", "NVIDIA H200")],
    );
    assert!(
        !wrote.status.success() && text(&wrote).contains("into no document"),
        "{}",
        text(&wrote)
    );
    assert!(!documents.path().join("benchmarks").exists());
}

#[test]
fn without_a_gpu_one_line_says_so_and_nothing_is_written() {
    let json = tempfile::tempdir().expect("a folder").path().join("report.json");
    let run = Command::new(env!("CARGO_BIN_EXE_gpu-bench"))
        .args(["--json", json.to_str().expect("a path")])
        .env("LD_LIBRARY_PATH", "")
        .output()
        .expect("gpu-bench runs");
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    assert!(!run.status.success() && run.stdout.is_empty() && !json.exists());
    assert_eq!(text(&run).lines().count(), 1, "{}", text(&run));
    assert!(text(&run).contains("no NVIDIA driver"), "{}", text(&run));
    let asked_wrong = bench(&["--minutes", "1"], &[]);
    assert_eq!(asked_wrong.status.code(), Some(2));
}

fn documents_of_the_repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[test]
fn the_documents_tables_are_those_of_the_reports_beside_it() {
    let docs = documents_of_the_repository();
    let present = fs::read_to_string(docs.join("benchmarks.md")).expect("the document");
    let copy = tempfile::tempdir().expect("a folder");
    fs::write(copy.path().join("benchmarks.md"), &present).expect("a copy");
    if let Ok(reports) = fs::read_dir(docs.join("benchmarks")) {
        fs::create_dir(copy.path().join("benchmarks")).expect("a folder");
        for report in reports.map(|entry| entry.expect("a report")) {
            fs::copy(report.path(), copy.path().join("benchmarks").join(report.file_name())).expect("a copy");
        }
    }
    let run = bench(&["table", copy.path().to_str().expect("a path")], &[]);
    assert!(run.status.success(), "{}", text(&run));
    let fresh = fs::read_to_string(copy.path().join("benchmarks.md")).expect("the document");
    if std::env::var("UPDATE_GENERATED").is_ok() {
        fs::write(docs.join("benchmarks.md"), &fresh).expect("the document can be written");
        return;
    }
    assert!(
        present == fresh,
        "docs/benchmarks.md is stale: run UPDATE_GENERATED=1 cargo test -p kernels --test bench"
    );
}

// --- the soak

#[test]
fn rounds_that_start_and_stop_leave_everything_as_it_was() {
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let settings = [("SIMULATED_CUDA_LEDGER", ledger.path().to_str().expect("a path"))];
    let run = bench(&["soak", "--minutes", "0.02", "--simulated"], &settings);
    assert!(run.status.success(), "{}", text(&run));
    let said: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert!(said["simulated"] == true && said["loads"].as_u64() >= Some(4), "{said}");
    assert_eq!(said["first"]["free_bytes"], said["last"]["free_bytes"]);
    assert_eq!(said["first"]["files"], said["last"]["files"]);
    let left = fs::read_to_string(ledger.path()).expect("a ledger");
    assert!(left.lines().count() >= 8, "{left}");
    assert!(
        left.lines()
            .all(|line| line.starts_with("device 0 allocations 0 bytes, pinned 0, handles 0,")),
        "{left}"
    );
}

#[test]
fn what_is_lost_ends_the_soak_with_its_name() {
    let run = bench(
        &["soak", "--minutes", "0.02", "--simulated"],
        &[("SIMULATED_CUDA_LEAK", "7")],
    );
    assert!(!run.status.success(), "{}", text(&run));
    assert!(
        text(&run).contains("more bytes of the GPU in use: 0 are allowed"),
        "{}",
        text(&run)
    );
    let refused = bench(&["soak", "--minutes", "0.02"], &[]);
    assert!(
        text(&refused).contains("this is the simulated driver"),
        "{}",
        text(&refused)
    );
}

// --- the replica

/// Where torch is installed: the replica is the reference's procedure or the comparison is worth nothing. Elsewhere it says what is missing.
#[test]
fn the_replica_computes_the_published_vectors() {
    let run = Command::new(std::env::var("PYTHON").unwrap_or_else(|_| "python3".into()))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/replica.py"))
        .arg("check")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/v2_tiny_models.json"))
        .output()
        .expect("python3 runs");
    let said: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", text(&run)));
    if said["reason"]
        .as_str()
        .is_some_and(|reason| reason.contains("has no torch"))
    {
        assert_eq!(run.status.code(), Some(3));
        return;
    }
    assert!(run.status.success() && said["right"] == true, "{said}");
    assert!(
        said["cases"] == 2 && said["furthest"]["bf16"].as_f64() <= Some(0.02),
        "{said}"
    );
}

/// Where torch is installed: what is compared with computes these products, in every way it has. Elsewhere it says what is missing.
#[rstest]
#[case::bf16("bf16", "torch.mm by expert")]
#[case::fp8("fp8", "torch._scaled_mm by expert")]
fn torchs_products_by_expert_are_right_or_named_missing(#[case] mode: &str, #[case] simplest: &str) {
    let run = Command::new(std::env::var("PYTHON").unwrap_or_else(|_| "python3".into()))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/experts.py"))
        .args(["check", "--mode", mode])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 runs");
    let said: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", text(&run)));
    if said["reason"]
        .as_str()
        .is_some_and(|reason| reason.contains("has no torch"))
    {
        assert_eq!(run.status.code(), Some(3));
        return;
    }
    assert!(run.status.success() && said["right"] == true, "{said}");
    // Eight bits are not multiplied on every CPU.
    let (found, missing) = (&said["furthest"][simplest], &said["missing"][simplest]);
    assert!(found.is_number() || mode == "fp8" && missing.is_string(), "{said}");
}
