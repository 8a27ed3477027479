//! `v2_tiny_models.json`: whole runs of small decoders, in single precision and bf16, hooks on and off.

mod delivered;
mod on_gpu;

use super::{
    Problem,
    array::{Array, bf16_bits, widen_bf16},
    item::Item,
    rng,
    tally::{NORMAL, Tally, artifact_distance},
    validation,
};
use crate::{
    artifact::{self, Projection},
    decoder::{self, Config, Dtype, Model, Recipe, Runner, Trace},
    householder, prefill_v2,
    scheme::Round,
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};

/// Distance of single-precision artifacts between two implementations.
const F32_ARTIFACT: f64 = 2e-3;
/// Single-precision states within a run: numbers of order one after a few dozen rounded operations. Ten times what
/// two implementations were seen to differ.
const F32_STATE: f64 = 5e-5;
/// Distance of bf16 artifacts between two implementations, of which each is within 0.02 of single precision.
const BF16_ARTIFACT: f64 = 0.03;
/// The same when a router's choice was so narrow that bf16 noise decides it.
const BF16_ROUTED_OTHERWISE: f64 = 0.3;
/// Difference of router logits that bf16 noise can turn around.
const BF16_MARGIN: f32 = 0.03;
/// Artifacts of a wrong implementation are farther away than this, ten times what a right one may differ.
const WRONG: f64 = 0.02;

/// Most input elements of one run, over all its nonces.
const MAX_INPUTS: usize = 1 << 24;
/// Longest sequence: attention grows with its square.
const MAX_SEQ_LEN: usize = 4096;

struct Case<'a> {
    round: Round,
    nonces: Vec<i64>,
    /// The model as loaded in single precision and in bf16.
    models: [Arc<Model>; 2],
    item: &'a Item<'a>,
}

/// One nonce through one model.
struct Run {
    trace: Trace,
    last_hidden: Vec<f32>,
    projection: Option<Projection>,
}

impl Run {
    fn vector(&self) -> Vec<u8> {
        self.projection.as_ref().map(Projection::encode).unwrap_or_default()
    }
}

pub(super) use on_gpu::check_on;

pub(super) fn check(root: &Item<'_>, tally: &mut Tally) {
    tally.each(root, "cases", |item, tally| {
        let case = Case::read(item, tally)?;
        tally.each(item, "runs", |run, tally| case.run(run, tally));
        tally.each(item, "reference_validation", validation::check);
        Ok(())
    });
}

fn check_weights(case: &Item<'_>, config: &Config, (tag, model): (&str, &str), tally: &mut Tally) {
    let mut expected: BTreeMap<String, Vec<usize>> = decoder::tensors(config)
        .into_iter()
        .map(|spec| (spec.name, spec.shape))
        .collect();
    tally.each(case, "weights", |item, tally| {
        let name = item.field("name")?;
        let published: Vec<usize> = item.field("shape")?.list(|size| size.size(1 << 26))?;
        let shape = expected
            .remove(name.text()?)
            .ok_or_else(|| name.problem("is no tensor of this config, or is listed twice"))?;
        tally.equal(&item.field("shape")?, &shape, &published);
        let found = decoder::tensor(tag, model, name.text()?, &shape);
        let first = item.field("first4")?;
        let published = first.list(|x| Ok(x.number()? as f32))?;
        tally.close(&first, &found[..published.len().min(found.len())], &published, NORMAL);
        if let Some(digest) = item.optional("sha256_f32_le") {
            let hash = found
                .iter()
                .fold(Sha256::new(), |hash, x| hash.chain_update(x.to_le_bytes()))
                .finalize();
            tally.informative_digest(digest.hex()? == hash[..]);
        }
        Ok(())
    });
    if case.optional("weights").is_some() {
        tally.that(case, expected.is_empty(), || {
            format!("weights lack {:?}", expected.keys().collect::<Vec<_>>())
        });
    }
}

