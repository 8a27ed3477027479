//! What a host would deliver: the scheme as it is called, and the last step from numbers to bytes.

use super::{Case, F32_ARTIFACT};
use crate::{
    artifact,
    decoder::Dtype,
    prefill_v2::PrefillV2,
    scheme::{Round, Scheme as _},
    vectors::{Problem, array::Array, item::Item, tally::Tally},
};
use std::sync::Arc;

impl Case<'_> {
    /// The steps are right one by one; this is whether the scheme takes them as they are meant.
    pub(super) fn check_scheme(&self, run: &Item<'_>, round: &Round, tally: &mut Tally) -> Result<(), Problem> {
        let scheme = PrefillV2::new(Arc::clone(&self.models[0]), Dtype::F32);
        let made = scheme
            .prepare(round)
            .and_then(|mut prepared| prepared.generate(&self.nonces))
            .map_err(|error| run.problem(error.to_string()))?;
        let published = self.vectors(&run.field("vector_b64_fp32_model")?)?;
        tally.equal(run, &made.artifacts.len(), &published.len());
        for (made, (item, vector)) in made.artifacts.iter().zip(&published) {
            tally.near(item, &made.vector, vector, F32_ARTIFACT);
        }
        Ok(())
    }

    /// The published bytes are the published numbers, rounded: exact, as no computing lies between them.
    pub(super) fn check_encoding(&self, run: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let numbers = Array::read(&run.field("yk_f32")?, tally)?.floats()?;
        let published = self.vectors(&run.field("vector_b64_fp32_model")?)?;
        for (row, (item, vector)) in numbers.chunks_exact(self.round.k_dim).zip(&published) {
            tally.equal(item, &artifact::encode(row), vector);
        }
        Ok(())
    }
}
