//! Every reason a person can meet in a condition has a page that says what to do.

use std::path::Path;

use crds::conditions::Reason;
use strum::VariantArray as _;

#[test]
fn every_reason_has_a_runbook_page_and_every_page_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbook");
    let mut pages: Vec<String> = std::fs::read_dir(&folder)
        .expect("docs/runbook exists")
        .map(|entry| {
            entry
                .expect("a readable entry")
                .path()
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    pages.sort();
    let mut reasons: Vec<String> = Reason::VARIANTS.iter().map(ToString::to_string).collect();
    reasons.sort();
    assert_eq!(pages, reasons);
}