impl<'a> Case<'a> {
    /// Reads a case and checks its weights.
    fn read(item: &'a Item<'a>, tally: &mut Tally) -> Result<Self, Problem> {
        let name = item.field("model")?.text()?;
        let config_item = item.field("config")?;
        let config: Config = serde::Deserialize::deserialize(config_item.value())
            .map_err(|error| config_item.problem(error.to_string()))?;
        if name.parse::<Recipe>().is_ok_and(|recipe| recipe.config() != config) {
            tally.note(format!("{name} has another shape than the recipe of that name"));
        }
        let tag = item.field("weights_tag")?.text()?;
        let model = Model::from_config(name, config.clone(), tag);
        let model = Arc::new(model.map_err(|error| config_item.problem(error.to_string()))?);
        check_weights(item, &config, (tag, name), tally);
        let nonces = item.field("nonces")?;
        let case = Self {
            round: Round {
                block_hash: item.field("block_hash")?.text()?.to_owned(),
                public_key: item.field("public_key")?.text()?.to_owned(),
                seq_len: config.seq_len,
                k_dim: item.field("k_dim")?.size(config.hidden)?,
                stronger_rng: false,
            },
            nonces: nonces.list(Item::integer)?,
            models: [Arc::clone(&model), Arc::new(model.loaded_as(Dtype::Bf16))],
            item,
        };
        let elements = case.nonces.len() * config.seq_len * config.hidden;
        if elements == 0 || elements > MAX_INPUTS || config.seq_len > MAX_SEQ_LEN {
            return Err(nonces.problem(format!("{elements} input elements: 1 to {MAX_INPUTS} are computed")));
        }
        Ok(case)
    }
}

