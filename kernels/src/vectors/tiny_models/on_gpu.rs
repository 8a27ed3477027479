//! The same cases on a GPU: published bf16 artifacts of dense models against what the device computes.

use super::Case;
use crate::{
    cuda::{self, CudaPrefillV2, Device, Shape, weights::Grown},
    scheme::{Round, Scheme as _},
    vectors::{Problem, item::Item, rng, tally::Tally},
};

/// Distance of bf16 artifacts between a GPU and the published run.
const GPU_ARTIFACT: f64 = 0.02;
/// Nonces of a batch: fewer than a case has, so that several are in flight.
const BATCH: usize = 3;

pub(in crate::vectors) fn check_on(
    root: &Item<'_>,
    open: &dyn Fn() -> Result<Box<dyn Device>, cuda::Error>,
    tally: &mut Tally,
) {
    tally.each(root, "cases", |item, tally| {
        let case = Case::read(item, tally)?;
        let model = &case.models[0];
        let Ok(shape) = Shape::try_from(model.config()) else {
            tally.note(format!("{} has experts and is left out", model.name()));
            return Ok(());
        };
        let source = Grown {
            tag: item.field("weights_tag")?.text()?.to_owned(),
            model: model.name().to_owned(),
        };
        let scheme = open()
            .and_then(|device| CudaPrefillV2::load(device, shape, &source, BATCH, case.round.seq_len))
            .map_err(|error| item.problem(error.to_string()))?;
        tally.each(item, "runs", |run, tally| case.run_on(&scheme, run, tally));
        Ok(())
    });
}

impl Case<'_> {
    fn run_on(&self, scheme: &CudaPrefillV2, run: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let generator = run.field("input_scheme")?;
        let stronger_rng =
            rng::generator(generator.text()?).ok_or_else(|| generator.problem("is not a known input scheme"))?;
        let round = Round {
            stronger_rng,
            ..self.round.clone()
        };
        let made = scheme
            .prepare(&round)
            .and_then(|mut prepared| prepared.generate(&self.nonces))
            .map_err(|error| run.problem(error.to_string()))?;
        let published = self.vectors(&run.field("vector_b64_bf16_model")?)?;
        tally.equal(run, &made.artifacts.len(), &published.len());
        for (made, (item, vector)) in made.artifacts.iter().zip(&published) {
            tally.near(item, &made.vector, vector, GPU_ARTIFACT);
        }
        Ok(())
    }
}
