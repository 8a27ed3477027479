//! `v1_model_small.json`: models of the v1 architecture, from the places of their tensors to distances.

use super::{Effort, Problem, array::Array, item::Item, tally::Tally};
use crate::{
    cuda::{self, Device, v1::CudaForward},
    transformer_v1::{self as v1, Forward, Params, Placement, Pool, rope},
};
use serde::Deserialize as _;
use std::sync::Arc;

/// Largest error of a logit, in root mean squares of the logits: half precision against other orders of summation.
pub(super) const LOGITS: f64 = 5e-3;
/// Largest difference of distances.
pub(super) const DISTANCE: f64 = 2e-4;
/// Largest part of what layers add that two orders of summation in half precision may differ by.
const INCREMENT: f64 = 0.01;
/// Cosines and sines are libm's.
const ROPE: f64 = 2e-6;
/// Multiplications that take seconds.
const STANDARD_WORK: u64 = 1 << 34;
/// The same on a device, which in tests is a simulated one, and which runs every product twenty times to choose how.
const STANDARD_WORK_ON_DEVICE: u64 = 1 << 30;
/// Pool that fits where tests run: 128 MB.
const STANDARD_POOL: u64 = 1 << 26;

/// A model file's frame.
pub(super) struct Case<'a> {
    pub(super) params: Params,
    pub(super) block_hash: &'a str,
    pub(super) public_key: &'a str,
    pub(super) nonces: Vec<i64>,
}

impl<'a> Case<'a> {
    pub(super) fn read(item: &Item<'a>, tally: &mut Tally) -> Result<Self, Problem> {
        let at = item.field("params")?;
        let params = Params::deserialize(at.value()).map_err(|error| at.problem(error.to_string()))?;
        params.check().map_err(|error| at.problem(error.to_string()))?;
        let case = Self {
            block_hash: item.field("block_hash")?.text()?,
            public_key: item.field("public_key")?.text()?,
            nonces: item.field("nonces")?.list(Item::integer)?,
            params,
        };
        if case.nonces.is_empty() {
            return Err(item.field("nonces")?.problem("is empty"));
        }
        for (name, found) in [
            ("total_params", Some(case.params.total())),
            ("pool_size", Some(case.params.pool_len())),
            ("ffn_hidden", Some(case.params.ffn_hidden() as u64)),
            ("head_dim", Some(case.params.head_dim() as u64)),
        ] {
            if let Some(item) = item.optional(name) {
                tally.equal(&item, &found, &u64::try_from(item.integer()?).ok());
            }
        }
        Ok(case)
    }

    /// Whether it takes more than seconds.
    fn too_much(&self) -> bool {
        self.params.pool_len() > STANDARD_POOL || self.params.multiplications(self.nonces.len()) > STANDARD_WORK
    }