impl Case<'_> {
    fn run(&self, run: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let scheme = run.field("input_scheme")?;
        let stronger_rng =
            rng::generator(scheme.text()?).ok_or_else(|| scheme.problem("is not a known input scheme"))?;
        let round = Round {
            stronger_rng,
            ..self.round.clone()
        };
        let inputs: Vec<Vec<f32>> = self.nonces.iter().map(|&nonce| self.input(&round, nonce)).collect();
        let result = check_inputs(run, &inputs, tally);
        tally.absorb(result);
        let single = self.compute(&round, &inputs, Dtype::F32, true);
        let halved = self.compute(&round, &inputs, Dtype::Bf16, true);
        let unhooked = self.compute(&round, &inputs, Dtype::F32, false);
        for result in [
            check_states(run, &single, tally),
            check_steps(run, &single, tally),
            self.check_artifacts(run, [&single, &unhooked], tally),
            self.check_bf16(run, &halved, tally),
            self.check_projections(run, tally),
            self.check_scheme(run, &round, tally),
            self.check_encoding(run, tally),
            check_router(run, &single, tally),
        ] {
            tally.absorb(result);
        }
        Ok(())
    }

    fn input(&self, round: &Round, nonce: i64) -> Vec<f32> {
        let mut input = vec![0.0; round.seq_len * self.models[0].config().hidden];
        prefill_v2::fill_input(round, nonce, &mut input);
        input
    }

    fn compute(&self, round: &Round, inputs: &[Vec<f32>], dtype: Dtype, hooks: bool) -> Vec<Run> {
        let model = &self.models[usize::from(dtype == Dtype::Bf16)];
        let config = model.config();
        let layers = if hooks { config.layers } else { 0 };
        let reflections = (0..layers)
            .map(|layer| householder::reflection_vector(&round.block_hash, layer, config.hidden))
            .collect();
        let mut runner = Runner::new(Arc::clone(model), dtype, round.seq_len, reflections);
        let one = |(input, &nonce): (&Vec<f32>, &i64)| {
            let mut trace = Trace::default();
            let last_hidden = runner.run(input, Some(&mut trace)).to_vec();
            let projection = artifact::project(&last_hidden, &round.block_hash, &round.public_key, nonce, round.k_dim);
            Run {
                trace,
                last_hidden,
                projection,
            }
        };
        inputs.iter().zip(&self.nonces).map(one).collect()
    }

    fn check_artifacts(
        &self,
        run: &Item<'_>,
        [hooked, unhooked]: [&[Run]; 2],
        tally: &mut Tally,
    ) -> Result<(), Problem> {
        let published = self.vectors(&run.field("vector_b64_fp32_model")?)?;
        for (run, (item, vector)) in hooked.iter().zip(&published) {
            tally.near(item, &run.vector(), vector, F32_ARTIFACT);
        }
        if let Some(decoded) = run.optional("vectors_fp32_model") {
            let rows = decoded.items()?;
            tally.equal(&decoded, &published.len(), &rows.len());
            for (item, (_, vector)) in rows.iter().zip(&published) {
                tally.equal(
                    item,
                    &artifact::decode(vector),
                    &Some(item.list(|x| Ok(x.number()? as f32))?),
                );
            }
        }
        if let Some(item) = run.optional("vector_b64_fp32_model_hooks_off") {
            for ((without, with), (item, vector)) in unhooked.iter().zip(hooked).zip(self.vectors(&item)?) {
                tally.near(&item, &without.vector(), &vector, F32_ARTIFACT);
                far(&item, &with.vector(), &vector, "the model with reflections", tally);
            }
        }
        if let Some(item) = run.optional("vector_b64_fp32_model_if_cpu_topk_order") {
            for (run, (item, vector)) in hooked.iter().zip(self.vectors(&item)?) {
                far(&item, &run.vector(), &vector, "the network's pick order", tally);
            }
        }
        Ok(())
    }

    fn check_bf16(&self, run: &Item<'_>, halved: &[Run], tally: &mut Tally) -> Result<(), Problem> {
        let published = self.vectors(&run.field("vector_b64_bf16_model")?)?;
        let mut routed_otherwise = 0;
        for (run, (item, vector)) in halved.iter().zip(&published) {
            let found = run.vector();
            // A different expert is no error where bf16 cannot tell which one is better.
            let narrow = run.trace.narrowest_margin < BF16_MARGIN;
            let apart = artifact_distance(&found, vector).is_some_and(|distance| distance >= BF16_ARTIFACT);
            routed_otherwise += usize::from(narrow && apart);
            tally.near(
                item,
                &found,
                vector,
                if narrow { BF16_ROUTED_OTHERWISE } else { BF16_ARTIFACT },
            );
        }
        if routed_otherwise > 0 {
            tally.that(run, routed_otherwise <= halved.len() / 2, || {
                format!("{routed_otherwise} of {} bf16 runs took other experts", halved.len())
            });
            tally.note(format!(
                "bf16 runs that took another expert on a near tie: {routed_otherwise}"
            ));
        }
        let bits = Array::read(&run.field("final_normed_last_hidden_bf16_model_bits")?, tally)?.bits()?;
        let found: Vec<u16> = halved.iter().flat_map(|run| bf16_bits(&run.last_hidden)).collect();
        tally.informative_bf16(&found, &bits);
        Ok(())
    }

    /// The published artifacts must follow from the published states, whatever the decoder did before.
    fn check_projections(&self, run: &Item<'_>, tally: &mut Tally) -> Result<(), Problem> {
        let single = Array::read(&run.field("final_normed_last_hidden_f32")?, tally)?.floats()?;
        let halved = Array::read(&run.field("final_normed_last_hidden_bf16_model_bits")?, tally)?.bits()?;
        let states = [
            ("vector_b64_fp32_model", single),
            ("vector_b64_bf16_model", widen_bf16(&halved)),
        ];
        let Round {
            block_hash,
            public_key,
            k_dim,
            ..
        } = &self.round;
        for (name, states) in states {
            let rows = states.chunks_exact(self.models[0].config().hidden);
            for ((item, published), (row, &nonce)) in
                self.vectors(&run.field(name)?)?.into_iter().zip(rows.zip(&self.nonces))
            {
                let found = artifact::project(row, block_hash, public_key, nonce, *k_dim);
                let same = found.is_some_and(|found| Tally::is_same_artifact(&found.encode(), &published));
                tally.that(&item, same, || {
                    "is not the artifact of the published last hidden state".into()
                });
            }
        }
        Ok(())
    }

    /// One vector per nonce.
    fn vectors<'b>(&self, list: &Item<'b>) -> Result<Vec<(Item<'b>, Vec<u8>)>, Problem> {
        let items = list.items()?;
        if items.len() != self.nonces.len() {
            let path = self.item.path();
            return Err(list.problem(format!(
                "{} vectors for the {} nonces of {path}",
                items.len(),
                self.nonces.len()
            )));
        }
        items
            .into_iter()
            .map(|item| item.base64().map(|vector| (item, vector)))
            .collect()
    }
}

