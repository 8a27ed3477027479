//! Planted mistakes in the reference, one at a time: each must be rejected by the published vectors, by the independent
//! verifier and by the simulated validators. Writes `docs/mutants.md` with `UPDATE_GENERATED=1`, else compares.
//!
//! | module | what it is |
//! |---|---|
//! | [`mutants`] | the mistakes, as text replaced in a source file |
//! | [`workshop`] | a copy of `kernels` that is changed, built and run |
//! | [`exams`] | what hosts are asked to compute, and the ledger of what they delivered |
//! | [`judges`] | the three who look at it |
//! | [`table`] | `docs/mutants.md` |

mod exams;
mod judges;
mod mutants;
mod table;
mod workshop;

use anyhow::{Context as _, Result, ensure};
use mutants::{MUTANTS, Sight};
use workshop::Workshop;

#[expect(clippy::disallowed_methods, reason = "a test asks how it is to run")]
fn told(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

#[test]
#[ignore = "builds the reference once per mistake: make mutants"]
fn every_mistake_in_the_reference_is_rejected_thrice() -> Result<()> {
    let workshop = Workshop::open()?;
    workshop.build(None).context("the reference itself")?;
    let honest = judges::ask(&workshop)?;
    ensure!(
        honest.vectors.is_empty() && honest.verifier.is_empty() && honest.validators.is_empty(),
        "the reference itself is rejected: {honest:?}"
    );
    let mut rows = Vec::new();
    let mut unseen = Vec::new();
    for mutant in MUTANTS {
        workshop.build(Some(mutant)).context(mutant.name)?;
        let found = judges::ask(&workshop).context(mutant.name)?;
        eprintln!("{}: {found:?}", mutant.name);
        let seen = (
            !found.vectors.is_empty(),
            !found.verifier.is_empty(),
            !found.validators.is_empty(),
        );
        let wanted = (true, true, mutant.sight == Sight::All);
        if seen != wanted {
            unseen.push(mutant.name);
        }
        rows.push((mutant, found));
    }
    let page = table::render(&rows);
    eprintln!("{page}");
    ensure!(unseen.is_empty(), "not rejected as expected: {unseen:?}");
    table::publish(&page, told("UPDATE_GENERATED"))
}
