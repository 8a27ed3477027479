use std::path::{Path, PathBuf};

use super::*;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("simulated-nvml")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn sample(name: &str) -> Inventory {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("simulated-nvml/samples")
        .join(name);
    parse(&std::fs::read(path).unwrap(), "n1").unwrap()
}

#[test]
fn every_malformed_file_is_refused_with_the_library_s_own_words() {
    let files = files("tests/malformed");
    assert!(files.len() >= 50);
    for path in files {
        let text = std::fs::read(&path).unwrap();
        let first = text.split(|&byte| byte == b'\n').next().unwrap();
        let expected = String::from_utf8_lossy(&first[2..]).into_owned();
        let found = parse(&text, "n1").map(|_| ()).unwrap_err().to_string();
        assert_eq!(found, expected, "{}", path.display());
    }
}

#[test]
fn every_sample_is_yaml_that_says_the_same() {
    for path in files("samples") {
        let text = std::fs::read_to_string(&path).unwrap();
        let inventory = parse(text.as_bytes(), "n1").unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()));
        let yaml: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(yaml["version"].as_u64(), Some(1));
        for gpu in inventory.gpus {
            let own = &yaml[format!("gpu {}", gpu.index).as_str()];
            if let Some(state) = own.get("state") {
                assert_eq!(state.as_str(), Some(format!("{:?}", gpu.state).to_lowercase().as_str()));
            }
        }
    }
}

#[test]
fn identities_are_those_of_the_library() {
    assert_eq!(
        sample("8xH200.yaml").gpus[0].uuid,
        "GPU-5dba76b3-2ea8-42ec-4d35-20495d327952"
    );
}

#[test]
fn eight_gpus_have_eight_identities() {
    let gpus = sample("8xH100.yaml").gpus;
    let uuids: std::collections::BTreeSet<_> = gpus.iter().map(|gpu| &gpu.uuid).collect();
    assert_eq!((gpus.len(), uuids.len()), (8, 8));
    assert_eq!(gpus[1].pci_bus_id, "00000000:3B:00.0");
    assert!(
        gpus.iter()
            .all(|gpu| gpu.product == "H100" && gpu.state == State::Ok && gpu.numa.is_none())
    );
}

#[test]
fn a_gpu_is_lost_by_its_state_or_when_every_call_says_so() {
    let states = |text: &str| {
        parse(text.as_bytes(), "n1")
            .unwrap()
            .gpus
            .iter()
            .map(|gpu| gpu.state)
            .collect::<Vec<_>>()
    };
    let lost: Vec<usize> = sample("lost-gpu.yaml")
        .gpus
        .iter()
        .filter(|gpu| gpu.state == State::Lost)
        .map(|gpu| gpu.index)
        .collect();
    assert_eq!(lost, [3]);
    assert_eq!(sample("faults.yaml").gpus[5].state, State::Absent);
    assert_eq!(
        states("version: 1\ngpu 0:\n  product: H200\n  error: GPU_IS_LOST\n"),
        [State::Lost]
    );
    assert_eq!(
        states("version: 1\ngpu 0:\n  product: H200\n  error: nvmlDeviceGetName=GPU_IS_LOST\n"),
        [State::Ok]
    );
    assert_eq!(
        states("version: 1\ngpu 0:\n  product: H200\n  error: none\n"),
        [State::Ok]
    );
}

#[test]
fn empty_oversized_and_binary_files_are_refused() {
    assert_eq!(
        parse(b"", "n1").unwrap_err().to_string(),
        "line 1: the file must say \"version: 1\""
    );
    assert_eq!(
        parse(&vec![b'\n'; 262_145], "n1").unwrap_err().to_string(),
        "line 1: the file is too large"
    );
    let mut text = b"version: 1".to_vec();
    text.resize(262_144, b'\n');
    assert_eq!(parse(&text, "n1").unwrap().gpus, []);
    assert!(parse(&[0xff, 0xfe, 0x00], "n1").is_err());
}