fn check_inputs(run: &Item<'_>, inputs: &[Vec<f32>], tally: &mut Tally) -> Result<(), Problem> {
    if let Some(first) = run.optional("inputs_f32_nonce0_first16") {
        let published = first.list(|x| Ok(x.number()? as f32))?;
        tally.close(
            &first,
            &inputs[0][..published.len().min(inputs[0].len())],
            &published,
            NORMAL,
        );
    }
    if let Some(digest) = run.optional("inputs_f32_sha256") {
        let all = inputs.iter().flatten();
        let hash = all
            .fold(Sha256::new(), |hash, x| hash.chain_update(x.to_le_bytes()))
            .finalize();
        tally.informative_digest(digest.hex()? == hash[..]);
    }
    Ok(())
}

fn check_states(run: &Item<'_>, single: &[Run], tally: &mut Tally) -> Result<(), Problem> {
    let layers = run.field("per_layer_last_token_after_reflection_f32")?;
    for item in layers.items()? {
        let layer = item.field("layer")?.u32()? as usize;
        let states: Option<Vec<_>> = single.iter().map(|run| run.trace.layers.get(layer)).collect();
        let states = states.ok_or_else(|| item.problem(format!("there is no layer {layer}")))?;
        let hidden: Vec<f32> = states.iter().flat_map(|state| &state.hidden).copied().collect();
        let residual: Vec<f32> = states.iter().flat_map(|state| &state.residual).copied().collect();
        Array::read(&item.field("hidden")?, tally)?.compare_floats(&hidden, F32_STATE, tally)?;
        Array::read(&item.field("residual")?, tally)?.compare_floats(&residual, F32_STATE, tally)?;
    }
    let last: Vec<f32> = single.iter().flat_map(|run| &run.last_hidden).copied().collect();
    Array::read(&run.field("final_normed_last_hidden_f32")?, tally)?.compare_floats(&last, F32_STATE, tally)
}

fn check_steps(run: &Item<'_>, single: &[Run], tally: &mut Tally) -> Result<(), Problem> {
    let projections = || single.iter().filter_map(|run| run.projection.as_ref());
    let indices = run.field("indices_cuda_order")?;
    let found: Vec<Vec<u32>> = projections()
        .map(|p| p.indices.iter().map(|&index| index as u32).collect())
        .collect();
    tally.equal(&indices, &found, &indices.list(|row| row.list(Item::u32))?);
    let picked: Vec<f32> = projections().flat_map(|p| &p.picked).copied().collect();
    Array::read(&run.field("xk_f32")?, tally)?.compare_floats(&picked, F32_STATE, tally)?;
    let rotated: Vec<f32> = projections().flat_map(|p| &p.rotated).copied().collect();
    Array::read(&run.field("yk_f32")?, tally)?.compare_floats(&rotated, F32_STATE, tally)
}

fn check_router(run: &Item<'_>, single: &[Run], tally: &mut Tally) -> Result<(), Problem> {
    let Some(item) = run.optional("router_last_layer_last_token") else {
        return Ok(());
    };
    let (experts, weights) = (item.field("experts")?.items()?, item.field("weights")?.items()?);
    if experts.len() != single.len() || weights.len() != single.len() {
        return Err(item.problem(format!("does not hold {} rows", single.len())));
    }
    for (run, (experts, weights)) in single.iter().zip(experts.iter().zip(&weights)) {
        let Some(routed) = &run.trace.last_routed else {
            return Err(item.problem("the model has no router"));
        };
        let found: Vec<u32> = routed.experts.iter().map(|&expert| expert as u32).collect();
        tally.equal(experts, &found, &experts.list(Item::u32)?);
        tally.close(
            weights,
            &routed.weights,
            &weights.list(|x| Ok(x.number()? as f32))?,
            F32_STATE,
        );
    }
    Ok(())
}

/// The artifact of a deliberately wrong computation must not be ours.
fn far(item: &Item<'_>, found: &[u8], wrong: &[u8], what: &str, tally: &mut Tally) {
    let distance = artifact_distance(found, wrong);
    tally.that(item, distance.is_some_and(|distance| distance > WRONG), || {
        format!("does not tell {what} from its absence: distance {distance:?}")
    });
}
