//! Drift test and generator in one: `crds/yaml` and the CRD chart's templates are what the types say.

#![expect(
    clippy::disallowed_methods,
    reason = "UPDATE_GENERATED turns the check into the generator"
)]

use std::path::{Path, PathBuf};

const HEADER: &str =
    "# Generated from crds/src by `UPDATE_GENERATED=1 cargo test -p crds --test generated`. Do not edit.\n";

fn expected_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    crds::all_crds()
        .iter()
        .flat_map(|crd| {
            let name = format!("{}.yaml", crd.metadata.name.as_deref().expect("a CRD has a name"));
            let text = format!("{HEADER}{}", serde_yaml::to_string(crd).expect("a CRD is YAML"));
            [
                root.join("yaml").join(&name),
                root.join("../charts/gonka-fleet-crds/templates").join(&name),
            ]
            .map(|path| (path, text.clone()))
        })
        .collect()
}

#[test]
fn crd_yaml_matches_the_types() {
    let update = std::env::var("UPDATE_GENERATED").is_ok();
    for (path, text) in expected_files() {
        if update {
            std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder can be made");
            std::fs::write(&path, &text).expect("the file can be written");
        }
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            present == text,
            "{} is stale: run UPDATE_GENERATED=1 cargo test -p crds --test generated",
            path.display()
        );
    }
}
