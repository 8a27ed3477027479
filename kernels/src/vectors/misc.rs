//! `v2_misc.json`: encoding, statistics, nonce enumeration. All exact but the p-values, which are doubles.

use super::{Problem, item::Item, tally::Tally};
use crate::{artifact, nonces::Enumeration, statistics};

/// Relative difference of p-values: two implementations of the same tail.
const P_VALUE: f64 = 1e-9;
/// Most trials for which the smallest fraudulent count is searched.
const MAX_TRIALS: usize = 100_000;

pub(super) fn check(root: &Item<'_>, tally: &mut Tally) {
    tally.each(root, "encode_decode", encoding);
    tally.each(root, "fraud_test_table", fraud_test);
    tally.each(root, "critical_counts", critical_count);
    tally.each(root, "nonce_iterator", enumeration);
}

fn encoding(case: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let values = case.field("f32")?.list(|x| Ok(x.number()? as f32))?;
    let text = case.field("vector_b64")?;
    tally.equal(
        &text,
        &artifact::to_base64(&artifact::encode(&values)).as_str(),
        &text.text()?,
    );
    let decoded = case.field("decoded")?;
    let published = decoded.list(|x| Ok(x.number()? as f32))?;
    tally.equal(&decoded, &artifact::decode(&text.base64()?), &Some(published));
    Ok(())
}

fn fraud_test(case: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let (mismatches, total) = (case.field("n_mismatch")?.u32()?, case.field("n_total")?.u32()?);
    let found = statistics::binomial_tail(mismatches, total, case.field("p_mismatch")?.number()?);
    let p_value = case.field("p_value")?;
    let published = p_value.number()?;
    tally.that(&p_value, same_probability(found, published), || {
        format!("published {published:e}, computed {found:e}")
    });
    for (threshold, verdict) in thresholds(case, "fraud_at_")? {
        tally.equal(&verdict, &(found < threshold), &verdict.truth()?);
    }
    Ok(())
}

fn critical_count(case: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let (probability, total) = (
        case.field("p_mismatch")?.number()?,
        case.field("n")?.size(MAX_TRIALS)? as u32,
    );
    for (threshold, critical) in thresholds(case, "min_mismatches_for_fraud_at_")? {
        let found = (0..=total).find(|&count| statistics::binomial_tail(count, total, probability) < threshold);
        tally.equal(&critical, &found, &Some(critical.u32()?));
    }
    Ok(())
}

/// The fields whose names end in a threshold.
fn thresholds<'a>(case: &Item<'a>, prefix: &str) -> Result<Vec<(f64, Item<'a>)>, Problem> {
    let parse = |(name, item): (&str, Item<'a>)| Some((name.strip_prefix(prefix)?.parse().ok()?, item));
    Ok(case.fields()?.into_iter().filter_map(parse).collect())
}

fn enumeration(case: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
    let number = |name: &str| case.field(name)?.integer();
    let sequence = Enumeration::new(
        number("node_id")?,
        number("node_count")?,
        number("group_id")?,
        number("n_groups")?,
    )
    .map_err(|error| case.problem(error.to_string()))?;
    let first = case.field("first10")?;
    for (index, nonce) in first.items()?.iter().enumerate() {
        tally.equal(nonce, &sequence.nonce(index as u64), &Some(nonce.integer()?));
    }
    Ok(())
}

/// Equal to nine digits, or both vanishing.
pub(super) fn same_probability(found: f64, published: f64) -> bool {
    (found - published).abs() <= P_VALUE * published.abs() + f64::MIN_POSITIVE
}
