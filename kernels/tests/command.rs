//! `poc-vectors` as a user calls it.

#![expect(clippy::disallowed_methods, reason = "a short-lived command without async around it")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn poc_vectors(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_poc-vectors"))
        .args(arguments)
        .output()
        .expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn passes_skips_and_fails_with_a_line_per_file_and_a_sum() {
    let copied = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let directory = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| directory.path().join(name);
    fs::copy(copied.join("v2_misc.json"), at("v2_misc.json")).expect("copied");
    fs::write(at("other.json"), "{}").expect("written");
    let output = poc_vectors(&[directory.path()]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(
        printed.contains("skipped  other.json: not a file with known checks\n"),
        "{printed}"
    );
    assert!(printed.contains("passed   v2_misc.json: 383 checks\n"), "{printed}");
    assert!(printed.ends_with("1 passed, 0 failed, 1 skipped\n"), "{printed}");

    fs::write(
        at("v2_rng.json"),
        r#"{"sets": [{"block_hash": 5, "seeds_from_string": []}]}"#,
    )
    .expect("written");
    let output = poc_vectors(&[directory.path()]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("$.sets[0].block_hash: is not a string"), "{printed}");
    assert!(printed.ends_with("1 passed, 1 failed, 1 skipped\n"), "{printed}");
}

#[test]
fn a_directory_without_known_files_is_a_failure_that_says_so() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = poc_vectors(&[directory.path()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("holds no file with known checks"));
    let output = poc_vectors(&[&directory.path().join("absent")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot list"));
    assert_eq!(poc_vectors(&[]).status.code(), Some(2));
    assert_eq!(poc_vectors(&[Path::new("--large")]).status.code(), Some(2));
    let output = poc_vectors(&[Path::new("--large"), directory.path()]);
    assert!(text(&output.stderr).contains("holds no file with known checks"));
}
