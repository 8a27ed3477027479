//! Comparisons of received with computed artifacts and their published verdicts (`reference_validation`). Exact but
//! for the p-value.

use super::{Problem, item::Item, misc, tally::Tally};
use crate::scheme::{Artifact, StatTest, compare};

pub(super) fn check(entry: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let params = entry.field("params")?;
    let test = StatTest {
        dist_threshold: params.field("dist_threshold")?.number()?,
        p_mismatch: params.field("p_mismatch")?.number()?,
        fraud_threshold: params.field("fraud_threshold")?.number()?,
    };
    let computed = entry.field("computed")?.list(|item| {
        Ok(Artifact {
            nonce: item.field("nonce")?.integer()?,
            vector: item.field("vector_b64")?.base64()?,
        })
    })?;
    let by_nonce = entry.field("received")?;
    // In the order of the computed nonces, which is the order of the request.
    let received: Vec<Artifact> = computed
        .iter()
        .filter_map(|artifact| Some((artifact.nonce, by_nonce.optional(&artifact.nonce.to_string())?)))
        .map(|(nonce, item)| {
            Ok(Artifact {
                nonce,
                vector: item.base64()?,
            })
        })
        .collect::<Result<_, Problem>>()?;
    let verdict = compare(computed, &received, &test);
    let result = entry.field("result")?;
    let field = |name: &str| result.field(name);
    tally.equal(&field("n_total")?, &verdict.total, &field("n_total")?.u32()?);
    tally.equal(
        &field("n_mismatch")?,
        &(verdict.mismatch_nonces.len() as u32),
        &field("n_mismatch")?.u32()?,
    );
    let nonces = field("mismatch_nonces")?;
    tally.equal(&nonces, &verdict.mismatch_nonces, &nonces.list(Item::integer)?);
    let (p_value, fraud) = (field("p_value")?, field("fraud_detected")?);
    let published = p_value.number()?;
    tally.that(&p_value, misc::same_probability(verdict.p_value, published), || {
        format!("published {published:e}, computed {:e}", verdict.p_value)
    });
    tally.equal(&fraud, &verdict.fraud, &fraud.truth()?);
    Ok(())
}
