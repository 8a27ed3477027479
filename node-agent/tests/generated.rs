//! Drift test and generator in one: the checked-in kubelet client is what the `.proto` file says.

#![expect(
    clippy::disallowed_methods,
    reason = "UPDATE_GENERATED turns the check into the generator"
)]

use std::path::Path;

#[test]
fn generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary folder");
    let descriptors = protox::compile(["podresources.proto"], [root.join("proto")]).expect("the .proto files compile");
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code is generated");

    let checked_in = root.join("src/gen/podresources.v1.rs");
    let fresh = std::fs::read_to_string(out.path().join("v1.rs")).expect("generated file");
    if std::env::var("UPDATE_GENERATED").is_ok() {
        std::fs::write(&checked_in, &fresh).expect("the generated file can be written");
    }
    let present = std::fs::read_to_string(&checked_in).unwrap_or_default();
    assert!(
        present == fresh,
        "{} is stale: run UPDATE_GENERATED=1 cargo test -p node-agent --test generated",
        checked_in.display()
    );
}
