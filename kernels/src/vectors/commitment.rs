//! `v2_commitment.json`: artifacts and the roots a running network node committed to for them. All exact.

use super::{Problem, item::Item, tally::Tally};
use crate::commitment::SumTree;

pub(super) fn check(root: &Item<'_>, tally: &mut Tally) {
    tally.each(root, "sum_trees", sum_tree);
}

fn sum_tree(case: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let leaves = case
        .field("leaves")?
        .list(|leaf| Ok((leaf.field("nonce")?.i32()?, leaf.field("vector_b64")?.base64()?)))?;
    let commits = case
        .field("commits")?
        .list(|commit| Ok((commit.field("count")?.u32()?, commit.field("root_b64")?)))?;
    let mut tree = SumTree::new();
    let mut leaves = leaves.iter();
    for (count, root) in commits {
        while tree.count() < count {
            let (nonce, vector) = leaves
                .next()
                .ok_or_else(|| root.problem(format!("has fewer than {count} leaves")))?;
            tally.that(case, tree.insert(*nonce, vector), || format!("nonce {nonce} twice"));
        }
        let published = root.base64()?;
        tally.that(&root, tree.root().as_slice() == published, || {
            format!("computed {}", crate::artifact::to_base64(&tree.root()))
        });
    }
    Ok(())
}