    /// Logits and watched states of all nonces, threads sharing the nonces.
    pub(super) fn run(&self, pool: &Arc<Pool>, threads: usize, watched: &[usize]) -> v1::Output {
        let share = self.nonces.len().div_ceil(threads);
        let run = |nonces: &[i64]| {
            let mut forward = Forward::new(self.params.clone(), Arc::clone(pool));
            let inputs = v1::inputs(self.block_hash, self.public_key, nonces, forward.input_len());
            forward.run(&inputs, watched)
        };
        let parts: Vec<v1::Output> = std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .nonces
                .chunks(share)
                .map(|nonces| scope.spawn(|| run(nonces)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut whole = v1::Output {
            logits: Vec::new(),
            last_states: vec![Vec::new(); watched.len()],
        };
        for part in parts {
            whole.logits.extend(part.logits);
            for (whole, part) in whole.last_states.iter_mut().zip(part.last_states) {
                whole.extend(part);
            }
        }
        whole
    }

    /// The same on a device.
    pub(super) fn run_on(
        &self,
        device: Box<dyn Device>,
        pool: &Pool,
        watched: &[usize],
    ) -> Result<v1::Output, cuda::Error> {
        let mut forward = CudaForward::load(device, self.params.clone(), pool)?;
        let len = self.params.seq_len * self.params.dim;
        let inputs = v1::inputs(self.block_hash, self.public_key, &self.nonces, len);
        forward.run(&inputs, watched)
    }

    /// Every nonce's permuted unit vector and its distance.
    pub(super) fn distances(&self, logits: &[f32]) -> Vec<(Vec<f32>, f64)> {
        let target = v1::target(self.block_hash, self.params.vocab_size);
        let rows = logits.chunks_exact(self.params.vocab_size);
        rows.zip(&self.nonces)
            .map(|(logits, &nonce)| {
                let unit = v1::permuted_unit(logits, self.block_hash, self.public_key, nonce);
                let distance = v1::distance(&unit, &target);
                (unit, distance)
            })
            .collect()
    }
}

pub(super) fn check(root: &Item<'_>, effort: Effort, tally: &mut Tally) {
    tally.each(root, "cases", |item, tally| {
        let case = Case::read(item, tally)?;
        let name = item
            .optional("name")
            .and_then(|name| name.text().ok())
            .unwrap_or("a case");
        let too_much = case.too_much();
        frequencies(&item.field("freqs_cis_fp32_first_rows")?, &case.params, tally)?;
        if effort == Effort::Standard && too_much {
            tally.leave_out(format!("tensors, logits and distances of {name}"));
            return Ok(());
        }
        let pool = Arc::new(Pool::new(case.block_hash, case.params.pool_len() as usize));
        tensors(item, &case, &pool, tally)?;
        let logits = case.run(&pool, 1, &[]).logits;
        outputs(item, &case, &logits, tally);
        Ok(())
    });
}

/// What a device computes: every layer's last states against the reference, logits and distances against the published ones.
pub(super) fn check_on(
    root: &Item<'_>,
    effort: Effort,
    open: &dyn Fn() -> Result<Box<dyn Device>, cuda::Error>,
    tally: &mut Tally,
) {
    tally.each(root, "cases", |item, tally| {
        let case = Case::read(item, tally)?;
        if effort == Effort::Standard && case.params.multiplications(case.nonces.len()) > STANDARD_WORK_ON_DEVICE {
            let name = item.optional("name");
            let name = name.and_then(|name| name.text().ok()).unwrap_or("a case");
            tally.leave_out(format!("states, logits and distances of {name}"));
            return Ok(());
        }
        let pool = Arc::new(Pool::new(case.block_hash, case.params.pool_len() as usize));
        let layers: Vec<usize> = (0..case.params.n_layers).collect();
        let reference = case.run(&pool, 1, &layers);
        let found = open()
            .and_then(|device| case.run_on(device, &pool, &layers))
            .map_err(|error| item.problem(error.to_string()))?;
        increments(item, &case, (&reference, &found), tally);
        outputs(item, &case, &found.logits, tally);
        Ok(())
    });
}

/// What each layer added to its nonce's input, as a whole: the input dwarfs it.
fn increments(item: &Item<'_>, case: &Case<'_>, (reference, found): (&v1::Output, &v1::Output), tally: &mut Tally) {
    let (dim, len) = (case.params.dim, case.params.seq_len * case.params.dim);
    let inputs = v1::inputs(case.block_hash, case.public_key, &case.nonces, len);
    let last: Vec<&[f32]> = inputs.chunks_exact(len).map(|input| &input[len - dim..]).collect();
    let length = |pairs: &mut dyn Iterator<Item = (&f32, &f32)>| {
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let mut most = 0.0_f64;
    for (layer, (reference, found)) in reference.last_states.iter().zip(&found.last_states).enumerate() {
        let rows = reference.chunks_exact(dim).zip(found.chunks_exact(dim)).zip(&last);
        for (((reference, found), input), nonce) in rows.zip(&case.nonces) {
            let added = length(&mut reference.iter().zip(*input));
            let apart = length(&mut found.iter().zip(reference)) / added;
            tally.that(item, apart <= INCREMENT, || {
                format!(
                    "nonce {nonce}: what layers up to {layer} added differs by {:.2} %",
                    100.0 * apart
                )
            });
            most = most.max(apart);
        }
    }
    tally.that(item, found.last_states.len() == case.params.n_layers, || {
        "states are missing".into()
    });
    tally.note(format!(
        "what the layers added differs by at most {:.3} %",
        100.0 * most
    ));
}

fn frequencies(item: &Item<'_>, params: &Params, tally: &mut Tally) -> Result<(), Problem> {
    let array = Array::read(item, tally)?;
    let rows = array.shape().first().copied().unwrap_or_default().min(params.seq_len);
    let found: Vec<f32> = rope(params, rows)
        .into_iter()
        .flat_map(|(cos, sin)| [cos, sin])
        .collect();
    array.compare_floats(&found, ROPE, tally)
}

fn tensors(item: &Item<'_>, case: &Case<'_>, pool: &Pool, tally: &mut Tally) -> Result<(), Problem> {
    let list = item.field("tensors_in_named_parameters_order")?;
    let (published, specs) = (list.items()?, case.params.tensors());
    tally.equal(&list, &specs.len(), &published.len());
    for (item, spec) in published.iter().zip(&specs) {
        let field = |name: &str| item.field(name);
        tally.equal(&field("name")?, &spec.name.as_str(), &field("name")?.text()?);
        let shape = field("shape")?.list(Item::integer)?;
        let found: Vec<i64> = spec.shape.iter().map(|&size| size as i64).collect();
        tally.equal(item, &found, &shape);
        let hash = field("name_hash_u32")?;
        tally.equal(&hash, &v1::name_hash(case.block_hash, &spec.name), &hash.u32()?);
        let (mode, place) = match Placement::of(case.block_hash, spec, case.params.pool_len() as usize) {
            Placement::Slice { start } => ("slice", start),
            Placement::TileThenRotate { shift } => ("tile_then_rotate", shift),
        };
        tally.equal(&field("mode")?, &mode, &field("mode")?.text()?);
        tally.equal(
            &field("start_or_shift")?,
            &(place as i64),
            &field("start_or_shift")?.integer()?,
        );
        let tensor = pool.tensor(spec);
        tally.equal(
            &field("sha256_le")?,
            &hex::encode(tensor.digest()).as_str(),
            &field("sha256_le")?.text()?,
        );
        let len = spec.len() as usize;
        let ends = 4.min(len);
        for (name, range) in [("first_hex_le", 0..ends), ("last_hex_le", len - ends..len)] {
            let found: Vec<u8> = tensor
                .halves(range)
                .iter()
                .flat_map(|half| half.to_le_bytes())
                .collect();
            tally.equal(&field(name)?, &found, &field(name)?.hex()?);
        }
    }
    Ok(())
}

fn outputs(item: &Item<'_>, case: &Case<'_>, logits: &[f32], tally: &mut Tally) {
    for name in [
        "last_token_logits_fp16arith_fp32acc",
        "last_token_logits_native_torch_cpu_half",
        "last_token_logits_fp32arith_fp16weights",
    ] {
        tally.section(item, name, |item, tally| compare_logits(item, logits, tally));
    }
    let found = case.distances(logits);
    let distances: Vec<f64> = found.iter().map(|(_, distance)| *distance).collect();
    for name in [
        "distances_fp16arith_fp32acc",
        "distances_native_torch_cpu_half",
        "distances_fp32arith_fp16weights",
    ] {
        tally.section(item, name, |item, tally| {
            tally.close_doubles(item, &distances, &item.list(Item::number)?, DISTANCE);
            Ok(())
        });
    }
    tally.section(item, "distances_fp16arith_hex_f64le", |item, tally| {
        let bytes = item.hex()?;
        let published: Vec<f64> = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|x| f64::from_le_bytes(*x))
            .collect();
        tally.close_doubles(item, &distances, &published, DISTANCE);
        Ok(())
    });
    let tolerance = LOGITS / (case.params.vocab_size as f64).sqrt();
    tally.section(item, "permuted_normalised_fp16arith_first16", |item, tally| {
        let rows = item.items()?;
        tally.equal(item, &found.len(), &rows.len());
        for (row, (unit, _)) in rows.iter().zip(&found) {
            let published = row.list(|x| Ok(x.number()? as f32))?;
            tally.close(row, &unit[..published.len().min(unit.len())], &published, tolerance);
        }
        Ok(())
    });
}

/// All logits, each within a part of their root mean square.
pub(super) fn compare_logits(item: &Item<'_>, logits: &[f32], tally: &mut Tally) -> Result<(), Problem> {
    let array = Array::read(item, tally)?;
    let published = array.published();
    let squares: f64 = published.iter().map(|x| x * x).sum();
    let size = (squares / published.len().max(1) as f64).sqrt();
    array.compare_floats(logits, LOGITS * size, tally)
}
