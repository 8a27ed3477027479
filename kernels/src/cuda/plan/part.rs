//! Decide: a batch without some of its steps, for the time that they cost.

use super::{Arg, Kernel, Launch, Plan, Step};

/// How much of a batch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Products and attention alone: what no implementation can leave out.
    Products,
    /// A prefill of the same model: without inputs from seeds, reflections, gathering, projection and copies.
    Prefill,
}

impl Plan {
    /// The steps of a part, in their order.
    pub fn part(self, part: Part) -> Vec<Step> {
        let steps = self.steps.into_iter();
        match part {
            Part::Whole => steps.collect(),
            Part::Products => steps.filter(is_product).collect(),
            Part::Prefill => steps.filter_map(of_prefill).collect(),
        }
    }
}

const fn is_product(step: &Step) -> bool {
    match step {
        Step::Gemm(_) | Step::HalfGemm(_) => true,
        Step::Launch(launch) => matches!(
            launch.kernel,
            Kernel::Attention16
                | Kernel::Attention32
                | Kernel::Attention64
                | Kernel::Attention128
                | Kernel::AttentionLast
        ),
    }
}

/// A reflection's kernel becomes the one that adds and norms without it.
fn of_prefill(step: Step) -> Option<Step> {
    match step {
        Step::Launch(launch) if launch.kernel.is_extra() => None,
        Step::Launch(launch) if launch.kernel == Kernel::ReflectAddNorm => Some(Step::Launch(unreflected(launch))),
        other => Some(other),
    }
}

fn unreflected(mut launch: Launch) -> Launch {
    // Hidden, residual, reflection, norm, normed, width, eps.
    launch.args.remove(2);
    if let Some(Arg::Size(width)) = launch.args.get(4) {
        launch.bytes.0 -= 2 * u64::from(*width);
    }
    launch.kernel = Kernel::AddNorm;
    launch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cuda::{
            Layout, Shape,
            plan::{Batch, Buffer, plan},
        },
        decoder::Recipe,
    };

    fn whole() -> Plan {
        let shape = Shape::try_from(&Recipe::TinyQwen3Dense.config()).unwrap();
        let batch = Batch {
            nonces: 3,
            seq_len: 16,
            k_dim: 12,
            segments: 1,
        };
        plan(&shape, &Layout::new(&shape), batch).unwrap()
    }

    fn names(steps: &[Step]) -> Vec<&'static str> {
        let name = |step: &Step| match step {
            Step::Launch(launch) => launch.kernel.name(),
            Step::Gemm(_) | Step::HalfGemm(_) => "product",
        };
        steps.iter().map(name).collect()
    }

    #[test]
    fn products_and_attention_are_those_of_the_whole_and_in_its_order() {
        let all = whole().steps;
        let part = whole().part(Part::Products);
        let wanted: Vec<_> = all.iter().filter(|step| is_product(step)).cloned().collect();
        assert_eq!(part, wanted);
        let (products, attention): (Vec<_>, Vec<_>) = names(&part).into_iter().partition(|name| *name == "product");
        let layers = Recipe::TinyQwen3Dense.config().layers;
        assert_eq!((products.len(), attention.len()), (4 * layers + 1, layers));
        assert!(attention.iter().all(|name| name.starts_with("attention_")));
        assert!(attention.ends_with(&["attention_last"]));
        assert_eq!(whole().part(Part::Whole), all);
    }

    #[test]
    fn a_prefill_is_the_whole_without_what_the_proof_adds() {
        let (all, part) = (names(&whole().steps), names(&whole().part(Part::Prefill)));
        let wanted: Vec<_> = all
            .into_iter()
            .filter(|name| !["fill_inputs", "gather_last", "project"].contains(name))
            .map(|name| if name == "reflect_add_norm" { "add_norm" } else { name })
            .collect();
        assert_eq!(part, wanted);
    }

    /// What was a reflection is to the last argument what the kernel without one takes.
    #[test]
    fn without_its_reflection_a_step_is_the_one_within_a_layer() {
        let part = whole().part(Part::Prefill);
        let added: Vec<_> = part
            .iter()
            .filter_map(|step| match step {
                Step::Launch(launch) if launch.kernel == Kernel::AddNorm => Some(launch),
                _ => None,
            })
            .collect();
        for (within, after) in added.chunks(2).map(|pair| (pair[0], pair[1])) {
            assert_eq!(
                (within.grid, within.block, within.bytes),
                (after.grid, after.block, after.bytes)
            );
            assert_eq!(within.args.len(), after.args.len());
            for (place, (within, after)) in within.args.iter().zip(&after.args).enumerate() {
                // The norms' weights differ, and nothing else.
                assert_eq!(within == after, place != 2, "argument {place}");
            }
        }
        let reads_reflections = |launch: &&Launch| {
            let of = |arg: &Arg| matches!(arg, Arg::At(place) if place.buffer == Buffer::Reflections);
            launch.args.iter().any(of)
        };
        assert!(!added.iter().any(reads_reflections));
    }
}
